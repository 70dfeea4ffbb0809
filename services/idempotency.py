"""The first answer to each `Idempotency-Key`, kept in the replicated state.

Keys are forgotten ten minutes of cluster time after they were first used, or earlier, the oldest first, where
there are more than a hundred thousand. A request that waits (for a lock) has no answer yet: its place is kept by
its waiter id and filled in when the wait is decided; a cancelled wait is forgotten, so that its client may ask
again.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from common.wire import pack, unpack

KEYS_MAX = 100_000
KEEP_MS = 600_000
#: What a machine says to a waiter whose request was withdrawn.
CANCELLED = "cancelled"

# key -> (fingerprint of the request, packed answer, first used at, waiter id or None)
_Row = tuple[bytes, bytes, int, str | None]


class IdempotencyTable:
    """Answers by key, oldest first."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._waiters: dict[str, str] = {}
        #: Requests that were answered from the table at this node since its start; not replicated.
        self.hits = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def has_waiters(self) -> bool:
        return bool(self._waiters)

    def find(self, key: str, fingerprint: bytes) -> dict[str, Any] | None:
        """The saved answer; a refusal where the key was used for another request; None where it is new."""
        row = self._rows.get(key)
        if row is None:
            return None
        self.hits += 1
        if row[0] != fingerprint:
            return {"ok": False, "reason": "idempotency_key_reused"}
        answer = unpack(row[1])
        if row[3] is not None:
            answer["waiter"] = row[3]
        return answer

    def keep(
        self, key: str, fingerprint: bytes, answer: dict[str, Any], *, waiter: str | None, time_ms: int
    ) -> None:
        self._rows[key] = (fingerprint, pack(answer), time_ms, waiter)
        if waiter is not None:
            self._waiters[waiter] = key
        if len(self._rows) > KEYS_MAX:
            self._drop_oldest()

    def settle(self, waiter: str, answer: dict[str, Any]) -> None:
        """The wait was decided: this is the answer from now on."""
        key = self._waiters.pop(waiter, None)
        if key is None:
            return
        if answer.get("reason") == CANCELLED:
            del self._rows[key]
        else:
            fingerprint, _, time_ms, _ = self._rows[key]
            self._rows[key] = (fingerprint, pack(answer), time_ms, None)

    def forget_old(self, time_ms: int) -> None:
        while self._rows:
            _, _, since_ms, _ = next(iter(self._rows.values()))
            if time_ms - since_ms < KEEP_MS:
                return
            self._drop_oldest()

    def snapshot(self) -> tuple[int, Iterator[list]]:
        """The number of rows, and the rows."""
        rows = list(self._rows.items())
        return len(rows), ([key, *row] for key, row in rows)

    def restore(self, rows: Iterable[list]) -> None:
        self._rows = OrderedDict(
            (key, (fingerprint, answer, since_ms, waiter))
            for key, fingerprint, answer, since_ms, waiter in rows
        )
        self._waiters = {row[3]: key for key, row in self._rows.items() if row[3] is not None}

    def _drop_oldest(self) -> None:
        _, (_, _, _, waiter) = self._rows.popitem(last=False)
        if waiter is not None:
            self._waiters.pop(waiter, None)
