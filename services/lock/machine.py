"""The lock machine: who gets which key, who waits for it, and what the next one in line is told.

A pure function of the log over `LockTables`. The rules, each with a test of its own:

- A request waits behind every earlier one that it conflicts with. A key with a line therefore admits nobody
  past the line, readers included.
- A holder that asks again for what its hold covers is answered with the same token, and its ttl starts anew if
  one is given. An exclusive hold covers both modes; a shared hold does not cover an exclusive request: such a
  request conflicts with the owner's own hold, so it is `locked`, or a `deadlock` where it would wait.
- Every grant has a token of its own, above all tokens before it, shared grants of one moment included: a token
  names one hold and nothing else. A log index would not do: one entry may grant a key, take it and grant it again.
- Time is cluster time. A hold has ended from `expires_ms` on, and a waiter is not granted from `deadline_ms` on,
  whichever of the two the same entry brought to light first.
- A ttl runs from the grant, not from the request.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from sys import intern
from typing import Any

from raft.state_machine import ApplyContext
from services.lock import queries
from services.lock.commands import Acquire, CancelWait, DropWaiters, ForceRelease, Release, Renew
from services.lock.graph import find_cycle
from services.lock.records import Hold, Lock, Waiter
from services.lock.tables import NEVER_MS, LockTables

# The limits decide answers, so they are part of the replicated behaviour: the same on every node, no settings.

#: Holds at one time, shared ones counted each.
HOLDS_MAX = 1_000_000
#: Shared holders of one key that are admitted without waiting.
HOLDERS_PER_KEY_MAX = 10_000
#: Requests in line for one key, and in all lines together.
WAITERS_PER_KEY_MAX = 10_000
WAITERS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class LockStatistics:
    """How much there is, for the gauges."""

    locks_held: int
    holds: int
    waiters: int


class LockMachine:
    """The inner machine of the `lock` group; see the module's docstring for its rules."""

    COMMANDS = (Acquire, Release, Renew, ForceRelease, CancelWait, DropWaiters)

    def __init__(self) -> None:
        self._tables = LockTables()
        self._handlers = {
            Acquire: self._acquire,
            Release: self._release,
            Renew: self._renew,
            ForceRelease: self._force_release,
            CancelWait: self._cancel_wait,
            DropWaiters: self._drop_waiters,
        }

    def apply(self, context: ApplyContext, command) -> dict:
        """Carry out one command and return its answer.

        Expiry times in answers are cluster time (`expires_ms`); the route turns them into seconds from now.
        An acquire that has to wait is answered `{"waiting": True}` and decided later by an event.
        """
        if context.time_ms >= self._tables.quiet_until_ms:
            self.advance(context)
        return self._handlers[type(command)](context, command)

    def repeat(self, context: ApplyContext, command: Any) -> None:
        """An earlier answer is given again: only time goes on."""
        self.advance(context)

    def advance(self, context: ApplyContext) -> None:
        """End what fell due by `context.time_ms`, then serve the lines that this set moving."""
        tables = self._tables
        if context.time_ms < tables.quiet_until_ms:
            return
        moved: dict[str, Lock] = {}
        # Waiters go first: one whose deadline passed before this entry is not granted by it, even if the hold
        # that it waited for ended earlier still.
        late = tables.pop_late(context.time_ms)
        for waiter in late:
            moved[waiter.key] = tables.remove_waiter(waiter)
        for hold in tables.pop_expired(context.time_ms):
            moved[hold.key] = tables.remove_hold(hold)
        for key, lock in moved.items():
            self._serve(context, key, lock)
        for waiter in late:
            self._tell(context, waiter, queries.refusal("timeout", tables.locks.get(waiter.key)))
        next_ms = tables.next_due_ms()
        tables.quiet_until_ms = NEVER_MS if next_ms is None else next_ms

    def next_due_ms(self) -> int | None:
        """Cluster time of the next expiry or deadline; None where nothing is pending."""
        return self._tables.next_due_ms()

    def snapshot(self) -> Iterator[list]:
        """See `LockTables.snapshot`."""
        return self._tables.snapshot()

    def restore(self, records: Iterable[list]) -> None:
        """See `LockTables.restore`."""
        self._tables.restore(records)

    def skip_numbers(self, count: int, floor: int = 0) -> None:
        """See `LockTables.skip_numbers`."""
        self._tables.skip_numbers(count, floor)

    # Commands

    def _acquire(self, context: ApplyContext, command: Acquire) -> dict:
        tables = self._tables
        lock = tables.locks.get(command.key)
        if lock is not None:
            exclusive = command.exclusive
            hold = lock.hold_of(command.owner)
            if hold is not None and (hold.exclusive or not exclusive):
                return _granted(self._heard_of(context, hold, command.ttl_ms))
            if exclusive or lock.first.exclusive or lock.queue:
                if command.wait_ms <= 0:
                    return queries.refusal("locked", lock, asking=hold)
                return self._wait(context, command, lock)
            if lock.holder_count >= HOLDERS_PER_KEY_MAX:
                return _limit("quota", "holders_per_key_max", HOLDERS_PER_KEY_MAX)
        if len(tables.holds) >= HOLDS_MAX:
            return _limit("quota", "holds_max", HOLDS_MAX)
        return _granted(self._add_hold(context, command, command.waiter))

    def _wait(self, context: ApplyContext, command: Acquire, lock: Lock) -> dict:
        tables = self._tables
        if command.waiter in tables.waiters:
            return {"waiting": True}
        if lock.queue_length >= WAITERS_PER_KEY_MAX:
            return _limit("quota", "waiters_per_key_max", WAITERS_PER_KEY_MAX)
        if len(tables.waiters) >= WAITERS_MAX:
            return _limit("overloaded", "waiters_max", WAITERS_MAX)
        waiter = Waiter(
            command.waiter,
            command.key,
            command.owner,
            command.exclusive,
            command.ttl_ms,
            context.time_ms + command.wait_ms,
            intern(command.node),
            intern(command.boot),
            context.index,
        )
        if tables.is_engaged(waiter.owner):
            cycle = find_cycle(tables.locks, tables.waits, waiter)
            if cycle is not None:
                return {"ok": False, "reason": "deadlock", "cycle": cycle}
        tables.add_waiter(waiter)
        return {"waiting": True}

    def _release(self, context: ApplyContext, command: Release) -> dict:
        hold = self._hold_of(command.key, command.owner)
        if hold is None:
            return _not_held()
        self._serve(context, command.key, self._tables.remove_hold(hold))
        return {"ok": True}

    def _renew(self, context: ApplyContext, command: Renew) -> dict:
        hold = self._hold_of(command.key, command.owner)
        if hold is None:
            return _not_held()
        return _granted(self._heard_of(context, hold, command.ttl_ms))

    def _force_release(self, context: ApplyContext, command: ForceRelease) -> dict:
        lock = self._tables.locks.get(command.key)
        taken = [
            hold
            for hold in (lock.holds() if lock is not None else ())
            if command.owner is None or hold.owner == command.owner
        ]
        if not taken:
            return _not_held()
        for hold in taken:
            self._tables.remove_hold(hold)
        self._serve(context, command.key, lock)
        return {
            "ok": True,
            "released": [queries.holder(hold) for hold in taken[: queries.HOLDERS_SHOWN_MAX]],
            "released_count": len(taken),
        }

    def _cancel_wait(self, context: ApplyContext, command: CancelWait) -> dict:
        waiter = self._tables.waiters.get(command.waiter)
        if waiter is not None:
            self._serve(context, waiter.key, self._tables.remove_waiter(waiter))
            self._tell(context, waiter, {"ok": False, "reason": "cancelled"})
            return {"ok": True, "cancelled": "waiting"}
        hold = self._hold_of(command.key, command.owner)
        if hold is None or hold.waiter != command.waiter:
            return {"ok": True, "cancelled": None}
        self._serve(context, command.key, self._tables.remove_hold(hold))
        return {"ok": True, "cancelled": "granted"}

    def _drop_waiters(self, context: ApplyContext, command: DropWaiters) -> dict:
        dropped = [
            waiter
            for waiter in self._tables.waiters.values()
            if waiter.node == command.node and waiter.boot != command.boot_kept
        ]
        moved = {waiter.key: self._tables.remove_waiter(waiter) for waiter in dropped}
        for key, lock in moved.items():
            self._serve(context, key, lock)
        for waiter in dropped:
            self._tell(context, waiter, {"ok": False, "reason": "cancelled"})
        return {"ok": True, "dropped": len(dropped)}

    # Steps that commands share

    def _hold_of(self, key: str, owner: str) -> Hold | None:
        lock = self._tables.locks.get(key)
        return None if lock is None else lock.hold_of(owner)

    def _add_hold(self, context: ApplyContext, asked: Acquire | Waiter, waiter: str) -> Hold:
        ttl_ms = asked.ttl_ms
        expires_ms = None if ttl_ms is None else context.time_ms + ttl_ms
        return self._tables.add_hold(asked.key, asked.owner, asked.exclusive, asked.node, expires_ms, waiter)

    def _heard_of(self, context: ApplyContext, hold: Hold, ttl_ms: int | None) -> Hold:
        """The owner asks about its hold: the ttl, if given, starts anew. It knows of the hold from now on, whatever
        became of the request that won it: a late `CancelWait` of that one must not take it away."""
        if ttl_ms is None and not hold.waiter:
            return hold
        expires_ms = hold.expires_ms if ttl_ms is None else context.time_ms + ttl_ms
        return self._tables.change_hold(hold, expires_ms, waiter="")

    def _serve(self, context: ApplyContext, key: str, lock: Lock) -> None:
        """Grant to the head of the line for as long as it conflicts with nobody; forget the lock if it is free."""
        while lock.queue:
            waiter = next(iter(lock.queue.values()))
            if lock.first is not None and (waiter.exclusive or lock.first.exclusive):
                return
            self._grant(context, waiter)
        if lock.first is None:
            del self._tables.locks[key]

    def _grant(self, context: ApplyContext, waiter: Waiter) -> None:
        self._tables.remove_waiter(waiter)
        hold = self._add_hold(context, waiter, waiter.id)
        self._tell(context, waiter, _granted(hold))
        # The same owner's other requests in this line are what a client that lost an answer sent again.
        for again in list(self._tables.waits.get(waiter.owner, {}).values()):
            if again.key == waiter.key and (hold.exclusive or not again.exclusive):
                self._tables.remove_waiter(again)
                hold = self._heard_of(context, hold, again.ttl_ms)
                self._tell(context, again, _granted(hold))

    def _tell(self, context: ApplyContext, waiter: Waiter, answer: dict) -> None:
        context.events.append(("waiter:" + waiter.id, answer))

    # Questions; none of them changes anything

    def statistics(self) -> LockStatistics:
        tables = self._tables
        return LockStatistics(
            locks_held=len(tables.locks), holds=len(tables.holds), waiters=len(tables.waiters)
        )

    def keys(self) -> list[str]:
        """Every held key, in no useful order: a copy that the caller may take its time with."""
        return list(self._tables.locks)

    def status(self, key: str) -> dict:
        """Holders and line of one key; see `queries.status`."""
        return queries.status(key, self._tables.locks.get(key))

    def summaries(self, keys: Iterable[str]) -> list[dict]:
        """One row for each of `keys` that is held; see `queries.summary`."""
        locks = self._tables.locks
        return [queries.summary(key, lock) for key in keys if (lock := locks.get(key)) is not None]

    def validate(self, key: str, token: int) -> dict:
        """Whether `token` belongs to a hold of `key` that has not ended; see `queries.verdict`."""
        return queries.verdict(self._tables.holds.get(token), self._tables.locks.get(key), key, token)


def _granted(hold: Hold) -> dict:
    return {"ok": True, "token": hold.token, "mode": hold.mode, "expires_ms": hold.expires_ms}


def _not_held() -> dict:
    return {"ok": False, "reason": "not_held"}


def _limit(reason: str, limit: str, value: int) -> dict:
    return {"ok": False, "reason": reason, "limit": limit, "limit_value": value}
