"""What the lock machine tells: refusals, status, rows of a list, verdicts on a token.

Plain functions of holds and locks; they change nothing. Expiry times and deadlines are cluster time
(`expires_ms`, `deadline_ms`); the route turns them into seconds from now.
"""

from itertools import islice
from typing import Any

from services.lock.replicated.records import Hold, Lock, Waiter

#: Holders that a refusal or a row of a list shows; `holder_count` tells how many there are. Refusals are kept with
#: their idempotency keys, so they have to stay small.
HOLDERS_SHOWN_MAX = 16
#: Holders and waiters that a status shows.
STATUS_SHOWN_MAX = 1000

#: What the machine says to a command or a question, and rows of it.
Answer = dict[str, Any]


def holder(hold: Hold) -> Answer:
    return {
        "owner": hold.owner,
        "mode": hold.mode,
        "node": hold.node,
        "token": hold.token,
        "expires_ms": hold.expires_ms,
    }


def _shown(first: Hold, more: dict[str, Hold] | None, count: int, time_ms: int = 0) -> list[Answer]:
    shown = [holder(first)]
    if more:
        others = islice(more.values(), count - 1)
        shown.extend(holder(hold) for hold in others if not hold.has_ended(time_ms))
    return shown


def refusal(reason: str, lock: Lock | None, time_ms: int, asking: Hold | None = None) -> Answer:
    """Why an acquire was not granted: `current` is the holder with the lowest token, None where the key has come
    free. `asking` is what the requester itself holds of the key. A hold that has ended by `time_ms` and was not swept
    yet is not shown, but counted."""
    if lock is None or (first := lock.first) is None:
        return {
            "ok": False,
            "reason": reason,
            "current": None,
            "holders": [],
            "holder_count": 0,
            "queue_length": 0,
        }
    answer = {
        "ok": False,
        "reason": reason,
        "current": {"owner": first.owner, "mode": first.mode, "node": first.node},
        "holders": _shown(first, lock.more, HOLDERS_SHOWN_MAX, time_ms),
        "holder_count": lock.holder_count,
        "queue_length": lock.queue_length,
    }
    if asking is not None:
        answer["detail"] = (
            "You hold this lock in shared mode yourself; release it before you ask for the exclusive mode."
        )
    return answer


def status(key: str, lock: Lock | None) -> Answer:
    """One key in full: `held`, `mode`, `holders` lowest token first, `waiters` in the order of the line."""
    if lock is None or (first := lock.first) is None:
        return {
            "ok": True,
            "key": key,
            "held": False,
            "mode": None,
            "holders": [],
            "holder_count": 0,
            "waiters": [],
            "queue_length": 0,
        }
    return {
        "ok": True,
        "key": key,
        "held": True,
        "mode": first.mode,
        "holders": _shown(first, lock.more, STATUS_SHOWN_MAX),
        "holder_count": lock.holder_count,
        "waiters": [_waiter(waiter) for waiter in islice((lock.queue or {}).values(), STATUS_SHOWN_MAX)],
        "queue_length": lock.queue_length,
    }


def _waiter(waiter: Waiter) -> Answer:
    return {
        "owner": waiter.owner,
        "mode": waiter.mode,
        "node": waiter.node,
        "deadline_ms": max(listener.deadline_ms for listener in waiter.listeners),
    }


def summary(key: str, lock: Lock) -> Answer:
    """One row of a list."""
    first = lock.first
    assert first is not None, "a key that nobody holds is not listed"
    return {
        "key": key,
        "mode": first.mode,
        "holders": _shown(first, lock.more, HOLDERS_SHOWN_MAX),
        "holder_count": lock.holder_count,
        "queue_length": lock.queue_length,
    }


def verdict(hold: Hold | None, lock: Lock | None, key: str, token: int) -> Answer:
    """Whether a token still stands: `hold` is what the token names, `lock` what its key is now.

    `fenced` means that somebody was granted the key after the token; `not_held` that the hold has ended, or never
    was, and nobody has taken over.
    """
    if hold is not None and hold.key == key:
        return {"ok": True, "valid": True, "key": key, **holder(hold)}
    highest_token = 0
    if lock is not None:
        highest_token = max(held.token for held in lock.holds())
    if highest_token > token:
        return {"ok": False, "valid": False, "reason": "fenced", "highest_token": highest_token}
    return {"ok": False, "valid": False, "reason": "not_held"}
