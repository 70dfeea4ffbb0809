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
- What an entry does is bounded. Where more has ended than one entry may sweep, later ones go on, and until then it
  counts for nobody: a command moves the line of its key first (`_lock`), as if the sweep had come by.
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
#: Holds and waiters whose end by time, or whose grant by it, one entry sees to, plus the line of the last of them.
SWEPT_PER_ENTRY_MAX = 1000
#: The same of an entry with a command: more than it can leave behind, and little enough that all who wait for their
#: answers behind the end of a million holds get them in time.
SWEPT_PER_COMMAND_MAX = 32


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
        self._pass_time(context, SWEPT_PER_COMMAND_MAX)
        return self._handlers[type(command)](context, command)

    def repeat(self, context: ApplyContext, command: Any) -> None:
        """An earlier answer is given again: only time goes on."""
        self._pass_time(context, SWEPT_PER_COMMAND_MAX)

    def advance(self, context: ApplyContext) -> None:
        """End what fell due by `context.time_ms`, as much as one entry may, and serve the lines that this sets
        moving. What is left is due at once."""
        self._pass_time(context, SWEPT_PER_ENTRY_MAX)

    def _pass_time(self, context: ApplyContext, swept_max: int) -> None:
        self._tables.time_ms = context.time_ms
        if self._tables.is_behind:
            self._sweep(context, swept_max)

    def _sweep(self, context: ApplyContext, swept_max: int) -> None:
        tables = self._tables
        late: list[Waiter] = []
        ended = 0
        # Waiters go first: one whose deadline passed before this entry is not granted by it, even if the hold
        # that it waited for ended earlier still.
        while ended + len(context.events) < swept_max:
            gone = tables.first_late() or tables.first_expired()
            if gone is None:
                break
            ended += 1
            if isinstance(gone, Waiter):
                late.append(gone)
                lock = tables.remove_waiter(gone)
            else:
                lock = tables.remove_hold(gone)
            late += self._move_line(context, gone.key, lock)
        for waiter in sorted(late, key=lambda waiter: (waiter.deadline_ms, waiter.id)):
            self._tell_late(context, waiter)
        context.spend(ended)
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

    def skip_numbers(self, count: int) -> None:
        """See `LockTables.skip_numbers`."""
        self._tables.skip_numbers(count)

    # Commands

    def _acquire(self, context: ApplyContext, command: Acquire) -> dict:
        tables = self._tables
        lock = self._lock(context, command.key)
        if lock is not None:
            exclusive = command.exclusive
            hold = self._hold_in(lock, command.owner)
            if hold is not None and (hold.exclusive or not exclusive):
                return _granted(self._heard_of(context, hold, command.ttl_ms))
            if exclusive or lock.first.exclusive or lock.queue:
                if command.wait_ms <= 0:
                    return queries.refusal("locked", lock, context.time_ms, asking=hold)
                return self._wait(context, command, lock)
            if lock.holder_count >= HOLDERS_PER_KEY_MAX:
                return _limit("quota", "holders_per_key_max", HOLDERS_PER_KEY_MAX)
        if len(tables.holds) >= HOLDS_MAX:
            return _limit("quota", "holds_max", HOLDS_MAX)
        return _granted(self._add_hold(context, command, command.waiter))

    def _wait(self, context: ApplyContext, command: Acquire, lock: Lock) -> dict:
        tables = self._tables
        if self._waiter(context, command.waiter) is not None:
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
            cycle = find_cycle(tables.locks, tables.waits, waiter, context.time_ms)
            if cycle is not None:
                return {"ok": False, "reason": "deadlock", "cycle": cycle}
        tables.add_waiter(waiter)
        return {"waiting": True}

    def _release(self, context: ApplyContext, command: Release) -> dict:
        hold = self._hold_of(context, command.key, command.owner)
        if hold is None:
            return _not_held()
        self._serve(context, command.key, self._tables.remove_hold(hold))
        return {"ok": True}

    def _renew(self, context: ApplyContext, command: Renew) -> dict:
        hold = self._hold_of(context, command.key, command.owner)
        if hold is None:
            return _not_held()
        return _granted(self._heard_of(context, hold, command.ttl_ms))

    def _force_release(self, context: ApplyContext, command: ForceRelease) -> dict:
        lock = self._lock(context, command.key)
        taken = [
            hold
            for hold in (lock.holds() if lock is not None else ())
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

    def _cancel_wait(self, context: ApplyContext, command: CancelWait) -> dict:
        self._lock(context, command.key)
        waiter = self._waiter(context, command.waiter)
        if waiter is not None:
            self._serve(context, waiter.key, self._tables.remove_waiter(waiter))
            self._tell(context, waiter, {"ok": False, "reason": "cancelled"})
            return {"ok": True, "cancelled": "waiting"}
        hold = self._hold_of(context, command.key, command.owner)
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

    def _lock(self, context: ApplyContext, key: str) -> Lock | None:
        """The lock of `key`; what stands first in it, as its holder and in its line, has not ended."""
        lock = self._tables.locks.get(key)
        if lock is None or not self._tables.is_behind:
            return lock
        self._serve(context, key, lock)
        return self._tables.locks.get(key)

    def _hold_of(self, context: ApplyContext, key: str, owner: str) -> Hold | None:
        lock = self._lock(context, key)
        return None if lock is None else self._hold_in(lock, owner)

    def _hold_in(self, lock: Lock, owner: str) -> Hold | None:
        """The hold of `owner`, unless it has ended: then it goes now. As a lock of `_lock` has a holder besides,
        nobody can be waiting for that."""
        hold = lock.hold_of(owner)
        if hold is None or not self._tables.has_expired(hold):
            return hold
        self._tables.remove_hold(hold)
        return None

    def _waiter(self, context: ApplyContext, id: str) -> Waiter | None:
        """The request in line, unless its time is over: then it goes now."""
        waiter = self._tables.waiters.get(id)
        if waiter is None or waiter.deadline_ms > context.time_ms:
            return waiter
        self._serve(context, waiter.key, self._tables.remove_waiter(waiter))
        self._tell_late(context, waiter)
        return None

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
        """Move the line, and tell those who are met in it after their time."""
        for waiter in self._move_line(context, key, lock):
            self._tell_late(context, waiter)

    def _move_line(self, context: ApplyContext, key: str, lock: Lock) -> list[Waiter]:
        """Grant to the head of the line for as long as it conflicts with nobody; forget the lock if it is free. What
        has ended and stands first goes on the way; returns the waiters among that, who are to be told."""
        tables = self._tables
        while lock.first is not None and tables.has_expired(lock.first):
            tables.remove_hold(lock.first)
            context.spend(1)
        late = []
        while lock.queue:
            waiter = next(iter(lock.queue.values()))
            if waiter.deadline_ms <= context.time_ms:
                tables.remove_waiter(waiter)
                late.append(waiter)
                continue
            if lock.first is not None and (waiter.exclusive or lock.first.exclusive):
                return late
            self._grant(context, waiter)
        if lock.first is None:
            tables.remove_lock(key)
        return late

    def _grant(self, context: ApplyContext, waiter: Waiter) -> None:
        self._tables.remove_waiter(waiter)
        hold = self._add_hold(context, waiter, waiter.id)
        self._tell(context, waiter, _granted(hold))
        # The same owner's other requests in this line are what a client that lost an answer sent again. They stand
        # among its waits and in the line: of the two, the shorter is looked through.
        waits, line = self._tables.waits.get(waiter.owner, {}), self._tables.locks[waiter.key].queue or {}
        looked = waits if len(waits) <= len(line) else line
        context.spend(len(looked) // 8)
        for again in [each for each in looked.values() if (each.key, each.owner) == (waiter.key, waiter.owner)]:
            if again.deadline_ms > context.time_ms and (hold.exclusive or not again.exclusive):
                self._tables.remove_waiter(again)
                hold = self._heard_of(context, hold, again.ttl_ms)
                self._tell(context, again, _granted(hold))

    def _tell_late(self, context: ApplyContext, waiter: Waiter) -> None:
        lock = self._tables.locks.get(waiter.key)
        self._tell(context, waiter, queries.refusal("timeout", lock, context.time_ms))

    def _tell(self, context: ApplyContext, waiter: Waiter, answer: dict) -> None:
        context.events.append(("waiter:" + waiter.id, answer))

    # Questions; none of them changes anything

    def statistics(self) -> LockStatistics:
        tables = self._tables
        return LockStatistics(
            locks_held=len(tables.locks), holds=len(tables.holds), waiters=len(tables.waiters)
        )

    def page(self, prefix: str, after: str, count: int) -> list[str]:
        """The first `count` keys in order that begin with `prefix` and come after `after`. One whose holds have ended
        may be among them as long as no entry has swept it."""
        return self._tables.page(prefix, after, count)

    def status(self, key: str) -> dict:
        """Holders and line of one key; see `queries.status`."""
        return queries.status(key, self._seen(key))

    def summaries(self, keys: Iterable[str]) -> list[dict]:
        """One row for each of `keys` that is held; see `queries.summary`."""
        return [queries.summary(key, lock) for key in keys if (lock := self._seen(key)) is not None]

    def validate(self, key: str, token: int) -> dict:
        """Whether `token` belongs to a hold of `key` that has not ended; see `queries.verdict`."""
        hold = self._tables.holds.get(token)
        if hold is not None and self._tables.has_expired(hold):
            hold = None
        return queries.verdict(hold, self._seen(key), key, token)

    def _seen(self, key: str) -> Lock | None:
        return self._tables.seen(self._tables.locks.get(key))


def _granted(hold: Hold) -> dict:
    return {"ok": True, "token": hold.token, "mode": hold.mode, "expires_ms": hold.expires_ms}


def _not_held() -> dict:
    return {"ok": False, "reason": "not_held"}


def _limit(reason: str, limit: str, value: int) -> dict:
    return {"ok": False, "reason": reason, "limit": limit, "limit_value": value}
