"""How the lines of the locks move: what ends by time, who is granted what, and who is told.

The rule: what has ended counts for nobody, swept or not. One entry sweeps a bounded number; a command looks at a key
through `_lock`, `_hold_of` and `_place`, which take out of its way what has ended and was not swept.
"""

from typing import NamedTuple

from raft.state_machine import ApplyContext
from services.lock.replicated import queries
from services.lock.replicated.commands import Acquire
from services.lock.replicated.queries import Answer
from services.lock.replicated.records import Hold, Listener, Lock, Waiter
from services.lock.replicated.tables import NEVER_MS, LockTables

#: Holds and requests whose end by time, or whose grant by it, one entry sees to, plus the line of the last of them.
SWEPT_PER_ENTRY_MAX = 1000
#: The same of an entry with a command: more than it can leave behind, and little enough that all who wait for their
#: answers behind the end of a million holds get them in time.
SWEPT_PER_COMMAND_MAX = 32

#: What listeners hear of requests that may wait: a `Told` for each that waited or was granted a new hold.
TOLD_TOPIC = "lock.told"

#: A place as it was, and the requests that left it because their time is over.
Late = tuple[Waiter, tuple[Listener, ...]]


class Told(NamedTuple):
    """What a request that may wait is answered."""

    #: Its id.
    waiter: str
    key: str
    owner: str
    answer: Answer


