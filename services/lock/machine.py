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
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from sys import intern
from typing import Any, NamedTuple

from raft.state_machine import ApplyContext
from services.idempotency import CANCELLED
from services.lock import queries
from services.lock.commands import Acquire, CancelWait, CancelWaits, DropWaiters, ForceRelease, Release, Renew
from services.lock.graph import STEPS_MAX, GraphTooLarge, Search, shown
from services.lock.records import Hold, Listener, Lock, Waiter
from services.lock.tables import NEVER_MS, LockTables

# The limits decide answers, so they are part of the replicated behaviour: the same on every node, no settings.

#: Holds at one time, shared ones counted each.
HOLDS_MAX = 1_000_000
#: Shared holders of one key that are admitted without waiting.
HOLDERS_PER_KEY_MAX = 10_000
#: Owners in line for one key, and in all lines together.
WAITERS_PER_KEY_MAX = 10_000
WAITERS_MAX = 100_000
#: Requests of one owner in one place.
LISTENERS_MAX = 16
#: Requests that one `DropWaiters` ends.
DROPPED_PER_ENTRY_MAX = 1_000

#: What listeners hear of requests that may wait: a `Told` for each that waited or was granted a new hold.
TOLD_TOPIC = "lock.told"


class Told(NamedTuple):
    """What a request that may wait is answered."""

    #: Its id.
    waiter: str
    key: str
    owner: str
    answer: dict


@dataclass(frozen=True, slots=True)
class LockStatistics:
    """How much there is, for the gauges."""

    locks_held: int
    holds: int
    waiters: int


