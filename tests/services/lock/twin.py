"""The lock machine's dumb twin: two lists, no index, every question answered by looking at everything."""

from services.lock.commands import Acquire, CancelWait, CancelWaits, DropWaiters, ForceRelease, Release, Renew


class TwinLocks:
    """Same commands, same answers (of a refusal only the reason), same events, same state."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.last_token = 0
        #: Dicts of token, key, owner, exclusive, node, expires_ms, waiter, unheard; lowest token first.
        self.holds: list[dict] = []
        #: Dicts of id, key, owner, ttl_ms and requests; first come first. A request is a dict of id, exclusive,
        #: deadline_ms, node and boot.
        self.line: list[dict] = []
        #: What requests were told, and what was decided about places.
        self.events: list[tuple[str, dict]] = []
        self.decided: list[tuple[str, dict]] = []

    def apply(self, now_ms: int, command) -> dict:
        self.advance(now_ms)
        match command:
            case Acquire():
                return self.acquire(command)
            case Release(key=key, owner=owner, token=token):
                mine = [h for h in self.on(key) if h["owner"] == owner and token in (None, h["token"])]
                return self.give_back(mine, {"ok": True})
            case Renew(key=key, owner=owner, ttl_ms=ttl_ms, token=token):
                for hold in self.on(key):
                    if hold["owner"] == owner and token in (None, hold["token"]):
                        return self.hear_of(hold, ttl_ms)
                return {"ok": False, "reason": "not_held"}
            case ForceRelease(key=key, owner=owner):
                taken = [hold for hold in self.on(key) if owner in (None, hold["owner"])]
                return self.give_back(taken, {"ok": True})
            case CancelWait(key=key, owner=owner, waiter=waiter):
                return {"ok": True, "cancelled": self.cancel(key, owner, waiter)}
            case CancelWaits(waits=waits):
                return {"ok": True, "cancelled": sum(self.cancel(*wait) is not None for wait in waits)}
            case DropWaiters(node=node, boot_kept=kept):
                self.leave(
                    lambda wait, request: request["node"] == node and request["boot"] != kept,
                    {"ok": False, "reason": "cancelled"},
                )
                return {"ok": True, "more": False}
        raise AssertionError(command)

    def advance(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.events, self.decided = [], []
        late = sorted((soonest(wait), wait["id"]) for wait in self.line if soonest(wait) <= now_ms)
        ended = sorted(
            (hold["expires_ms"], hold["token"])
            for hold in self.holds
            if hold["expires_ms"] is not None and hold["expires_ms"] <= now_ms
        )
        gone = [hold["key"] for _, token in ended for hold in self.holds if hold["token"] == token]
        self.holds = [hold for hold in self.holds if (hold["expires_ms"], hold["token"]) not in ended]
        self.leave(
            lambda wait, request: request["deadline_ms"] <= now_ms,
            {"ok": False, "reason": "timeout"},
            order=[id for _, id in late],
            moved=gone,
        )

    def on(self, key: str) -> list[dict]:
        return [hold for hold in self.holds if hold["key"] == key]

    def acquire(self, command: Acquire) -> dict:
        for hold in self.on(command.key):
            if hold["owner"] == command.owner and (hold["exclusive"] or not command.exclusive):
                if not command.waiter or not hold["unheard"]:
                    return self.hear_of(hold, command.ttl_ms)
                if command.ttl_ms is not None:
                    hold["expires_ms"] = self.now_ms + command.ttl_ms
                hold["unheard"].append(command.waiter)
                return {**granted(hold), "waiter": hold["waiter"]}
        ahead = [wait for wait in self.line if wait["key"] == command.key]
        if not any(command.exclusive or wants_exclusive(other) for other in self.on(command.key) + ahead):
            waiter = command.waiter
            unheard = [waiter] if waiter else []
            what = (command.key, command.owner, command.exclusive, command.node, command.ttl_ms)
            answer = self.grant(*what, waiter, unheard)
            self.events += [(waiter, answer)] if waiter else []
            return answer
        if not command.wait_ms:
            return {"ok": False, "reason": "locked"}
        request = {
            "id": command.waiter,
            "exclusive": command.exclusive,
            "deadline_ms": self.now_ms + command.wait_ms,
            "node": command.node,
            "boot": command.boot,
        }
        for wait in ahead:
            if wait["owner"] == command.owner and (wants_exclusive(wait) or not command.exclusive):
                wait["requests"].append(request)
                wait["ttl_ms"] = wait["ttl_ms"] if command.ttl_ms is None else command.ttl_ms
                return {"waiting": True, "waiter": wait["id"]}
        wait = {
            "id": command.waiter,
            "key": command.key,
            "owner": command.owner,
            "ttl_ms": command.ttl_ms,
            "requests": [request],
        }
        if self.closes_a_cycle(wait):
            return {"ok": False, "reason": "deadlock"}
        self.line.append(wait)
        return {"waiting": True}

    def grant(self, key, owner, exclusive, node, ttl_ms, waiter, unheard) -> dict:
        self.last_token += 1
        hold = {
            "token": self.last_token,
            "key": key,
            "owner": owner,
            "exclusive": exclusive,
            "node": node,
            "expires_ms": None if ttl_ms is None else self.now_ms + ttl_ms,
            "waiter": waiter,
            "unheard": unheard,
        }
        self.holds.append(hold)
        return granted(hold)

    def hear_of(self, hold: dict, ttl_ms: int | None) -> dict:
        if ttl_ms is not None:
            hold["expires_ms"] = self.now_ms + ttl_ms
        hold["waiter"], hold["unheard"] = "", []
        return granted(hold)

    def give_back(self, holds: list[dict], answer: dict) -> dict:
        if not holds:
            return {"ok": False, "reason": "not_held"}
        self.holds = [hold for hold in self.holds if hold not in holds]
        self.serve(holds[0]["key"])
        return answer

    def leave(self, is_gone, answer: dict, order=None, moved=()) -> None:
        """Take requests out of the line, serve the keys that this moves, then tell."""
        told = []
        ids = [wait["id"] for wait in self.line] if order is None else order
        for wait in [wait for id in ids for wait in self.line if wait["id"] == id]:
            gone = [request for request in wait["requests"] if is_gone(wait, request)]
            wait["requests"] = [request for request in wait["requests"] if request not in gone]
            if gone:
                told.append((wait["key"], wait["id"], gone, not wait["requests"]))
        self.line = [wait for wait in self.line if wait["requests"]]
        for key in dict.fromkeys([key for key, *_ in told] + list(moved)):
            self.serve(key)
        for _, id, gone, is_over in told:
            self.events += [(request["id"], answer) for request in gone]
            self.decided += [(id, answer)] if is_over else []

    def cancel(self, key: str, owner: str, waiter: str) -> str | None:
        waits = [wait for wait in self.line if (wait["key"], wait["owner"]) == (key, owner)]
        if any(request["id"] == waiter for wait in waits for request in wait["requests"]):
            before = len(self.line)
            self.leave(
                lambda wait, request: wait in waits and request["id"] == waiter,
                {"ok": False, "reason": "cancelled"},
            )
            ended = not any(wait["id"] == waits[0]["id"] for wait in self.line) and not waits[0]["requests"]
            assert before >= len(self.line)
            return "waiting" if ended else None
        for hold in self.on(key):
            if hold["owner"] == owner and waiter in hold["unheard"]:
                hold["unheard"].remove(waiter)
                if hold["unheard"]:
                    return None
                self.give_back([hold], {})
                self.decided.append((hold["waiter"], {"ok": False, "reason": "cancelled"}))
                return "granted"
        return None

    def serve(self, key: str) -> None:
        while True:
            line = [wait for wait in self.line if wait["key"] == key]
            if not line or any(wants_exclusive(line[0]) or hold["exclusive"] for hold in self.on(key)):
                return
            head = line[0]
            self.line.remove(head)
            answer = self.grant(
                key,
                head["owner"],
                wants_exclusive(head),
                head["requests"][-1]["node"],
                head["ttl_ms"],
                head["id"],
                [request["id"] for request in head["requests"]],
            )
            self.events += [(request["id"], answer) for request in head["requests"]]
            self.decided.append((head["id"], answer))

    def blockers(self, wait: dict) -> set[str]:
        """Owners that `wait` waits for: conflicting holders and conflicting requests ahead of it."""
        place = self.line.index(wait) if wait in self.line else len(self.line)
        return {
            other["owner"]
            for other in self.on(wait["key"]) + [w for w in self.line[:place] if w["key"] == wait["key"]]
            if wants_exclusive(wait) or wants_exclusive(other)
        }

    def closes_a_cycle(self, wait: dict) -> bool:
        reached = self.blockers(wait)
        while True:
            further = set().union(*(self.blockers(w) for w in self.line if w["owner"] in reached), reached)
            if wait["owner"] in further:
                return True
            if further == reached:
                return False
            reached = further


def wants_exclusive(place: dict) -> bool:
    """Of a hold, or of a place in line."""
    return place["exclusive"] if "exclusive" in place else any(each["exclusive"] for each in place["requests"])


def soonest(wait: dict) -> int:
    return min(request["deadline_ms"] for request in wait["requests"])


def granted(hold: dict) -> dict:
    return {
        "ok": True,
        "token": hold["token"],
        "mode": "exclusive" if hold["exclusive"] else "shared",
        "expires_ms": hold["expires_ms"],
    }
