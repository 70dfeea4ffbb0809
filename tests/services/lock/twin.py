"""The lock machine's dumb twin: two lists, no index, every question answered by looking at everything."""

from services.lock.replicated.commands import (
    Acquire,
    CancelWait,
    CancelWaits,
    DropWaiters,
    ForceRelease,
    Release,
    Renew,
)


class TwinLocks:
    """Same commands, same answers (of a refusal only the reason), same events, same state.

    One entry sweeps so much; what is left counts for nobody, and moves with the next command about its key."""

    def __init__(self, swept_max: int = 1_000) -> None:
        self.swept_max = swept_max
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
                self.settle(key, owner)
                mine = [h for h in self.on(key) if h["owner"] == owner and token in (None, h["token"])]
                return self.give_back(mine, {"ok": True})
            case Renew(key=key, owner=owner, ttl_ms=ttl_ms, token=token):
                self.settle(key, owner)
                for hold in self.on(key):
                    if hold["owner"] == owner and token in (None, hold["token"]):
                        return self.hear_of(hold, ttl_ms)
                return {"ok": False, "reason": "not_held"}
            case ForceRelease(key=key, owner=owner):
                self.settle(key)
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
        late = []
        swept = 0
        while swept + len(self.events) < self.swept_max:
            waits = sorted((soonest(wait), wait["id"]) for wait in self.line if soonest(wait) <= now_ms)
            holds = sorted((hold["expires_ms"], hold["token"]) for hold in self.holds if self.has_ended(hold))
            if waits:
                gone = next(wait for wait in self.line if wait["id"] == waits[0][1])
                late.append(self.end_late(gone))
            elif holds:
                gone = next(hold for hold in self.holds if hold["token"] == holds[0][1])
                self.holds.remove(gone)
            else:
                break
            swept += 1
            late += self.move(gone["key"])
        for ended in sorted(late, key=lambda each: each[:2]):
            self.tell_late(ended)

    def has_ended(self, hold: dict) -> bool:
        return hold["expires_ms"] is not None and hold["expires_ms"] <= self.now_ms

    def is_late(self, wait: dict) -> bool:
        return soonest(wait) <= self.now_ms

    def live(self, wait: dict) -> list[dict]:
        """The requests of a place that count."""
        return [request for request in wait["requests"] if request["deadline_ms"] > self.now_ms]

    def end_late(self, wait: dict) -> tuple:
        """Take what is late out of a place: when, id, requests, and whether that was all."""
        when = soonest(wait)
        gone = [request for request in wait["requests"] if request not in self.live(wait)]
        wait["requests"] = self.live(wait)
        if not wait["requests"]:
            self.line.remove(wait)
        return (when, wait["id"], gone, not wait["requests"])

    def tell_late(self, ended: tuple) -> None:
        _, id, gone, is_over = ended
        answer = {"ok": False, "reason": "timeout"}
        self.events += [(request["id"], answer) for request in gone]
        self.decided += [(id, answer)] if is_over else []

    def on(self, key: str) -> list[dict]:
        """The holds that count."""
        return [hold for hold in self.holds if hold["key"] == key and not self.has_ended(hold)]

    def settle(self, key: str, owner: str | None = None) -> None:
        """What has ended and stands first goes, and so does the owner's hold where it has; the line moves."""
        if any(map(self.has_ended, self.holds)) or any(map(self.is_late, self.line)):
            self.serve(key)
        self.holds = [
            hold for hold in self.holds if (hold["key"], hold["owner"]) != (key, owner) or not self.has_ended(hold)
        ]

    def settle_place(self, key: str, owner: str) -> None:
        """What is late in the owner's place goes."""
        for wait in [wait for wait in self.line if (wait["key"], wait["owner"]) == (key, owner)]:
            if self.is_late(wait):
                ended = self.end_late(wait)
                self.serve(key)
                self.tell_late(ended)

    def acquire(self, command: Acquire) -> dict:
        self.settle(command.key, command.owner)
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
        self.settle_place(command.key, command.owner)
        for wait in [wait for wait in self.line if wait["key"] == command.key]:
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

    def leave(self, is_gone, answer: dict) -> None:
        """Take requests out of the line, serve the keys that this moves, then tell."""
        told = []
        for wait in list(self.line):
            gone = [request for request in wait["requests"] if is_gone(wait, request)]
            wait["requests"] = [request for request in wait["requests"] if request not in gone]
            if gone:
                told.append((wait["key"], wait["id"], gone, not wait["requests"]))
        self.line = [wait for wait in self.line if wait["requests"]]
        for key in dict.fromkeys(key for key, *_ in told):
            self.serve(key)
        for _, id, gone, is_over in told:
            self.events += [(request["id"], answer) for request in gone]
            self.decided += [(id, answer)] if is_over else []

    def cancel(self, key: str, owner: str, waiter: str) -> str | None:
        self.settle(key)
        self.settle_place(key, owner)
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
        self.settle(key, owner)
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
        for ended in self.move(key):
            self.tell_late(ended)

    def move(self, key: str) -> list[tuple]:
        """Grant in order; gives what was met in the line after its time."""
        late = []
        while (first := next((hold for hold in self.holds if hold["key"] == key), None)) and self.has_ended(first):
            self.holds.remove(first)
        while True:
            line = [wait for wait in self.line if wait["key"] == key]
            if line and self.is_late(line[0]):
                late.append(self.end_late(line[0]))
                continue
            if not line or any(wants_exclusive(line[0]) or hold["exclusive"] for hold in self.on(key)):
                return late
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
        ahead = [other for other in self.line[:place] if other["key"] == wait["key"] and self.live(other)]
        return {
            other["owner"]
            for other in self.on(wait["key"]) + ahead
            if self.wants_exclusive(wait) or self.wants_exclusive(other)
        }

    def wants_exclusive(self, place: dict) -> bool:
        """By those of its requests that count."""
        return wants_exclusive({**place, "requests": self.live(place)} if "requests" in place else place)

    def closes_a_cycle(self, wait: dict) -> bool:
        reached = self.blockers(wait)
        while True:
            waits = [wait for wait in self.line if wait["owner"] in reached and self.live(wait)]
            further = set().union(*map(self.blockers, waits), reached)
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