class LockLines:
    """The tables, and the steps that commands share."""

    def __init__(self) -> None:
        self._tables = LockTables()

    def advance(self, context: ApplyContext, command: object = None) -> None:
        """End what fell due by `context.time_ms`, as much as an entry may that has a command or none, and serve the
        lines that this sets moving. What is left is due at once."""
        self._tables.time_ms = context.time_ms
        if self._tables.is_behind:
            self._sweep(context, SWEPT_PER_ENTRY_MAX if command is None else SWEPT_PER_COMMAND_MAX)

    def _sweep(self, context: ApplyContext, swept_max: int) -> None:
        tables = self._tables
        late: list[Late] = []
        ended = 0
        # Waiters go first: one whose deadline passed before this entry is not granted by it, even if the hold
        # that it waited for ended earlier still.
        while ended + len(context.events) < swept_max:
            gone = tables.first_late() or tables.first_expired()
            if gone is None:
                break
            ended += 1
            if isinstance(gone, Waiter):
                late.append(self._end_late(context, gone))
            else:
                tables.remove_hold(gone)
            late += self._move_line(context, gone.key, tables.locks[gone.key])
        for place, requests in sorted(late, key=lambda each: (each[0].deadline_ms, each[0].id)):
            self._tell_late(context, place, requests)
        context.spend(ended)
        next_ms = tables.next_due_ms()
        tables.quiet_until_ms = NEVER_MS if next_ms is None else next_ms

    # What a command meets

    def _lock(self, context: ApplyContext, key: str) -> Lock | None:
        """The lock of `key`; what stands first in it, as its holder and in its line, has not ended."""
        lock = self._tables.locks.get(key)
        if lock is None or not self._tables.is_behind:
            return lock
        self._serve(context, key, lock)
        return self._tables.locks.get(key)

    def _hold_of(self, context: ApplyContext, key: str, owner: str, token: int | None = None) -> Hold | None:
        lock = self._lock(context, key)
        hold = None if lock is None else self._hold_in(lock, owner)
        return None if hold is None or token not in (None, hold.token) else hold

    def _hold_in(self, lock: Lock, owner: str) -> Hold | None:
        """The hold of `owner`, unless it has ended: then it goes now. As a lock of `_lock` has a holder besides,
        nobody can be waiting for that."""
        hold = lock.hold_of(owner)
        if hold is None or not self._tables.has_expired(hold):
            return hold
        self._tables.remove_hold(hold)
        return None

    def _place(self, context: ApplyContext, key: str, owner: str) -> Waiter | None:
        """Where the owner stands in the line of the key; requests in it whose time is over go now."""
        place = self._tables.place_of(key, owner)
        if place is None or place.deadline_ms > context.time_ms:
            return place
        place, requests = self._end_late(context, place)
        self._serve(context, key, self._tables.locks[key])
        self._tell_late(context, place, requests)
        return self._tables.place_of(key, owner)

    def _add_hold(
        self, context: ApplyContext, asked: Acquire | Waiter, waiter: str, unheard: tuple[str, ...]
    ) -> Hold:
        ttl_ms = asked.ttl_ms
        expires_ms = None if ttl_ms is None else context.time_ms + ttl_ms
        return self._tables.add_hold(
            asked.key, asked.owner, asked.exclusive, asked.node, expires_ms, waiter, unheard
        )

    def _heard_of(
        self, context: ApplyContext, hold: Hold, ttl_ms: int | None, unheard: tuple[str, ...] = ()
    ) -> Hold:
        """The owner asks about its hold: the ttl, if given, starts anew. It knows of the hold from now on, whatever
        became of the requests that won it: a late `CancelWait` of these must not take it away. With `unheard`, only
        these requests know of it, and all of them can still be withdrawn."""
        if ttl_ms is None and not hold.unheard:
            return hold
        expires_ms = hold.expires_ms if ttl_ms is None else context.time_ms + ttl_ms
        return self._tables.change_hold(hold, expires_ms=expires_ms, unheard=unheard)

    def _leave(self, waiter: Waiter, gone: tuple[Listener, ...]) -> Lock:
        """These requests of a place end, and the place with the last. The caller serves the lock that is returned."""
        left = tuple(listener for listener in waiter.listeners if listener not in gone)
        if not left:
            return self._tables.remove_waiter(waiter)
        self._tables.change_waiter(waiter, left)
        return self._tables.locks[waiter.key]

    def _end_late(self, context: ApplyContext, place: Waiter) -> Late:
        """Take the requests out of a place whose time is over; they are to be told."""
        gone = tuple(each for each in place.listeners if each.deadline_ms <= context.time_ms)
        self._leave(place, gone)
        return place, gone

    def _serve(self, context: ApplyContext, key: str, lock: Lock) -> None:
        """Move the line, and tell those who are met in it after their time."""
        for place, requests in self._move_line(context, key, lock):
            self._tell_late(context, place, requests)

    def _move_line(self, context: ApplyContext, key: str, lock: Lock) -> list[Late]:
        """Grant to the head of the line for as long as it conflicts with nobody; forget the lock if it is free. What
        has ended and stands first goes on the way; returns the requests among that."""
        tables = self._tables
        while lock.first is not None and tables.has_expired(lock.first):
            tables.remove_hold(lock.first)
            context.spend(1)
        late: list[Late] = []
        while lock.queue:
            place = next(iter(lock.queue.values()))
            if place.deadline_ms <= context.time_ms:
                late.append(self._end_late(context, place))
                continue
            if lock.first is not None and (place.exclusive or lock.first.exclusive):
                return late
            self._grant(context, place)
        if lock.first is None:
            tables.remove_lock(key)
        return late

    def _grant(self, context: ApplyContext, waiter: Waiter) -> None:
        self._tables.remove_waiter(waiter)
        unheard = tuple(listener.id for listener in waiter.listeners)
        hold = self._add_hold(context, waiter, waiter.id, unheard)
        self._tell(context, waiter, waiter.listeners, granted(hold))

    def _tell(
        self, context: ApplyContext, place: Waiter, listeners: tuple[Listener, ...], answer: Answer
    ) -> None:
        """Announce to these requests of a place what became of them; if these were all, to whoever keeps answers."""
        for listener in listeners:
            context.events.append((TOLD_TOPIC, Told(listener.id, place.key, place.owner, answer)))
        if len(listeners) == len(place.listeners):
            context.decided.append((place.id, answer))

    def _tell_late(self, context: ApplyContext, place: Waiter, requests: tuple[Listener, ...]) -> None:
        self._tell(context, place, requests, self.refusal("timeout", place.key))

    def refusal(self, reason: str, key: str) -> Answer:
        """Why an acquire was not granted; see `queries.refusal`."""
        lock = self._tables.locks.get(key)
        if lock is not None and (first := lock.first) is not None and self._tables.has_expired(first):
            lock = self._seen(key)
        return queries.refusal(reason, lock, self._tables.time_ms)

    def _seen(self, key: str) -> Lock | None:
        return self._tables.seen(self._tables.locks.get(key))


def granted(hold: Hold) -> Answer:
    return {"ok": True, "token": hold.token, "mode": hold.mode, "expires_ms": hold.expires_ms}
