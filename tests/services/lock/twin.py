"""The lock machine's dumb twin: two lists, no index, every question answered by looking at everything."""

from services.lock.commands import Acquire, CancelWait, DropWaiters, ForceRelease, Release, Renew


class TwinLocks:
    """Same commands, same answers (of a refusal only the reason), same events, same state."""

    def __init__(self) -> None:
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
                return self.give_back([hold for hold in self.on(key) if hold["owner"] == owner], {"ok": True})
            case Renew(key=key, owner=owner, ttl_ms=ttl_ms):
                for hold in self.on(key):
                    if hold["owner"] == owner:
                        return self.hear_of(hold, ttl_ms)
                return {"ok": False, "reason": "not_held"}
            case ForceRelease(key=key, owner=owner):
                taken = [hold for hold in self.on(key) if owner in (None, hold["owner"])]
                return self.give_back(taken, {"ok": True})
            case CancelWait():
                return self.cancel(command)
            case DropWaiters(node=node, boot_kept=kept):
                dropped = [wait for wait in self.line if wait["node"] == node and wait["boot"] != kept]
                return self.leave(dropped, {"ok": True})
        raise AssertionError(command)

    def advance(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.events = []
        late = sorted(
            (wait["deadline_ms"], wait["id"]) for wait in self.line if wait["deadline_ms"] <= now_ms
        )
        late = [wait for _, id in late for wait in self.line if wait["id"] == id]
        ended = sorted(
            (hold["expires_ms"], hold["token"])
            for hold in self.holds
            if hold["expires_ms"] is not None and hold["expires_ms"] <= now_ms
        )
        ended = [hold for _, token in ended for hold in self.holds if hold["token"] == token]
        self.line = [wait for wait in self.line if wait not in late]
        self.holds = [hold for hold in self.holds if hold not in ended]
        for key in dict.fromkeys(gone["key"] for gone in late + ended):
            self.serve(key)
        for wait in late:
            self.events.append((wait["id"], {"ok": False, "reason": "timeout"}))

    def on(self, key: str) -> list[dict]:
        return [hold for hold in self.holds if hold["key"] == key]

    def acquire(self, command: Acquire) -> dict:
        for hold in self.on(command.key):
            if hold["owner"] == command.owner and (hold["exclusive"] or not command.exclusive):
                return self.hear_of(hold, command.ttl_ms)
        ahead = [wait for wait in self.line if wait["key"] == command.key]
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
        if waits:
            return self.leave(waits, {"ok": True, "cancelled": "waiting"})
        for hold in self.on(command.key):
            if hold["owner"] == command.owner and hold["waiter"] == command.waiter:
                return self.give_back([hold], {"ok": True, "cancelled": "granted"})
        return {"ok": True, "cancelled": None}

    def serve(self, key: str) -> None:
        while True:
            line = [wait for wait in self.line if wait["key"] == key]
            if not line or any(line[0]["exclusive"] or hold["exclusive"] for hold in self.on(key)):
                return
            head = line[0]
            self.line.remove(head)
            answer = self.grant(
                key, head["owner"], head["exclusive"], head["node"], head["ttl_ms"], head["id"]
            )
            self.events.append((head["id"], answer))
            for again in line[1:]:
                if again["owner"] == head["owner"] and (head["exclusive"] or not again["exclusive"]):
                    self.line.remove(again)
                    self.events.append((again["id"], self.hear_of(self.holds[-1], again["ttl_ms"])))

    def blockers(self, wait: dict) -> set[str]:
        """Owners that `wait` waits for: conflicting holders and conflicting requests ahead of it."""
        place = self.line.index(wait) if wait in self.line else len(self.line)
        return {
            other["owner"]
            for other in self.on(wait["key"]) + [w for w in self.line[:place] if w["key"] == wait["key"]]
            if wait["exclusive"] or other["exclusive"]
        }

    def closes_a_cycle(self, wait: dict) -> bool:
        for earlier in self.line:
            if (earlier["owner"], earlier["key"]) == (wait["owner"], wait["key"]) and (
                earlier["exclusive"] or not wait["exclusive"]
            ):
                return False
        reached = self.blockers(wait)
        while True:
            further = set().union(*(self.blockers(w) for w in self.line if w["owner"] in reached), reached)
            if wait["owner"] in further:
                return True
            if further == reached:
                return False
            reached = further
