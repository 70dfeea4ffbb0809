"""Clients that take locks, and what they were told held against the others.

The rule of the check: a client that was told `ok` holds the lock from that moment until it began to give it back, or
until its ttl after it *asked*: the hold cannot have begun earlier. Two such times of two owners never overlap, and
tokens rise.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.shell.client import Client, NotDone, Try, Unknown, Vanished

if TYPE_CHECKING:
    from tests.shell.run import Run

#: A ttl counts so much less, for what cluster time may run fast, and for the leader's part of a stall.
TTL_SLACK = 0.97
FOR_EVER_US = 10**15
TTLS_S: tuple[float | None, ...] = (0.3, 0.8, 2.0, 5.0)
WAITS_S = (0.0, 0.3, 1.0, 3.0)
#: How long a request waits whose client may leave meanwhile.
LONG_WAITS_S = (1.0, 3.0, 8.0)


@dataclass(slots=True)
class LockRecord:
    """What all clients of a run were told, and what they lost."""

    holds: list[Hold] = field(default_factory=list)
    #: Holds that nobody will give back, by key and owner. None: the client knew of it. Else it asked so, and does not
    #: know whether it was granted.
    lost: dict[tuple[str, str], list[Try] | None] = field(default_factory=dict)
    #: By key and owner, requests that were not granted as far as the owner was told.
    refused: dict[tuple[str, str], list[Try]] = field(default_factory=dict)
    #: Keys and owners that do not ask again, as they were told that nothing was done. They would not have waited.
    never: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class Hold:
    """What a client was told, in microseconds of true time."""

    key: str
    owner: str
    token: int
    exclusive: bool
    asked_us: int
    told_us: int
    #: Until then it believes that it holds the lock, whatever it hears.
    until_us: int
    ttl_s: float | None

    def extend(self, asked_us: int, ttl_s: float) -> None:
        self.until_us = max(self.until_us, asked_us + round(ttl_s * TTL_SLACK * 1_000_000))


class LockClient(Client):
    """One owner. It asks for one lock at a time, and holds up to a few."""

    def __init__(self, run: Run, name: str) -> None:
        super().__init__(run, name)
        self.held: dict[str, Hold] = {}
        self._lives = 0

    @property
    def owner(self) -> str:
        """A client that gave up without knowing what became of its request goes on as somebody else."""
        return f"{self.name}.{self._lives}"

    async def act(self) -> None:
        key = f"lock{self.random.randrange(self.run.plan.key_count)}"
        was_held = key in self.held
        try:
            await self._act_on(key)
        except (Unknown, Vanished):
            # It may hold the lock now, and nobody will give it back.
            self.run.locks.lost[key, self.owner] = None if was_held else self.tries
            self._forget()
            raise

    async def _act_on(self, key: str) -> None:
        hold, owner = self.held.get(key), self.owner
        if hold is None:
            try:
                await self._acquire(key)
            finally:
                if key not in self.held:
                    self.run.locks.refused.setdefault((key, owner), []).extend(self.tries)
        elif self.has("forgets"):
            self._forget()
        elif hold.ttl_s is not None and self.random.random() < 0.3:
            await self._renew(hold)
        elif self.random.random() < 0.2:
            await self._validate(hold)
        else:
            if self.has("overstays"):
                await asyncio.sleep(self.random.random() * 3)
            await self._release(hold)

    def leave(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """It goes on as somebody else."""
        for held in self.held:
            self.run.locks.lost[held, self.owner] = None
        self.held.clear()
        self._lives += 1

    async def _acquire(self, key: str) -> None:
        random = self.random
        if self.has("abandons"):
            await self._wait_and_leave(key)
            return
        if self.has("doubles"):
            await self._acquire_twice(key)
            return
        ttl_s, wait_s = random.choice(TTLS_S), random.choice(WAITS_S)
        if wait_s and random.random() < 0.3:
            # Until it is released: where the client goes, the node has to see to it.
            ttl_s = None
        exclusive = random.random() < 0.8
        body = {"key": key, "client_id": self.owner, "mode": "X" if exclusive else "S"}
        if ttl_s is not None:
            body["ttl"] = ttl_s
        if wait_s:
            body["wait"] = wait_s
        asked_us = self.now_us
        idempotent = self.new_key() if random.random() < 0.7 else None
        if self.has("gives_up"):
            told = await self._ask_once(body, wait_s, idempotent)
        else:
            told = await self.settle("/lock/acquire", body, wait_s=wait_s, key=idempotent)
        if told["ok"]:
            self._on_granted(key, exclusive, asked_us, ttl_s, told)
            if idempotent is not None and self.has("reuses_keys"):
                self.process.start(self._reuse(idempotent, body), f"{self.name} reuses a key")
        else:
            await self._on_refused(key, told)

    async def _ask_once(self, body: dict[str, Any], wait_s: float, idempotent: str | None) -> dict[str, Any]:
        """Ask no second time. Where it was not done, the owner goes on as somebody else: nothing may come of it."""
        self.tries = []
        try:
            return await self.ask("/lock/acquire", body, wait_s=wait_s, key=idempotent)
        except NotDone:
            if not wait_s:
                self.run.locks.never.add((body["key"], self.owner))
            self._forget()
            raise

    async def _wait_and_leave(self, key: str) -> None:
        """Wait for a lock until it is released, and leave after a while. What was granted meanwhile has to go."""
        random, self.tries = self.random, []
        wait_s, asked_us = random.choice(LONG_WAITS_S), self.now_us
        body = {"key": key, "client_id": self.owner, "wait": wait_s}
        idempotent = self.new_key() if random.random() < 0.5 else None
        leaves_s = wait_s * random.random() ** 2
        told = await self.ask("/lock/acquire", body, wait_s=wait_s, key=idempotent, leaves_s=leaves_s)
        if told["ok"]:
            self._on_granted(key, True, asked_us, None, told)

    async def _acquire_twice(self, key: str) -> None:
        """Ask in two requests at once, and leave one of the two in the middle. The other's answer stands."""
        random, self.tries = self.random, []
        wait_s, asked_us = random.choice(LONG_WAITS_S), self.now_us
        body = {"key": key, "client_id": self.owner, "wait": wait_s}
        keys = [self.new_key() if random.random() < 0.5 else None for _ in range(2)]
        leaves_s: list[float | None] = [wait_s * random.random() ** 2, None]
        random.shuffle(leaves_s)
        asking = (
            self.ask("/lock/acquire", body, wait_s=wait_s, key=idempotent, leaves_s=each_s)
            for idempotent, each_s in zip(keys, leaves_s, strict=True)
        )
        told = await asyncio.gather(*asking, return_exceptions=True)
        granted = [each for each in told if isinstance(each, dict) and each["ok"]]
        if granted:
            # One may have been granted, released where its client had gone, and granted again to the other.
            self._on_granted(key, True, asked_us, None, max(granted, key=lambda each: each["token"]))
            return
        for each in told:
            if isinstance(each, BaseException) and not isinstance(each, NotDone):
                raise each

    async def _reuse(self, idempotent: str, body: dict[str, Any]) -> None:
        """Ask for something else under a key that was answered: it must be refused."""
        other = {"key": body["key"], "client_id": f"{self.name}.other", "ttl": 0.1}
        try:
            told = await self.ask("/lock/acquire", other, key=idempotent)
        except (NotDone, Unknown):
            return
        if told.get("reason") != "idempotency_key_reused":
            self.run.fail(f"{idempotent} was used for another request, and answered {told}")

    async def _on_refused(self, key: str, told: dict[str, Any]) -> None:
        """Another one holds the lock. Where that one forgot it, and it never ends, an operator gives it back."""
        if told["reason"] == "deadlock":
            self.world.count("deadlock told")
            if not self.held:
                self.run.fail(f"{self.owner} was told of a deadlock over {key}, and holds nothing: {told}")
        for holder in told.get("holders", ()):
            owner = holder["owner"]
            if (key, owner) in self.run.locks.never:
                self.run.fail(f"{owner} was told that nothing was done, and holds {key} at {self.now_us}")
            if holder["expires_in_s"] is None and self.run.locks.lost.get((key, owner), ()) is None:
                self.world.count("forgotten lock is given back")
                now_us = self.now_us
                for hold in self.run.locks.holds:
                    if hold.key == key and hold.owner == owner:
                        hold.until_us = min(hold.until_us, now_us)
                with suppress(NotDone, Unknown):
                    await self.ask("/lock/force_release", {"key": key, "client_id": owner})

    def _on_granted(
        self, key: str, exclusive: bool, asked_us: int, ttl_s: float | None, told: dict[str, Any]
    ) -> None:
        until_us = FOR_EVER_US if ttl_s is None else asked_us + round(ttl_s * TTL_SLACK * 1_000_000)
        hold = Hold(key, self.owner, told["token"], exclusive, asked_us, self.now_us, until_us, ttl_s)
        self.held[key] = hold
        self.run.locks.holds.append(hold)
        self.world.count("lock granted")

    async def _renew(self, hold: Hold) -> None:
        ttl_s, asked_us = self.random.choice(TTLS_S), self.now_us
        # The new end may be earlier: until it is known, only the earlier of the two is certain.
        until_us, hold.until_us = hold.until_us, min(hold.until_us, asked_us + round(ttl_s * TTL_SLACK * 1_000_000))
        body = {"key": hold.key, "client_id": hold.owner, "token": hold.token, "ttl": ttl_s}
        told = await self.settle("/lock/renew", body, key=self.new_key())
        if told["ok"]:
            hold.extend(asked_us, ttl_s)
            self.world.count("lock renewed")
        else:
            self._lost(hold, min(until_us, hold.until_us))

    async def _validate(self, hold: Hold) -> None:
        told = await self.settle("/lock/validate", {"key": hold.key, "token": hold.token})
        if not told["ok"]:
            self._lost(hold, hold.until_us)

    async def _release(self, hold: Hold) -> None:
        until_us, hold.until_us = hold.until_us, min(hold.until_us, self.now_us)
        del self.held[hold.key]
        body = {"key": hold.key, "client_id": hold.owner, "token": hold.token}
        told = await self.settle("/lock/release", body, key=self.new_key() if self.random.random() < 0.5 else None)
        if not told["ok"] and not told.get("replayed"):
            self._lost(hold, until_us, was_given_back=True)

    def _lost(self, hold: Hold, until_us: int, *, was_given_back: bool = False) -> None:
        """It was told that it does not hold the lock."""
        if self.now_us < until_us:
            self.run.fail(
                f"{hold.owner} was told at {self.now_us} that it does not hold {hold.key} (token {hold.token}), and "
                f"its ttl had not ended before {until_us}"
            )
        hold.until_us = min(hold.until_us, self.now_us)
        if not was_given_back:
            self.held.pop(hold.key, None)

    def on_repeated(self, path: str, answer: dict[str, Any], again: dict[str, Any]) -> None:
        if path == "/lock/acquire" and answer["ok"] and again["ok"] and answer["token"] != again["token"]:
            self.run.fail(f"one key was told two tokens: {answer['token']} and {again['token']}")