class LockMachine:
    """The inner machine of the `lock` group; see the module's docstring for its rules."""

    COMMANDS = (Acquire, Release, Renew, ForceRelease, CancelWait, CancelWaits, DropWaiters)

    def __init__(self) -> None:
        self._tables = LockTables()
        self._handlers = {
            Acquire: self._acquire,
            Release: self._release,
            Renew: self._renew,
            ForceRelease: self._force_release,
            CancelWait: self._cancel_wait,
            CancelWaits: self._cancel_waits,
            DropWaiters: self._drop_waiters,
        }

    def apply(self, context: ApplyContext, command) -> dict:
        """Carry out one command and return its answer.

        Expiry times in answers are cluster time (`expires_ms`); the route turns them into seconds from now.
        An acquire that has to wait is answered `{"waiting": True}` and decided later by an event. It has `waiter`
        where it waits in the place of an earlier request, whose id that is, or was granted what that one was.
        """
        if context.time_ms >= self._tables.quiet_until_ms:
            self.advance(context)
        return self._handlers[type(command)](context, command)

    def kept(self, answer: dict) -> dict:
        """All but to whose place it is tied."""
        return {name: value for name, value in answer.items() if name != "waiter"}

    def repeat(self, context: ApplyContext, command: Any, kept: dict) -> dict | None:
        """What became of an earlier request, told to one who asks again; see `services.envelope.ServiceMachine`."""
        if kept.get("waiting"):
            place = self._tables.place_of(command.key, command.owner)
            # One that is shared by now, because its exclusive requests have gone, must not be made exclusive again:
            # who stands behind it may not wait for it, and nobody looked for a cycle.
            covers = place is not None and (place.exclusive or not command.exclusive)
            return self._join(context, command, place) if covers else None
        if isinstance(command, Acquire) and kept.get("reason") in ("locked", "timeout"):
            return self.refusal(kept["reason"], command.key)
        if not isinstance(command, Acquire | Renew) or not kept["ok"]:
            return kept
        hold = self._tables.holds.get(kept.get("token", 0))
        if hold is None:
            return {**_not_held(), "token": kept.get("token", 0)}
        if isinstance(command, Acquire) and command.exclusive and not hold.exclusive:
            # Granted to the shared requests that were left in its place: not what this one asks for.
            return None
        if isinstance(command, Acquire) and hold.unheard and command.waiter not in hold.unheard:
            hold = self._tables.change_hold(
                hold, expires_ms=hold.expires_ms, unheard=_unheard_with(hold, command.waiter)
            )
        return _granted(hold)

    def advance(self, context: ApplyContext) -> None:
        """End what fell due by `context.time_ms`, then serve the lines that this set moving."""
        tables = self._tables
        if context.time_ms < tables.quiet_until_ms:
            return
        moved: dict[str, Lock] = {}
        # Waiters go first: one whose deadline passed before this entry is not granted by it, even if the hold
        # that it waited for ended earlier still.
        late = [
            (waiter, tuple(each for each in waiter.listeners if each.deadline_ms <= context.time_ms))
            for waiter in tables.pop_late(context.time_ms)
        ]
        for waiter, gone in late:
            moved[waiter.key] = self._leave(waiter, gone)
        for hold in tables.pop_expired(context.time_ms):
            moved[hold.key] = tables.remove_hold(hold)
        for key, lock in moved.items():
            self._serve(context, key, lock)
        for waiter, gone in late:
            self._tell(context, waiter, gone, self.refusal("timeout", waiter.key))
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
                if command.waiter and command.waiter in hold.unheard:
                    # The very request that won it, carried out twice.
                    return _granted(hold)
                return self._ask_again(context, hold, command)
            if exclusive or lock.first.exclusive or lock.queue:
                if command.wait_ms <= 0:
                    return queries.refusal("locked", lock, asking=hold)
                return self._wait(context, command, lock)
            if lock.holder_count >= HOLDERS_PER_KEY_MAX:
                return _limit("quota", "holders_per_key_max", HOLDERS_PER_KEY_MAX)
        if len(tables.holds) >= HOLDS_MAX:
            return _limit("quota", "holds_max", HOLDS_MAX)
        waiter = command.waiter
        answer = _granted(self._add_hold(context, command, waiter, (waiter,) if waiter else ()))
        if waiter:
            # Its node hears of it beside the answer: there may be nobody to be answered by now.
            context.events.append((TOLD_TOPIC, Told(waiter, command.key, command.owner, answer)))
        return answer

    def _wait(self, context: ApplyContext, command: Acquire, lock: Lock) -> dict:
        tables = self._tables
        place = tables.place_of(command.key, command.owner)
        if place is not None and (place.exclusive or not command.exclusive):
            return self._join(context, command, place)
        if lock.queue_length >= WAITERS_PER_KEY_MAX:
            return _limit("quota", "waiters_per_key_max", WAITERS_PER_KEY_MAX)
        if len(tables.waiters) >= WAITERS_MAX:
            return _limit("overloaded", "waiters_max", WAITERS_MAX)
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
                cycle = Search(tables.locks, tables.waits).find_cycle(waiter)
            except GraphTooLarge:
                return _limit("overloaded", "wait_graph_max", STEPS_MAX)
            if cycle is not None:
                return {"ok": False, "reason": "deadlock", "cycle": shown(cycle), "cycle_length": len(cycle)}
        tables.add_waiter(waiter)
        return {"waiting": True}

    def _join(self, context: ApplyContext, command: Acquire, place: Waiter) -> dict:
        """Another request of the owner's waits in its place from now on, to the end of its own time."""
        others = tuple(listener for listener in place.listeners if listener.id != command.waiter)
        if len(others) >= LISTENERS_MAX:
            return _limit("overloaded", "listeners_max", LISTENERS_MAX)
        if command.ttl_ms is not None:
            place = place._replace(ttl_ms=command.ttl_ms)
        self._tables.change_waiter(place, (*others, _listener(context, command)))
        return {"waiting": True} if place.id == command.waiter else {"waiting": True, "waiter": place.id}

    def _release(self, context: ApplyContext, command: Release) -> dict:
        hold = self._hold_of(command.key, command.owner, command.token)
        if hold is None:
            return _not_held()
        self._serve(context, command.key, self._tables.remove_hold(hold))
        return {"ok": True}

    def _renew(self, context: ApplyContext, command: Renew) -> dict:
        hold = self._hold_of(command.key, command.owner, command.token)
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
        return {"ok": True, "cancelled": self._cancel(context, command.key, command.owner, command.waiter)}

    def _cancel_waits(self, context: ApplyContext, command: CancelWaits) -> dict:
        cancelled = [self._cancel(context, key, owner, waiter) for key, owner, waiter in command.waits]
        return {"ok": True, "cancelled": len(cancelled) - cancelled.count(None)}

    def _cancel(self, context: ApplyContext, key: str, owner: str, waiter: str) -> str | None:
        """Withdraw one request; says what ended with it: "waiting" or "granted", None where nothing did."""
        place = self._tables.place_of(key, owner)
        gone = tuple(each for each in place.listeners if each.id == waiter) if place is not None else ()
        if gone:
            self._serve(context, key, self._leave(place, gone))
            self._tell(context, place, gone, _cancelled())
            return "waiting" if len(place.listeners) == 1 else None
        hold = self._hold_of(key, owner)
        if hold is None or waiter not in hold.unheard:
            return None
        unheard = tuple(id for id in hold.unheard if id != waiter)
        if unheard:
            self._tables.change_hold(hold, expires_ms=hold.expires_ms, unheard=unheard)
            return None
        self._serve(context, key, self._tables.remove_hold(hold))
        context.decided.append((hold.waiter, _cancelled()))
        return "granted"

    def _drop_waiters(self, context: ApplyContext, command: DropWaiters) -> dict:
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

    # Steps that commands share

    def _hold_of(self, key: str, owner: str, token: int | None = None) -> Hold | None:
        lock = self._tables.locks.get(key)
        hold = None if lock is None else lock.hold_of(owner)
        return None if hold is None or token not in (None, hold.token) else hold

    def _add_hold(
        self, context: ApplyContext, asked: Acquire | Waiter, waiter: str, unheard: tuple[str, ...]
    ) -> Hold:
        ttl_ms = asked.ttl_ms
        expires_ms = None if ttl_ms is None else context.time_ms + ttl_ms
        return self._tables.add_hold(
            asked.key, asked.owner, asked.exclusive, asked.node, expires_ms, waiter, unheard
        )

    def _heard_of(self, context: ApplyContext, hold: Hold, ttl_ms: int | None) -> Hold:
        """The owner asks about its hold: the ttl, if given, starts anew. It knows of the hold from now on, whatever
        became of the requests that won it: a late `CancelWait` of these must not take it away."""
        if ttl_ms is None and not hold.unheard:
            return hold
        expires_ms = hold.expires_ms if ttl_ms is None else context.time_ms + ttl_ms
        return self._tables.change_hold(hold, expires_ms=expires_ms, unheard=())

    def _ask_again(self, context: ApplyContext, hold: Hold, command: Acquire) -> dict:
        """Another request for what the owner's hold covers. As long as all that know of the hold can be withdrawn, it
        can as well; its answer then goes with that of the first (`waiter`)."""
        if not command.waiter or not hold.unheard:
            return _granted(self._heard_of(context, hold, command.ttl_ms))
        expires_ms = hold.expires_ms if command.ttl_ms is None else context.time_ms + command.ttl_ms
        unheard = _unheard_with(hold, command.waiter)
        hold = self._tables.change_hold(hold, expires_ms=expires_ms, unheard=unheard)
        return {**_granted(hold), "waiter": hold.waiter} if hold.waiter else _granted(hold)

    def _leave(self, waiter: Waiter, gone: tuple[Listener, ...]) -> Lock:
        """These requests of a place end, and the place with the last. The caller serves the lock that is returned."""
        left = tuple(listener for listener in waiter.listeners if listener not in gone)
        if not left:
            return self._tables.remove_waiter(waiter)
        self._tables.change_waiter(waiter, left)
        return self._tables.locks[waiter.key]

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
        unheard = tuple(listener.id for listener in waiter.listeners)
        hold = self._add_hold(context, waiter, waiter.id, unheard)
        self._tell(context, waiter, waiter.listeners, _granted(hold))

    def _tell(
        self, context: ApplyContext, place: Waiter, listeners: tuple[Listener, ...], answer: dict
    ) -> None:
        """Announce to these requests of a place what became of them; if these were all, to whoever keeps answers."""
        for listener in listeners:
            context.events.append((TOLD_TOPIC, Told(listener.id, place.key, place.owner, answer)))
        if len(listeners) == len(place.listeners):
            context.decided.append((place.id, answer))

    # Questions; none of them changes anything

    def statistics(self) -> LockStatistics:
        tables = self._tables
        return LockStatistics(
            locks_held=len(tables.locks), holds=len(tables.holds), waiters=len(tables.waiters)
        )

    def keys(self) -> list[str]:
        """Every held key, in no useful order: a copy that the caller may take its time with."""
        return list(self._tables.locks)

    def is_waiting(self, key: str, owner: str, waiter: str) -> bool:
        """Whether this request stands in line."""
        place = self._tables.place_of(key, owner)
        return place is not None and any(listener.id == waiter for listener in place.listeners)

    @property
    def lives(self) -> Iterable[tuple[str, str]]:
        """The lives of nodes, `(node, boot)`, at which requests wait."""
        return self._tables.lives.keys()

    def refusal(self, reason: str, key: str) -> dict:
        """Why an acquire was not granted; see `queries.refusal`."""
        return queries.refusal(reason, self._tables.locks.get(key))

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


def _unheard_with(hold: Hold, waiter: str) -> tuple[str, ...]:
    """Who asks again may be told of the hold, so it stays where only the first one leaves."""
    return (*hold.unheard, waiter) if len(hold.unheard) < LISTENERS_MAX else ()


def _not_held() -> dict:
    return {"ok": False, "reason": "not_held"}


def _cancelled() -> dict:
    return {"ok": False, "reason": CANCELLED}


def _listener(context: ApplyContext, command: Acquire) -> Listener:
    due_ms = context.time_ms + command.wait_ms
    return Listener(command.waiter, command.exclusive, due_ms, intern(command.node), intern(command.boot))


def _limit(reason: str, limit: str, value: int) -> dict:
    return {"ok": False, "reason": reason, "limit": limit, "limit_value": value}
