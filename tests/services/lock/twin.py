"""The lock machine's dumb twin: two lists, no index, every question answered by looking at everything."""

from services.lock.commands import Acquire, CancelWait, DropWaiters, ForceRelease, Release, Renew


class TwinLocks:
    """Same commands, same answers (of a refusal only the reason), same events, same state.

    One entry sweeps so much; what is left counts for nobody, and moves with the next command about its key."""

    def __init__(self, swept_max: int = 1_000) -> None:
        self.swept_max = swept_max
        self.now_ms = 0
        self.last_token = 0
        #: Dicts of token, key, owner, exclusive, node, expires_ms, waiter; lowest token first.
        self.holds: list[dict] = []
        #: Dicts of id, key, owner, exclusive, ttl_ms, deadline_ms, node, boot; first come first.
        self.line: list[dict] = []
        self.events: list[tuple[str, dict]] = []

    def apply(self, now_ms: int, command) -> dict:
        self.advance(now_ms)
        match command:
            case Acquire():
                return self.acquire(command)
            case Release(key=key, owner=owner):
                self.settle(key)
                self.forget_ended(key, owner)
                return self.give_back([hold for hold in self.on(key) if hold["owner"] == owner], {"ok": True})
            case Renew(key=key, owner=owner, ttl_ms=ttl_ms):
                self.settle(key)
                self.forget_ended(key, owner)
                for hold in self.on(key):
                    if hold["owner"] == owner:
                        return self.hear_of(hold, ttl_ms)
                return {"ok": False, "reason": "not_held"}
            case ForceRelease(key=key, owner=owner):
                self.settle(key)
                taken = [hold for hold in self.on(key) if owner in (None, hold["owner"])]
                return self.give_back(taken, {"ok": True})
            case CancelWait():
                self.settle(command.key)
                return self.cancel(command)
            case DropWaiters(node=node, boot_kept=kept):
                dropped = [wait for wait in self.line if wait["node"] == node and wait["boot"] != kept]
                return self.leave(dropped, {"ok": True})
        raise AssertionError(command)

    def advance(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.events = []
        late = []
        swept = 0
        while swept + len(self.events) < self.swept_max:
            waits = sorted((wait["deadline_ms"], wait["id"]) for wait in self.line if self.is_late(wait))
            holds = sorted((hold["expires_ms"], hold["token"]) for hold in self.holds if self.has_ended(hold))
            if waits:
                gone = next(wait for wait in self.line if wait["id"] == waits[0][1])
                self.line.remove(gone)
                late.append(gone)
            elif holds:
                gone = next(hold for hold in self.holds if hold["token"] == holds[0][1])
                self.holds.remove(gone)
            else:
                break
            swept += 1
            late += self.move(gone["key"])
        for _, id in sorted((wait["deadline_ms"], wait["id"]) for wait in late):
            self.events.append((id, {"ok": False, "reason": "timeout"}))

    def is_late(self, wait: dict) -> bool:
        return wait["deadline_ms"] <= self.now_ms

    def has_ended(self, hold: dict) -> bool:
        return hold["expires_ms"] is not None and hold["expires_ms"] <= self.now_ms

    def on(self, key: str) -> list[dict]:
        """The holds that count."""
        return [hold for hold in self.holds if hold["key"] == key and not self.has_ended(hold)]

    def settle(self, key: str) -> None:
        """What has ended and stands first goes; the line moves."""
        if any(self.has_ended(hold) for hold in self.holds) or any(self.is_late(wait) for wait in self.line):
            self.serve(key)

    def forget_ended(self, key: str, owner: str) -> None:
        """A hold that has ended goes when its owner asks about it."""
        self.holds = [
            hold for hold in self.holds if (hold["key"], hold["owner"]) != (key, owner) or not self.has_ended(hold)
        ]

    def acquire(self, command: Acquire) -> dict:
        self.settle(command.key)
        self.forget_ended(command.key, command.owner)
        for hold in self.on(command.key):
            if hold["owner"] == command.owner and (hold["exclusive"] or not command.exclusive):
                return self.hear_of(hold, command.ttl_ms)
        ahead = [wait for wait in self.line if wait["key"] == command.key and not self.is_late(wait)]
        if not any(command.exclusive or other["exclusive"] for other in self.on(command.key) + ahead):
            return self.grant(
                command.key, command.owner, command.exclusive, command.node, command.ttl_ms, command.waiter
            )
        if not command.wait_ms:
            return {"ok": False, "reason": "locked"}
        wait = {
            "id": command.waiter,
            "key": command.key,
            "owner": command.owner,
            "exclusive": command.exclusive,
            "ttl_ms": command.ttl_ms,
            "deadline_ms": self.now_ms + command.wait_ms,
            "node": command.node,
            "boot": command.boot,
        }
        if self.closes_a_cycle(wait):
            return {"ok": False, "reason": "deadlock"}
        self.line.append(wait)
        return {"waiting": True}

    def grant(self, key, owner, exclusive, node, ttl_ms, waiter) -> dict:
        self.last_token += 1
        self.holds.append(
            {
                "token": self.last_token,
                "key": key,
                "owner": owner,
                "exclusive": exclusive,
                "node": node,
                "expires_ms": None,
                "waiter": waiter,
            }
        )
        return self.hear_of(self.holds[-1], ttl_ms, waiter)

    def hear_of(self, hold: dict, ttl_ms: int | None, waiter: str = "") -> dict:
        if ttl_ms is not None:
            hold["expires_ms"] = self.now_ms + ttl_ms
        hold["waiter"] = waiter
        return {
            "ok": True,
            "token": hold["token"],
            "mode": "exclusive" if hold["exclusive"] else "shared",
            "expires_ms": hold["expires_ms"],
        }

    def give_back(self, holds: list[dict], answer: dict) -> dict:
        if not holds:
            return {"ok": False, "reason": "not_held"}
        self.holds = [hold for hold in self.holds if hold not in holds]
        self.serve(holds[0]["key"])
        return answer

    def leave(self, waits: list[dict], answer: dict) -> dict:
        self.line = [wait for wait in self.line if wait not in waits]
        for key in dict.fromkeys(wait["key"] for wait in waits):
            self.serve(key)
        self.events += [(wait["id"], {"ok": False, "reason": "cancelled"}) for wait in waits]
        return answer

    def cancel(self, command: CancelWait) -> dict:
        waits = [wait for wait in self.line if wait["id"] == command.waiter]
        if waits and self.is_late(waits[0]):
            self.line.remove(waits[0])
            self.serve(waits[0]["key"])
            self.events.append((command.waiter, {"ok": False, "reason": "timeout"}))
        elif waits:
            return self.leave(waits, {"ok": True, "cancelled": "waiting"})
        self.settle(command.key)
        self.forget_ended(command.key, command.owner)
        for hold in self.on(command.key):
            if hold["owner"] == command.owner and hold["waiter"] == command.waiter:
                return self.give_back([hold], {"ok": True, "cancelled": "granted"})
        return {"ok": True, "cancelled": None}

    def serve(self, key: str) -> None:
        for wait in self.move(key):
            self.events.append((wait["id"], {"ok": False, "reason": "timeout"}))

    def move(self, key: str) -> list[dict]:
        """Grant in order; gives those that were met in the line after their time."""
        late = []
        while (first := next((hold for hold in self.holds if hold["key"] == key), None)) and self.has_ended(first):
            self.holds.remove(first)
        while True:
            line = [wait for wait in self.line if wait["key"] == key]
            if not line:
                return late
            head = line[0]
            if self.is_late(head):
                self.line.remove(head)
                late.append(head)
                continue
            if any(head["exclusive"] or hold["exclusive"] for hold in self.on(key)):
                return late
            self.line.remove(head)
            answer = self.grant(
                key, head["owner"], head["exclusive"], head["node"], head["ttl_ms"], head["id"]
            )
            self.events.append((head["id"], answer))
            for again in line[1:]:
                same = again["owner"] == head["owner"] and (head["exclusive"] or not again["exclusive"])
                if same and not self.is_late(again):
                    self.line.remove(again)
                    self.events.append((again["id"], self.hear_of(self.holds[-1], again["ttl_ms"])))

    def blockers(self, wait: dict) -> set[str]:
        """Owners that `wait` waits for: conflicting holders and conflicting requests ahead of it."""
        place = self.line.index(wait) if wait in self.line else len(self.line)
        return {
            other["owner"]
            for other in self.on(wait["key"])
            + [w for w in self.line[:place] if w["key"] == wait["key"] and not self.is_late(w)]
            if wait["exclusive"] or other["exclusive"]
        }

    def closes_a_cycle(self, wait: dict) -> bool:
        for earlier in self.line:
            same = (earlier["owner"], earlier["key"]) == (wait["owner"], wait["key"])
            if same and not self.is_late(earlier) and (earlier["exclusive"] or not wait["exclusive"]):
                return False
        reached = self.blockers(wait)
        while True:
            waits = [wait for wait in self.line if wait["owner"] in reached and not self.is_late(wait)]
            further = set().union(*map(self.blockers, waits), reached)
            if wait["owner"] in further:
                return True
            if further == reached:
                return False
            reached = further