def check_locks(run: Run) -> None:
    """Whether what all clients were told can be true at once."""
    by_key: dict[str, list[Hold]] = {}
    for hold in run.locks.holds:
        by_key.setdefault(hold.key, []).append(hold)
    for holds in by_key.values():
        holds.sort(key=lambda each: each.told_us)
        for position, hold in enumerate(holds):
            for later in holds[position + 1 :]:
                _check_pair(run, hold, later)


def _check_pair(run: Run, hold: Hold, later: Hold) -> None:
    is_same = hold.owner == later.owner and hold.token == later.token
    excludes = hold.owner != later.owner and (hold.exclusive or later.exclusive)
    if excludes and hold.until_us > later.told_us and later.until_us > later.told_us:
        run.fail(f"{hold.key} was held by two at {later.told_us}: {hold} and {later}")
    if later.asked_us > hold.told_us and later.token <= hold.token and not is_same:
        run.fail(f"tokens of {hold.key} do not rise: {hold} and then {later}")


class LockProbe(Client):
    """Asks each node in turn."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, "locks")
        self._at = ""

    def any_node(self) -> str:
        return self._at

    async def all_take_locks(self) -> bool:
        """Whether every node takes a lock for its client."""
        for node in self.world.nodes:
            self._at = node
            try:
                body = {"key": f"lock of {node}", "client_id": self.name, "ttl": 0.1}
                told = await self.ask("/lock/acquire", body)
            except (NotDone, Unknown):
                return False
            if not told["ok"]:
                return False
        return True


async def locks_are_free(run: Run, client: Client) -> bool:
    """Nobody waits for a lock, and nobody holds one that is not lost by the client's own doing; those go now."""
    for number in range(run.plan.key_count):
        key = f"lock{number}"
        try:
            told = await client.ask_get(f"/lock/status?key={key}")
            for holder in told["holders"]:
                if may_be_lost(run, key, holder["owner"]):
                    run.world.count("lock that nobody gives back")
                    await client.ask("/lock/force_release", {"key": key, "client_id": holder["owner"]})
        except (NotDone, Unknown):
            return False
        if told["held"] or told["queue_length"]:
            return False
    return True


def may_be_lost(run: Run, key: str, owner: str) -> bool:
    """Whether a hold of this owner may stay for ever: its client forgot it, or a node wrote the answer that grants it
    and the client had gone, or a node died between the two."""
    if (key, owner) in run.locks.never:
        return False
    lost = run.locks.lost.get((key, owner), [])
    if lost is None or any(b'"token":' in each.written for each in lost):
        return True
    tries = lost + run.locks.refused.get((key, owner), [])
    return any(at_us >= each.asked_us for each in tries for at_us in run.world.nodes[each.node].deaths_us)
