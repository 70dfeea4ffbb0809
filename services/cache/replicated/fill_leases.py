"""Leases to fill an absent key, so that one caller computes its value while the others wait ("Scaling Memcache at
Facebook", section 3.2.1).

The rule of this file: a key has at most one lease, and whoever presents its token may fill only as long as nothing
happened in between that could have made the value old. A write or a removal of the key ends the lease. An
invalidation of a tag cannot know which values under way will carry it, so it is remembered for as long as a lease
that is older runs, and compared with the tags that the fill brings. Time is cluster time; a token is the log index
of the entry that took the lease, so it rises.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from services.cache.replicated.deadlines import Deadlines, sweep_time_ms

#: Other lives of nodes that one lease is told to beside the last one; who asks then is told that somebody fills.
TOLD_BESIDE_MAX = 16

#: Invalidated tags that are remembered one by one; with more, older leases may not fill anything with tags.
INVALIDATED_MAX = 10_000


class FillLease(msgspec.Struct, frozen=True, gc=False):
    """One caller's right to fill one key."""

    key: str
    #: Log index of the entry that took it.
    token: int
    #: Cluster time from which on it has ended, milliseconds.
    expires_at: int
    #: Bucket in `Deadlines`.
    sweep_at: int
    #: The life of the node for whose client it was taken, or which asked for it last with its claim.
    asker: str
    #: Log index of the entry that told it last.
    told: int
    #: `Idempotency-Key` of the request that took it; empty where that had none.
    claim: str = ""
    #: `(asker, told)` of other lives of nodes that were told it before and have not given it back, oldest first: the
    #: request came to each of them, and any of them may have passed it on. Only where `Fill.beside` said so.
    beside: tuple[tuple[str, int], ...] = ()

    def is_of(self, asker: str, claim: str) -> bool:
        """Whether this is the lease of who asks. A node's life without a claim may be told of it again: the answer
        may have been lost on the way, and only that node knows whether."""
        return claim == self.claim and (claim != "" or asker == self.asker)

    def told_to(self, asker: str) -> int | None:
        """Log index of the entry that told it to that life of a node last; None: it has none of it, or no more."""
        return self.told if asker == self.asker else dict(self.beside).get(asker)


