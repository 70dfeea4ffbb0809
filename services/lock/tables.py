"""The lock machine's memory: two replicated tables, one counter, and the indexes over them.

Replicated are the holds by token, the waiters by id and the last token given; a snapshot is a shallow copy of
these. Everything else is rebuilt from them, and every method here leaves all of it in step. Nothing in this
module decides who may have what.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from sys import intern

from common.sorted_set import SortedSet
from services.lock.records import Hold, Lock, Waiter

#: Layout of the snapshot records.
SNAPSHOT_VERSION = 1

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
        "holds",
        "locks",
        "quiet_until_ms",
        "time_ms",
        "waiters",
        "waits",
    )

    def __init__(self) -> None:
        #: Every hold by its token, lowest first. Replicated.
        self.holds: dict[int, Hold] = {}
        #: Every request in line by its id, first come first. Replicated.
        self.waiters: dict[str, Waiter] = {}
        #: The highest token ever given. Replicated.
        self._last_token = 0
        #: Cluster time of the last entry; 0 after a restore by which nothing has ended. Replicated.
        self.time_ms = 0
        #: The held keys, and only those, between two steps of the machine. The last hold of one may have ended, as
        #: long as no entry has swept it.
        self.locks: dict[str, Lock] = {}
        #: The keys of `locks` in order.
        self._keys: SortedSet[str] = SortedSet()
        #: Requests in line by owner, then by id; only owners that wait.
        self.waits: dict[str, dict[str, Waiter]] = {}
        #: How many holds an owner has; only owners with any.
        self._hold_counts: dict[str, int] = {}
        #: `(expires_ms, token)` of every hold that expires, `(deadline_ms, id)` of every waiter.
        self._expiries: SortedSet[tuple[int, int]] = SortedSet()
        self._deadlines: SortedSet[tuple[int, str]] = SortedSet()
        #: Nothing is due before this cluster time. A lower bound: cheaper than `next_due_ms`.
        self.quiet_until_ms = NEVER_MS

    def is_engaged(self, owner: str) -> bool:
        """Whether the owner holds anything or stands in any line, so that somebody might wait for it."""
        return owner in self._hold_counts or owner in self.waits

    def add_hold(
        self, key: str, owner: str, exclusive: bool, node: str, expires_ms: int | None, waiter: str
    ) -> Hold:
        """Record a grant under the next token."""
        token = self._last_token = self._last_token + 1
        hold = Hold(token, key, owner, exclusive, intern(node), expires_ms, waiter)
        self._index_hold(hold)
        return hold

    def _index_hold(self, hold: Hold) -> None:
        self.holds[hold.token] = hold
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

    def change_hold(self, hold: Hold, expires_ms: int | None, waiter: str) -> Hold:
        """Put another expiry and waiter id into the record of a grant; returns the new record."""
        changed = hold._replace(expires_ms=expires_ms, waiter=waiter)
        self.holds[hold.token] = changed
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
        """Put a request at the end of its line."""
        lock = self.locks[waiter.key]
        if lock.queue is None:
            lock.queue = {}
        lock.queue[waiter.id] = waiter
        self.waiters[waiter.id] = waiter
        self.waits.setdefault(waiter.owner, {})[waiter.id] = waiter
        self._deadlines.add((waiter.deadline_ms, waiter.id))
        if waiter.deadline_ms < self.quiet_until_ms:
            self.quiet_until_ms = waiter.deadline_ms

    def remove_waiter(self, waiter: Waiter) -> Lock:
        """Take a request out of its line. The caller serves the lock that is returned."""
        lock = self.locks[waiter.key]
        del lock.queue[waiter.id]
        if not lock.queue:
            lock.queue = None
        del self.waiters[waiter.id]
        self._deadlines.remove((waiter.deadline_ms, waiter.id))
        waits = self.waits[waiter.owner]
        del waits[waiter.id]
        if not waits:
            del self.waits[waiter.owner]
        return lock

    # What falls due

    @property
    def is_behind(self) -> bool:
        """Whether something that has ended by the last entry's time may still be in the tables."""
        return self.quiet_until_ms <= self.time_ms

    def first_late(self) -> Waiter | None:
        """The waiter whose deadline passed first, lowest id first; the caller removes it."""
        due = self._deadlines.first()
        return None if due is None or due[0] > self.time_ms else self.waiters[due[1]]

    def first_expired(self) -> Hold | None:
        """The hold that ended by time first, lowest token first; the caller removes it."""
        due = self._expiries.first()
        return None if due is None or due[0] > self.time_ms else self.holds[due[1]]

    def has_expired(self, hold: Hold) -> bool:
        """Whether the hold has ended by time, swept or not."""
        return hold.expires_ms is not None and hold.expires_ms <= self.time_ms

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
            shown.queue = {id: waiter for id, waiter in lock.queue.items() if waiter.deadline_ms > self.time_ms}
        return None if shown.first is None else shown

    def page(self, prefix: str, after: str, count: int) -> list[str]:
        """The first `count` keys that begin with `prefix` and come after `after`, in order."""
        keys = self._keys.begins_with(prefix, after)
        return list(islice(keys, count))

    # Snapshots

    def skip_numbers(self, count: int) -> None:
        """Never give the next `count` tokens: after a restore, others may hold them already."""
        self._last_token += count

    def snapshot(self) -> Iterator[list]:
        """Records `["lock", version, last token]`, then `["hold", ...]` by token, then `["waiter", ...]` in order of
        arrival; the fields of the last two are those of `Hold` and `Waiter`. Where something among them has ended and
        was not swept yet, the cluster time by which it has stands at the end of the first."""
        head = ["lock", SNAPSHOT_VERSION, self._last_token]
        due_ms = self.next_due_ms()
        if due_ms is not None and due_ms <= self.time_ms:
            head.append(self.time_ms)
        return _records(head, list(self.holds.values()), list(self.waiters.values()))

    def restore(self, records: Iterable[list]) -> None:
        """Replace everything by what `snapshot` gave.

        Raises: ValueError for a record that no version up to this one wrote.
        """
        tables = (self.holds, self.waiters, self.locks, self.waits, self._hold_counts)
        for table in (*tables, self._keys, self._expiries, self._deadlines):
            table.clear()
        self._last_token = self.time_ms = 0
        self.quiet_until_ms = NEVER_MS
        for table, *fields in records:
            if table == "hold":
                hold = Hold(*fields)
                self._index_hold(hold._replace(node=intern(hold.node)))
            elif table == "waiter":
                self.add_waiter(Waiter(*fields))
            elif table == "lock" and fields[0] == SNAPSHOT_VERSION:
                self._last_token = fields[1]
                self.time_ms = fields[2] if len(fields) > 2 else 0
            else:
                raise ValueError(f"not a record of lock snapshot version {SNAPSHOT_VERSION}: {table!r}")


def _records(head: list, holds: list[Hold], waiters: list[Waiter]) -> Iterator[list]:
    yield head
    for hold in holds:
        yield ["hold", *hold]
    for waiter in waiters:
        yield ["waiter", *waiter]
