"""The lock machine's memory: two replicated tables, one counter, and the indexes over them.

Replicated are the holds by token, the waiters by id and the last token given; a snapshot is a shallow copy of
these. Everything else is rebuilt from them, and every method here leaves all of it in step. Nothing in this
module decides who may have what.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from sys import intern
from typing import Any

from common.sorted_set import SortedSet
from services.lock.replicated.limits import hold_bytes, waiter_bytes
from services.lock.replicated.records import Hold, Listener, Lock, Waiter

#: Layout of the snapshot records; with version 1, a place in line had one request.
SNAPSHOT_VERSION = 2

#: Later than any cluster time.
NEVER_MS = 1 << 62


class LockTables:
    """Holds, waiters, and the ways to find them."""

    __slots__ = (
        "_deadlines",
        "_expiries",
        "_hold_counts",
        "_keys",
        "_last_token",
        "bytes",
        "holds",
        "lives",
        "locks",
        "quiet_until_ms",
        "time_ms",
        "waiters",
        "waits",
    )

    def __init__(self) -> None:
        #: Every hold by its token, lowest first. Replicated.
        self.holds: dict[int, Hold] = {}
        #: Every place in line by its id, first come first. Replicated.
        self.waiters: dict[str, Waiter] = {}
        #: The highest token ever given. Replicated.
        self._last_token = 0
        #: What holds and waiters count for against the limit `bytes_max`.
        self.bytes = 0
        #: Cluster time of the last entry; 0 after a restore by which nothing has ended. Replicated.
        self.time_ms = 0
        #: The held keys, and only those, between two steps of the machine. The last hold of one may have ended, as
        #: long as no entry has swept it.
        self.locks: dict[str, Lock] = {}
        #: The keys of `locks` in order.
        self._keys: SortedSet[str] = SortedSet()
        #: Places in line by owner, then by key; only owners that wait.
        self.waits: dict[str, dict[str, Waiter]] = {}
        #: How many requests wait at which life of which node, by `(node, boot)`; only lives with any.
        self.lives: dict[tuple[str, str], int] = {}
        #: How many holds an owner has; only owners with any.
        self._hold_counts: dict[str, int] = {}
        #: `(expires_ms, token)` of every hold that expires, `(deadline_ms, id)` of every place in line.
        self._expiries: SortedSet[tuple[int, int]] = SortedSet()
        self._deadlines: SortedSet[tuple[int, str]] = SortedSet()
        #: Nothing is due before this cluster time. A lower bound: cheaper than `next_due_ms`.
        self.quiet_until_ms = NEVER_MS

    def is_engaged(self, owner: str) -> bool:
        """Whether the owner holds anything or stands in any line, so that somebody might wait for it."""
        return owner in self._hold_counts or owner in self.waits

    def place_of(self, key: str, owner: str) -> Waiter | None:
        """Where the owner stands in the line of the key."""
        places = self.waits.get(owner)
        return None if places is None else places.get(key)

    def add_hold(
        self,
        key: str,
        owner: str,
        exclusive: bool,
        node: str,
        expires_ms: int | None,
        waiter: str,
        unheard: tuple[str, ...],
    ) -> Hold:
        """Record a grant under the next token."""
        token = self._last_token = self._last_token + 1
        hold = Hold(token, key, owner, exclusive, intern(node), expires_ms, waiter, unheard)
        self._index_hold(hold)
        return hold

    def _index_hold(self, hold: Hold) -> None:
        self.holds[hold.token] = hold
        self.bytes += hold_bytes(hold)
        lock = self.locks.get(hold.key)
        if lock is None:
            lock = self.locks[hold.key] = Lock()
            self._keys.add(hold.key)
        if lock.first is None:
            lock.first = hold
        else:
            lock.add(hold)
        self._hold_counts[hold.owner] = self._hold_counts.get(hold.owner, 0) + 1
        if hold.expires_ms is not None:
            self._schedule_expiry(hold.expires_ms, hold.token)

    def change_hold(self, hold: Hold, *, expires_ms: int | None, unheard: tuple[str, ...]) -> Hold:
        """Put another expiry and other requests into the record of a grant; returns the new record."""
        waiter = hold.waiter if unheard else ""
        changed = hold._replace(expires_ms=expires_ms, waiter=waiter, unheard=unheard)
        self.holds[hold.token] = changed
        self.bytes += hold_bytes(changed) - hold_bytes(hold)
        self.locks[hold.key].replace(changed)
        if expires_ms != hold.expires_ms:
            self._forget_expiry(hold)
            if expires_ms is not None:
                self._schedule_expiry(expires_ms, hold.token)
        return changed

    def remove_hold(self, hold: Hold) -> Lock:
        """End a hold. The caller serves the lock that is returned, or drops it if it has become free."""
        lock = self.locks[hold.key]
        lock.remove(hold)
        del self.holds[hold.token]
        self._forget_expiry(hold)
        self.bytes -= hold_bytes(hold)
        count = self._hold_counts[hold.owner]
        if count == 1:
            del self._hold_counts[hold.owner]
        else:
            self._hold_counts[hold.owner] = count - 1
        return lock

    def remove_lock(self, key: str) -> None:
        """Nobody holds the key any more, and nobody waits for it."""
        del self.locks[key]
        self._keys.remove(key)

    def add_waiter(self, waiter: Waiter) -> None:
        """Put an owner at the end of a line."""
        lock = self.locks[waiter.key]
        queue = lock.queue
        if queue is None:
            queue = lock.queue = {}
        self._set_waiter(queue, waiter)
        self.bytes += waiter_bytes(waiter)
        self._count_lives(waiter, 1)

    def change_waiter(self, waiter: Waiter, listeners: tuple[Listener, ...]) -> None:
        """Put other requests into a place, which stays where it is in its line."""
        self._count_lives(waiter, -1)
        self._deadlines.remove((waiter.deadline_ms, waiter.id))
        changed = waiter.with_listeners(listeners)
        queue = self.locks[waiter.key].queue
        assert queue is not None, "who stands in line has one"
        self._set_waiter(queue, changed)
        self.bytes += waiter_bytes(changed) - waiter_bytes(waiter)
        self._count_lives(changed, 1)

    def remove_waiter(self, waiter: Waiter) -> Lock:
        """Take an owner out of a line. The caller serves the lock that is returned."""
        lock = self.locks[waiter.key]
        queue = lock.queue
        assert queue is not None, "who stands in line has one"
        del queue[waiter.id]
        if not queue:
            lock.queue = None
        del self.waiters[waiter.id]
        self._deadlines.remove((waiter.deadline_ms, waiter.id))
        self.bytes -= waiter_bytes(waiter)
        places = self.waits[waiter.owner]
        del places[waiter.key]
        if not places:
            del self.waits[waiter.owner]
        self._count_lives(waiter, -1)
        return lock

    def _set_waiter(self, queue: dict[str, Waiter], waiter: Waiter) -> None:
        queue[waiter.id] = self.waiters[waiter.id] = waiter
        self.waits.setdefault(waiter.owner, {})[waiter.key] = waiter
        self._deadlines.add((waiter.deadline_ms, waiter.id))
        if waiter.deadline_ms < self.quiet_until_ms:
            self.quiet_until_ms = waiter.deadline_ms

    def _count_lives(self, waiter: Waiter, by: int) -> None:
        for listener in waiter.listeners:
            life = (listener.node, listener.boot)
            count = self.lives.get(life, 0) + by
            if count:
                self.lives[life] = count
            else:
                del self.lives[life]

    # What falls due

    @property
    def is_behind(self) -> bool:
        """Whether something that has ended by the last entry's time may still be in the tables."""
        return self.quiet_until_ms <= self.time_ms

    def first_late(self) -> Waiter | None:
        """The place with the request whose deadline passed first, lowest id first; the caller takes that out."""
        due = self._deadlines.first()
        return None if due is None or due[0] > self.time_ms else self.waiters[due[1]]

    def first_expired(self) -> Hold | None:
        """The hold that ended by time first, lowest token first; the caller removes it."""
        due = self._expiries.first()
        return None if due is None or due[0] > self.time_ms else self.holds[due[1]]

    def has_expired(self, hold: Hold) -> bool:
        """Whether the hold has ended by time, swept or not."""
        return hold.has_ended(self.time_ms)

    def next_due_ms(self) -> int | None:
        """Cluster time of the next expiry or deadline; None where nothing is pending."""
        expiry, deadline = self._expiries.first(), self._deadlines.first()
        if expiry is None or deadline is None:
            due = deadline if expiry is None else expiry
            return None if due is None else due[0]
        return min(expiry[0], deadline[0])

    def _schedule_expiry(self, expires_ms: int, token: int) -> None:
        self._expiries.add((expires_ms, token))
        if expires_ms < self.quiet_until_ms:
            self.quiet_until_ms = expires_ms

    def _forget_expiry(self, hold: Hold) -> None:
        if hold.expires_ms is not None:
            self._expiries.remove((hold.expires_ms, hold.token))

    # Looking

    def seen(self, lock: Lock | None) -> Lock | None:
        """The lock as it is to be shown: without what has ended. None where nobody holds it."""
        if lock is None or not self.is_behind:
            return lock
        shown = Lock()
        for hold in lock.holds():
            if not self.has_expired(hold):
                shown.add(hold)
        if lock.queue:
            places = (waiter.at(self.time_ms) for waiter in lock.queue.values())
            shown.queue = {place.id: place for place in places if place is not None}
        return None if shown.first is None else shown

    def page(self, prefix: str, after: str, count: int) -> list[str]:
        """The first `count` keys that begin with `prefix` and come after `after`, in order."""
        keys = self._keys.begins_with(prefix, after)
        return list(islice(keys, count))

    # Snapshots

    def skip_numbers(self, count: int, floor: int) -> None:
        """Never give the next `count` tokens, nor any below `floor`: after a restore, others may hold them."""
        self._last_token = max(self._last_token + count, floor)

    def snapshot(self) -> Iterator[list[Any]]:
        """Records `["lock", version, last token]`, then `["hold", ...]` by token, then `["waiter", ...]` in order
        of arrival; the fields of the last two are those of `Hold` and `Waiter`, with its listeners as lists. Where
        something among them has ended and was not swept yet, the cluster time by which it has stands at the end of
        the first."""
        head: list[Any] = ["lock", SNAPSHOT_VERSION, self._last_token]
        due_ms = self.next_due_ms()
        if due_ms is not None and due_ms <= self.time_ms:
            head.append(self.time_ms)
        return _records(head, list(self.holds.values()), list(self.waiters.values()))

    def restore(self, records: Iterable[list[Any]]) -> None:
        """Replace everything by what `snapshot` gave.

        Raises: ValueError for a record that no version up to this one wrote.
        """
        tables = (self.holds, self.waiters, self.locks, self.waits, self.lives, self._hold_counts)
        for table in (*tables, self._keys, self._expiries, self._deadlines):
            table.clear()
        self._last_token = self.time_ms = self.bytes = 0
        self.quiet_until_ms = NEVER_MS
        for table, *fields in records:
            if table == "hold":
                self._index_hold(_hold_of(fields))
            elif table == "waiter":
                self._restore_waiter(_waiter_of(fields))
            elif table == "lock" and 1 <= fields[0] <= SNAPSHOT_VERSION:
                self._last_token = fields[1]
                self.time_ms = fields[2] if len(fields) > 2 else 0
            else:
                raise ValueError(f"not a record of lock snapshot version {SNAPSHOT_VERSION}: {table!r}")

    def _restore_waiter(self, waiter: Waiter) -> None:
        """In version 1 an owner had a place for each of its requests: they share its first from now on."""
        place = self.place_of(waiter.key, waiter.owner)
        if place is None:
            self.add_waiter(waiter)
            return
        if waiter.ttl_ms is not None:
            place = place._replace(ttl_ms=waiter.ttl_ms)
        self.change_waiter(place, (*place.listeners, *waiter.listeners))


def _records(head: list[Any], holds: list[Hold], waiters: list[Waiter]) -> Iterator[list[Any]]:
    yield head
    for hold in holds:
        yield ["hold", *hold]
    for waiter in waiters:
        yield ["waiter", *waiter]


def _hold_of(fields: list[Any]) -> Hold:
    """What `_records` wrote. In version 1 the hold went with the waiter that it was granted to."""
    hold = Hold(*fields)
    unheard = tuple(hold.unheard) or ((hold.waiter,) if hold.waiter else ())
    return hold._replace(node=intern(hold.node), unheard=unheard)


def _waiter_of(fields: list[Any]) -> Waiter:
    """What `_records` wrote. In version 1 a waiter was its own only request."""
    waiter = Waiter(*fields)
    only = [waiter.id, waiter.exclusive, waiter.deadline_ms, waiter.node, waiter.boot]
    listeners: Iterable[Iterable[Any]] = waiter.listeners or [only]
    return waiter._replace(
        node=intern(waiter.node),
        boot=intern(waiter.boot),
        listeners=tuple(Listener(id, x, due, intern(node), intern(boot)) for id, x, due, node, boot in listeners),
    )