class FillLeases:
    """All leases of one machine."""

    def __init__(self) -> None:
        #: Oldest first, so tokens rise.
        self._leases: OrderedDict[str, FillLease] = OrderedDict()
        self._deadlines = Deadlines()
        #: Tag -> log index of its last invalidation, lowest index first; those that some lease is older than.
        self._invalidated: OrderedDict[str, int] = OrderedDict()
        #: Invalidations up to this index may have been forgotten.
        self._forgotten_index = 0

    def __len__(self) -> int:
        return len(self._leases)

    def of(self, key: str, time_ms: int) -> FillLease | None:
        """The lease of `key`, where it has not ended by that time."""
        lease = self._leases.get(key)
        return None if lease is None or lease.expires_at <= time_ms else lease

    def all(self) -> Iterable[FillLease]:
        """Every lease, ended by its time or not, oldest first."""
        return self._leases.values()

    def take(self, key: str, token: int, time_ms: int, lease_ms: int, asker: str, claim: str) -> FillLease:
        assert key not in self._leases, "a key has one lease"
        expires_at = time_ms + lease_ms
        sweep_at = sweep_time_ms(time_ms, expires_at)
        lease = FillLease(key, token, expires_at, sweep_at, asker, told=token, claim=claim)
        self._leases[key] = lease
        self._deadlines.add(key, lease.sweep_at)
        return lease

    def tell_again(self, lease: FillLease, index: int, asker: str, *, beside: bool) -> FillLease | None:
        """The entry at `index` tells of the lease once more: its time stays, and who gives back what it was told
        earlier gives back nothing. `beside`: others who were told keep theirs. None: too many have."""
        others = tuple(each for each in lease.beside if each[0] != asker)
        if beside and asker != lease.asker:
            others = (*others, (lease.asker, lease.told))
            if len(others) > TOLD_BESIDE_MAX:
                return None
        lease = self._leases[lease.key] = msgspec.structs.replace(lease, told=index, asker=asker, beside=others)
        return lease

    def give_back(self, lease: FillLease, told: int) -> bool:
        """Whoever was told the lease by the entry at `told` does not have it. True: so nobody has it."""
        having = [each for each in (*lease.beside, (lease.asker, lease.told)) if each[1] != told]
        if not having:
            return True
        *others, (asker, last) = having
        self._leases[lease.key] = msgspec.structs.replace(lease, told=last, asker=asker, beside=tuple(others))
        return False

    def end(self, key: str) -> bool:
        """Whether there was a lease of `key`, ended or not."""
        lease = self._leases.pop(key, None)
        if lease is None:
            return False
        self._deadlines.remove(key, lease.sweep_at)
        self._forget_invalidated()
        return True

    def may_fill(self, key: str, token: int, tags: Iterable[str], time_ms: int) -> bool:
        """Whether a value with these tags, computed under the lease of that token, may be stored."""
        lease = self.of(key, time_ms)
        if lease is None or lease.token != token:
            return False
        return all(max(self._forgotten_index, self._invalidated.get(tag, 0)) < token for tag in tags)

    def on_invalidated(self, tag: str, index: int) -> None:
        """A tag was invalidated: a value that is being computed and will carry it is old already."""
        if not self._leases:
            return
        self._invalidated[tag] = index
        self._invalidated.move_to_end(tag)
        if len(self._invalidated) > INVALIDATED_MAX:
            _, self._forgotten_index = self._invalidated.popitem(last=False)

    def next_due_ms(self) -> int | None:
        return self._deadlines.next_due_ms()

    def pop_due(self, time_ms: int) -> str | None:
        """End a lease whose bucket is due and return its key; None where none is."""
        key = self._deadlines.pop_due(time_ms)
        if key is not None:
            self.end(key)
        return key

    # Snapshots

    def rows(self) -> Iterator[list[Any]]:
        """`["lease", ...]` and `["invalidated", tag, index]`, oldest first: those of this moment, made as they are
        asked for."""
        return _rows(list(self._leases.values()), list(self._invalidated.items()), self._forgotten_index)

    def restore_row(self, row: list[Any]) -> None:
        """One of `rows`, in their order."""
        table, *fields = row
        if table == "lease":
            lease = _lease_in(fields)
            self._leases[lease.key] = lease
            self._deadlines.add(lease.key, lease.sweep_at)
        elif table == "invalidated":
            tag, index = fields
            self._invalidated[tag] = index
        else:
            (self._forgotten_index,) = fields

    def _forget_invalidated(self) -> None:
        """Forget what no lease is older than."""
        oldest = next(iter(self._leases.values())).token if self._leases else None
        while self._invalidated:
            tag, index = next(iter(self._invalidated.items()))
            if oldest is not None and index > oldest:
                return
            del self._invalidated[tag]


def _rows(leases: list[FillLease], invalidated: list[tuple[str, int]], forgotten_index: int) -> Iterator[list[Any]]:
    for each in leases:
        yield ["lease", *_row(each)]
    for tag, index in invalidated:
        yield ["invalidated", tag, index]
    if forgotten_index:
        yield ["forgotten", forgotten_index]


def _row(lease: FillLease) -> list[Any]:
    """What holds for none of its fields is left out, as the versions before wrote it."""
    row = [lease.key, lease.token, lease.expires_at, lease.sweep_at, lease.asker]
    if lease.beside:
        return [*row, lease.told, lease.claim, lease.beside]
    return row if not lease.claim and lease.told == lease.token else [*row, lease.told, lease.claim]


def _lease_in(row: list[Any]) -> FillLease:
    key, token, expires_at, sweep_at, asker, *rest = row
    told, claim, *beside = rest or (token, "")
    others = tuple((other, index) for other, index in beside[0]) if beside else ()
    return FillLease(key, token, expires_at, sweep_at, asker, told, claim, others)
