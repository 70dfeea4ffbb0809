"""The lock machine: who gets which key, who waits for it, and what the next one in line is told.

A pure function of the log over `LockTables`. The rules, each with a test of its own:

- A request waits behind every earlier one that it conflicts with. A key with a line therefore admits nobody
  past the line, readers included.
- An owner has one place in a line. If it asks again while it waits, the new request joins its place, and all requests
  in the place are answered together. A request that is withdrawn leaves the place, and takes back the hold that the
  place was granted if it was the last that could know of it: what was answered to somebody stands.
- A holder that asks again for what its hold covers is answered with the same token, and its ttl starts anew if
  one is given. An exclusive hold covers both modes; a shared hold does not cover an exclusive request: such a
  request conflicts with the owner's own hold, so it is `locked`, or a `deadlock` where it would wait.
- Every grant has a token of its own, above all tokens before it, shared grants of one moment included: a token
  names one hold and nothing else. A log index would not do: one entry may grant a key, take it and grant it again.
- Time is cluster time. A hold has ended from `expires_ms` on, and a waiter is not granted from `deadline_ms` on,
  whichever of the two the same entry brought to light first.
- A ttl runs from the grant, not from the request.
- What an entry does is bounded. Where more has ended than one entry may sweep, later ones go on, and until then it
  counts for nobody: a command moves the line of its key first (`_lock`), as if the sweep had come by.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from sys import intern
from typing import Any

from raft.state_machine import ApplyContext
from services.lock.replicated import queries
from services.lock.replicated.commands import (
    Acquire,
    CancelWait,
    CancelWaits,
    DropWaiters,
    ForceRelease,
    Release,
    Renew,
)
from services.lock.replicated.graph import STEPS_MAX, GraphTooLarge, Search, shown
from services.lock.replicated.limits import LIMITS
from services.lock.replicated.lines import TOLD_TOPIC, LockLines, Told, granted
from services.lock.replicated.queries import Answer
from services.lock.replicated.records import Hold, Listener, Lock, Waiter
from services.replicated.idempotency import CANCELLED
from services.replicated.limits import Limits

#: Requests that one `DropWaiters` ends.
DROPPED_PER_ENTRY_MAX = 1_000


@dataclass(frozen=True, slots=True)
class LockStatistics:
    """How much there is, for the gauges."""

    locks_held: int
    holds: int
    waiters: int


class LockMachine(LockLines):
    """The inner machine of the `lock` group; see the module's docstring for its rules."""

    COMMANDS: tuple[type, ...] = (Acquire, Release, Renew, ForceRelease, CancelWait, CancelWaits, DropWaiters)

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(LIMITS)
        self._limit = self.limits.in_force
        self._handlers: dict[type, Callable[[ApplyContext, Any], Answer]] = {
            Acquire: self._acquire,
            Release: self._release,
            Renew: self._renew,
            ForceRelease: self._force_release,
            CancelWait: self._cancel_wait,
            CancelWaits: self._cancel_waits,
            DropWaiters: self._drop_waiters,
        }

    def apply(self, context: ApplyContext, command: Any) -> Answer:
        """Carry out one command and return its answer.

        Expiry times in answers are cluster time (`expires_ms`); the route turns them into seconds from now.
        An acquire that has to wait is answered `{"waiting": True}` and decided later by an event. It has `waiter`
        where it waits in the place of an earlier request, whose id that is, or was granted what that one was.
        """
        self.advance(context, command)
        return self._handlers[type(command)](context, command)

    def kept(self, answer: Answer) -> Answer:
        """All but to whose place it is tied."""
        return {name: value for name, value in answer.items() if name != "waiter"}

    def repeat(self, context: ApplyContext, command: Any, kept: Answer) -> Answer | None:
        """What became of an earlier request, told to one who asks again; see
        `services.replicated.machine.ServiceMachine`."""
        if kept.get("waiting"):
            place = self._place(context, command.key, command.owner)
            # One that is shared by now, because its exclusive requests have gone, must not be made exclusive again:
            # who stands behind it may not wait for it, and nobody looked for a cycle.
            if place is None or (command.exclusive and not place.exclusive):
                return None
            return self._join(context, command, place)
        if isinstance(command, Acquire) and kept.get("reason") in ("locked", "timeout"):
            return self.refusal(kept["reason"], command.key)
        if not isinstance(command, Acquire | Renew) or not kept["ok"]:
            return kept
        hold = self._tables.holds.get(kept.get("token", 0))
        if hold is None or self._tables.has_expired(hold):
            return {**_not_held(), "token": kept.get("token", 0)}
        if isinstance(command, Acquire) and command.exclusive and not hold.exclusive:
            # Granted to the shared requests that were left in its place: not what this one asks for.
            return None
        if isinstance(command, Acquire) and hold.unheard and command.waiter not in hold.unheard:
            unheard = self._unheard_with(hold, command.waiter)
            hold = self._tables.change_hold(hold, expires_ms=hold.expires_ms, unheard=unheard)
        return granted(hold)

    def next_due_ms(self) -> int | None:
        """Cluster time of the next expiry or deadline; None where nothing is pending."""
        return self._tables.next_due_ms()

    def snapshot(self) -> Iterator[list[Any]]:
        """See `LockTables.snapshot`."""
        return self._tables.snapshot()

    def restore(self, records: Iterable[list[Any]]) -> None:
        """See `LockTables.restore`."""
        self._tables.restore(records)

    def skip_numbers(self, count: int, floor: int = 0) -> None:
        """See `LockTables.skip_numbers`."""
        self._tables.skip_numbers(count, floor)

    # Commands

    def _acquire(self, context: ApplyContext, command: Acquire) -> Answer:
        tables = self._tables
        lock = self._lock(context, command.key)
        if lock is not None:
            exclusive = command.exclusive
            hold = self._hold_in(lock, command.owner)
            if hold is not None and (hold.exclusive or not exclusive):
                if command.waiter and command.waiter in hold.unheard:
                    # The very request that won it, carried out twice.
                    return granted(hold)
                return self._ask_again(context, hold, command)
            if exclusive or (first := lock.first) is None or first.exclusive or lock.queue:
                if command.wait_ms <= 0:
                    return queries.refusal("locked", lock, context.time_ms, asking=hold)
                return self._wait(context, command, lock)
            if lock.holder_count >= self._limit["holders_per_key_max"]:
                return self._full("quota", "holders_per_key_max")
        if len(tables.holds) >= self._limit["holds_max"]:
            return self._full("quota", "holds_max")
        if tables.bytes >= self._limit["bytes_max"]:
            return self._full("quota", "bytes_max")
        waiter = command.waiter
        answer = granted(self._add_hold(context, command, waiter, (waiter,) if waiter else ()))
        if waiter:
            # Its node hears of it beside the answer: there may be nobody to be answered by now.
            context.events.append((TOLD_TOPIC, Told(waiter, command.key, command.owner, answer)))
        return answer

    def _wait(self, context: ApplyContext, command: Acquire, lock: Lock) -> Answer:
        tables = self._tables
        place = self._place(context, command.key, command.owner)
        if place is not None and (place.exclusive or not command.exclusive):
            return self._join(context, command, place)
        if lock.queue_length >= self._limit["waiters_per_key_max"]:
            return self._full("quota", "waiters_per_key_max")
        if len(tables.waiters) >= self._limit["waiters_max"]:
            return self._full("overloaded", "waiters_max")
        if tables.bytes >= self._limit["bytes_max"]:
            return self._full("quota", "bytes_max")
        listener = _listener(context, command)
        waiter = Waiter(
            command.waiter,
            command.key,
            command.owner,
            command.exclusive,
            command.ttl_ms,
            listener.deadline_ms,
            listener.node,
            listener.boot,
            context.index,
            (listener,),
        )
        if tables.is_engaged(waiter.owner):
            try:
                cycle = Search(tables.locks, tables.waits, context.time_ms).find_cycle(waiter)
            except GraphTooLarge:
                return _full("overloaded", "wait_graph_max", STEPS_MAX)
            if cycle is not None:
                return {"ok": False, "reason": "deadlock", "cycle": shown(cycle), "cycle_length": len(cycle)}
        tables.add_waiter(waiter)
        return {"waiting": True}

    def _join(self, context: ApplyContext, command: Acquire, place: Waiter) -> Answer:
        """Another request of the owner's waits in its place from now on, to the end of its own time."""
        others = tuple(listener for listener in place.listeners if listener.id != command.waiter)
        if len(others) >= self._limit["listeners_max"]:
            return self._full("overloaded", "listeners_max")
        if self._tables.bytes >= self._limit["bytes_max"] and len(others) == len(place.listeners):
            return self._full("quota", "bytes_max")
        if command.ttl_ms is not None:
            place = place._replace(ttl_ms=command.ttl_ms)
        self._tables.change_waiter(place, (*others, _listener(context, command)))
        return {"waiting": True} if place.id == command.waiter else {"waiting": True, "waiter": place.id}

    def _release(self, context: ApplyContext, command: Release) -> Answer:
        hold = self._hold_of(context, command.key, command.owner, command.token)
        if hold is None:
            return _not_held()
        self._serve(context, command.key, self._tables.remove_hold(hold))
        return {"ok": True}

    def _renew(self, context: ApplyContext, command: Renew) -> Answer:
        hold = self._hold_of(context, command.key, command.owner, command.token)
        if hold is None:
            return _not_held()
        return granted(self._heard_of(context, hold, command.ttl_ms))

    def _force_release(self, context: ApplyContext, command: ForceRelease) -> Answer:
        lock = self._lock(context, command.key)
        if lock is None:
            return _not_held()
        taken = [
            hold
            for hold in lock.holds()
            if command.owner in (None, hold.owner) and not self._tables.has_expired(hold)
        ]
        if not taken:
            return _not_held()
        context.spend(len(taken))
        for hold in taken:
            self._tables.remove_hold(hold)
        self._serve(context, command.key, lock)
        return {
            "ok": True,
            "released": [queries.holder(hold) for hold in taken[: queries.HOLDERS_SHOWN_MAX]],
            "released_count": len(taken),
        }

    def _cancel_wait(self, context: ApplyContext, command: CancelWait) -> Answer:
        return {"ok": True, "cancelled": self._cancel(context, command.key, command.owner, command.waiter)}

    def _cancel_waits(self, context: ApplyContext, command: CancelWaits) -> Answer:
        cancelled = [self._cancel(context, key, owner, waiter) for key, owner, waiter in command.waits]
        return {"ok": True, "cancelled": len(cancelled) - cancelled.count(None)}

    def _cancel(self, context: ApplyContext, key: str, owner: str, waiter: str) -> str | None:
        """Withdraw one request; says what ended with it: "waiting" or "granted", None where nothing did."""
        self._lock(context, key)
        place = self._place(context, key, owner)
        if place is not None:
            gone = tuple(each for each in place.listeners if each.id == waiter)
            if gone:
                self._serve(context, key, self._leave(place, gone))
                self._tell(context, place, gone, _cancelled())
                return "waiting" if len(place.listeners) == 1 else None
        hold = self._hold_of(context, key, owner)
        if hold is None or waiter not in hold.unheard:
            return None
        unheard = tuple(id for id in hold.unheard if id != waiter)
        if unheard:
            self._tables.change_hold(hold, expires_ms=hold.expires_ms, unheard=unheard)
            return None
        self._serve(context, key, self._tables.remove_hold(hold))
        context.decided.append((hold.waiter, _cancelled()))
        return "granted"

    def _drop_waiters(self, context: ApplyContext, command: DropWaiters) -> Answer:
        node, boot_kept = command.node, command.boot_kept
        gone_lives = [life for life in self._tables.lives if life[0] == node and life[1] != boot_kept]
        dropped: list[tuple[Waiter, tuple[Listener, ...]]] = []
        count = 0
        for waiter in self._tables.waiters.values() if gone_lives else ():
            listeners = waiter.listeners
            # All places may have to be passed by: nothing is made for those that stay.
            if len(listeners) == 1 and listeners[0].node != node:
                continue
            gone = tuple(each for each in listeners if each.node == node and each.boot != boot_kept)
            if gone:
                dropped.append((waiter, gone))
                count += len(gone)
                if count >= DROPPED_PER_ENTRY_MAX:
                    break
        moved = {waiter.key: self._leave(waiter, gone) for waiter, gone in dropped}
        for key, lock in moved.items():
            self._serve(context, key, lock)
        for waiter, gone in dropped:
            self._tell(context, waiter, gone, _cancelled())
        more = any(life in self._tables.lives for life in gone_lives)
        return {"ok": True, "dropped": count, "more": more}

    def _full(self, reason: str, limit: str) -> Answer:
        return _full(reason, limit, self._limit[limit])

    def _ask_again(self, context: ApplyContext, hold: Hold, command: Acquire) -> Answer:
        """Another request for what the owner's hold covers. As long as all that know of the hold can be withdrawn, it
        can as well; its answer then goes with that of the first (`waiter`)."""
        unheard = self._unheard_with(hold, command.waiter) if command.waiter and hold.unheard else ()
        hold = self._heard_of(context, hold, command.ttl_ms, unheard)
        return {**granted(hold), "waiter": hold.waiter} if hold.waiter else granted(hold)

    def _unheard_with(self, hold: Hold, waiter: str) -> tuple[str, ...]:
        """Who asks again may be told of the hold, so it stays where only the first one leaves."""
        return (*hold.unheard, waiter) if len(hold.unheard) < self._limit["listeners_max"] else ()

    # Questions; none of them changes anything

    def statistics(self) -> LockStatistics:
        tables = self._tables
        return LockStatistics(
            locks_held=len(tables.locks), holds=len(tables.holds), waiters=len(tables.waiters)
        )

    def used(self) -> dict[str, int]:
        """How much of the limits is taken."""
        tables = self._tables
        return {"holds_max": len(tables.holds), "waiters_max": len(tables.waiters), "bytes_max": tables.bytes}

    def page(self, prefix: str, after: str, count: int) -> list[str]:
        """The first `count` keys in order that begin with `prefix` and come after `after`. One whose holds have ended
        may be among them as long as no entry has swept it."""
        return self._tables.page(prefix, after, count)

    def is_waiting(self, key: str, owner: str, waiter: str) -> bool:
        """Whether this request stands in line."""
        place = self._tables.place_of(key, owner)
        return place is not None and any(listener.id == waiter for listener in place.listeners)

    @property
    def lives(self) -> Iterable[tuple[str, str]]:
        """The lives of nodes, `(node, boot)`, at which requests wait."""
        return self._tables.lives.keys()

    def status(self, key: str) -> Answer:
        """Holders and line of one key; see `queries.status`."""
        return queries.status(key, self._seen(key))

    def summaries(self, keys: Iterable[str]) -> list[Answer]:
        """One row for each of `keys` that is held; see `queries.summary`."""
        return [queries.summary(key, lock) for key in keys if (lock := self._seen(key)) is not None]

    def validate(self, key: str, token: int) -> Answer:
        """Whether `token` belongs to a hold of `key` that has not ended; see `queries.verdict`."""
        hold = self._tables.holds.get(token)
        if hold is not None and self._tables.has_expired(hold):
            hold = None
        return queries.verdict(hold, self._seen(key), key, token)


def _not_held() -> Answer:
    return {"ok": False, "reason": "not_held"}


def _cancelled() -> Answer:
    return {"ok": False, "reason": CANCELLED}


def _listener(context: ApplyContext, command: Acquire) -> Listener:
    due_ms = context.time_ms + command.wait_ms
    return Listener(command.waiter, command.exclusive, due_ms, intern(command.node), intern(command.boot))


def _full(reason: str, limit: str, value: int) -> Answer:
    return {"ok": False, "reason": reason, "limit": limit, "limit_value": value}
