"""The lock machine's memory: two replicated tables, one counter, and the indexes over them.

Replicated are the holds by token, the waiters by id and the last token given; a snapshot is a shallow copy of
these. Everything else is rebuilt from them, and every method here leaves all of it in step. Nothing in this
module decides who may have what.
"""

from collections.abc import Iterable, Iterator
from sys import intern

from services.lock.deadlines import Deadlines
from services.lock.records import Hold, Listener, Lock, Waiter

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
        "_last_token",
        "holds",
        "lives",
        "locks",
        "quiet_until_ms",
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
        #: The held keys, and only those, between two steps of the machine.
        self.locks: dict[str, Lock] = {}
        #: Places in line by owner, then by key; only owners that wait.
        self.waits: dict[str, dict[str, Waiter]] = {}
        #: How many requests wait at which life of which node, by `(node, boot)`; only lives with any.
        self.lives: dict[tuple[str, str], int] = {}
        #: How many holds an owner has; only owners with any.
        self._hold_counts: dict[str, int] = {}
        self._expiries: Deadlines[int] = Deadlines(self.holds, self._expires_ms)
        self._deadlines: Deadlines[str] = Deadlines(self.waiters, self._deadline_ms, repeats=True)
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
        lock = self.locks.get(hold.key)
        if lock is None:
            lock = self.locks[hold.key] = Lock()
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
        self.locks[hold.key].replace(changed)
        if expires_ms is not None and expires_ms != hold.expires_ms:
            self._schedule_expiry(expires_ms, hold.token)
        return changed

    def remove_hold(self, hold: Hold) -> Lock:
        """End a hold. The caller serves the lock that is returned, or drops it if it has become free."""
        lock = self.locks[hold.key]
        lock.remove(hold)
        del self.holds[hold.token]
        count = self._hold_counts[hold.owner]
        if count == 1:
            del self._hold_counts[hold.owner]
        else:
            self._hold_counts[hold.owner] = count - 1
        return lock

    def add_waiter(self, waiter: Waiter) -> None:
        """Put an owner at the end of a line."""
        lock = self.locks[waiter.key]
        if lock.queue is None:
            lock.queue = {}
        self._set_waiter(lock, waiter)
        self._count_lives(waiter, 1)

    def change_waiter(self, waiter: Waiter, listeners: tuple[Listener, ...]) -> Waiter:
        """Put other requests into a place, which stays where it is in its line; returns the new record."""
        self._count_lives(waiter, -1)
        changed = waiter.with_listeners(listeners)
        self._set_waiter(self.locks[waiter.key], changed)
        self._count_lives(changed, 1)
        return changed

    def remove_waiter(self, waiter: Waiter) -> Lock:
        """Take an owner out of a line. The caller serves the lock that is returned."""
        lock = self.locks[waiter.key]
        del lock.queue[waiter.id]
        if not lock.queue:
            lock.queue = None
        del self.waiters[waiter.id]
        places = self.waits[waiter.owner]
        del places[waiter.key]
        if not places:
            del self.waits[waiter.owner]
        self._count_lives(waiter, -1)
        return lock

    def _set_waiter(self, lock: Lock, waiter: Waiter) -> None:
        lock.queue[waiter.id] = self.waiters[waiter.id] = waiter
        self.waits.setdefault(waiter.owner, {})[waiter.key] = waiter
        self._deadlines.schedule(waiter.deadline_ms, waiter.id)
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

    def pop_late(self, now_ms: int) -> list[Waiter]:
        """Places with requests whose deadline has passed; the caller takes these out."""
        return [self.waiters[id] for id in self._deadlines.pop_due(now_ms)]

    def pop_expired(self, now_ms: int) -> list[Hold]:
        """Holds that have ended by time; the caller removes them."""
        return [self.holds[token] for token in self._expiries.pop_due(now_ms)]

    def next_due_ms(self) -> int | None:
        """Cluster time of the next expiry or deadline; None where nothing is pending."""
        expiry_ms = self._expiries.next_due_ms()
        deadline_ms = self._deadlines.next_due_ms()
        if expiry_ms is None or deadline_ms is None:
            return deadline_ms if expiry_ms is None else expiry_ms
        return min(expiry_ms, deadline_ms)

    def _schedule_expiry(self, expires_ms: int, token: int) -> None:
        self._expiries.schedule(expires_ms, token)
        if expires_ms < self.quiet_until_ms:
            self.quiet_until_ms = expires_ms

    def _expires_ms(self, token: int) -> int | None:
        hold = self.holds.get(token)
        return None if hold is None else hold.expires_ms

    def _deadline_ms(self, id: str) -> int | None:
        waiter = self.waiters.get(id)
        return None if waiter is None else waiter.deadline_ms

    # Snapshots

    def skip_numbers(self, count: int, floor: int) -> None:
        """Never give the next `count` tokens, nor any below `floor`: after a restore, others may hold them."""
        self._last_token = max(self._last_token + count, floor)

    def snapshot(self) -> Iterator[list]:
        """Records `["lock", version, last token]`, then `["hold", ...]` by token, then `["waiter", ...]` in order
        of arrival; the fields of the last two are those of `Hold` and `Waiter`, with its listeners as lists."""
        head = ["lock", SNAPSHOT_VERSION, self._last_token]
        return _records(head, list(self.holds.values()), list(self.waiters.values()))

    def restore(self, records: Iterable[list]) -> None:
        """Replace everything by what `snapshot` gave.

        Raises: ValueError for a record that no version up to this one wrote.
        """
        for table in (self.holds, self.waiters, self.locks, self.waits, self.lives, self._hold_counts):
            table.clear()
        self._expiries.clear()
        self._deadlines.clear()
        self._last_token = 0
        self.quiet_until_ms = NEVER_MS
        for table, *fields in records:
            if table == "hold":
                self._index_hold(_hold_of(fields))
            elif table == "waiter":
                self._restore_waiter(_waiter_of(fields))
            elif table == "lock" and 1 <= fields[0] <= SNAPSHOT_VERSION:
                self._last_token = fields[1]
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


def _records(head: list, holds: list[Hold], waiters: list[Waiter]) -> Iterator[list]:
    yield head
    for hold in holds:
        yield ["hold", *hold]
    for waiter in waiters:
        yield ["waiter", *waiter]


def _hold_of(fields: list) -> Hold:
    """What `_records` wrote. In version 1 the hold went with the waiter that it was granted to."""
    hold = Hold(*fields)
    unheard = tuple(hold.unheard) or ((hold.waiter,) if hold.waiter else ())
    return hold._replace(node=intern(hold.node), unheard=unheard)


def _waiter_of(fields: list) -> Waiter:
    """What `_records` wrote. In version 1 a waiter was its own only request."""
    waiter = Waiter(*fields)
    listeners = waiter.listeners or [[waiter.id, waiter.exclusive, waiter.deadline_ms, waiter.node, waiter.boot]]
    return waiter._replace(
        node=intern(waiter.node),
        boot=intern(waiter.boot),
        listeners=tuple(Listener(id, x, due, intern(node), intern(boot)) for id, x, due, node, boot in listeners),
    )
