"""The answer to each `Idempotency-Key`, kept in the replicated state.

    unknown ──carried out──> kept ──ten minutes, or too many──> unknown
       │                      ^  └──its effect was taken back──> unknown
       └──has to wait──> waiting ──decided──┘

The rule of the file: what takes back an effect takes back its answer. So the answer to a request that may wait stays
tied to its waiter: where that is withdrawn, even after it was granted, the key is unknown again.

Answers are kept for ten minutes of cluster time from the first use of their keys. Where they would take more room
than the bounds give, the oldest go early; `forgotten_early` counts them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from common.wire import WireError, pack, unpack
from services.replicated.limits import Limit, Limits

KEEP_MS = 600_000
#: What a row costs beside its key and its answer.
ROW_OVERHEAD_BYTES = 400
#: Limits of every group.
LIMITS = (
    Limit(
        "idempotency_keys_max", 100_000, 1, 10_000_000,
        "Kept answers; beyond it the oldest go before their time.",
    ),
    Limit(
        "idempotency_bytes_max", 64 << 20, 6 << 20, 1 << 40,
        "Bytes of kept answers with their keys, and 400 for each; beyond it the oldest go before their time.",
    ),
)  # fmt: skip
#: A longer answer is not kept: whoever asks again is told so. The longest that there is, a popped item, fits.
ANSWER_BYTES_MAX = 5 << 20
#: Rows whose time is over that one entry forgets.
FORGOTTEN_PER_ENTRY_MAX = 64
#: Rows that go before their time for one new: more than the longest answer may need. Only a limit that was lowered
#: takes longer.
ROOM_PER_ENTRY_MAX = 20_000
#: What a machine decides about a waiter whose request was withdrawn.
CANCELLED = "cancelled"
#: Stands for an answer that was too long. What the command did is done.
_TOO_LONG = {"ok": True, "answer": "not_kept"}


class Row(NamedTuple):
    """One key's answer, in the order of a snapshot."""

    #: Tells one request from another.
    fingerprint: bytes
    #: msgpack.
    answer: bytes
    #: Cluster time of the key's first use, milliseconds.
    since_ms: int
    #: Id of the waiter whose answer it is; None where the request cannot be withdrawn.
    waiter: str | None = None


class IdempotencyTable:
    """Answers by key, oldest first."""

    def __init__(self, limits: Limits | None = None) -> None:
        """`limits` are the group's, `LIMITS` among them; None: the defaults."""
        self._limit = (Limits(LIMITS) if limits is None else limits).in_force
        self._rows: OrderedDict[str, Row] = OrderedDict()
        #: Keys by the waiter that their answers are tied to.
        self._waiters: dict[str, dict[str, None]] = {}
        #: Sum over all rows, overhead included.
        self.bytes = 0
        #: At this node since its start, not replicated: requests that were answered from the table, and answers that
        #: had to go before their time.
        self.hits = 0
        self.forgotten_early = 0

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: str, time_ms: int) -> Row | None:
        """What is kept under the key; None where it is new, or was used too long ago."""
        row = self._rows.get(key)
        if row is None:
            return None
        if time_ms - row.since_ms >= KEEP_MS:
            self.forget(key)
            return None
        return row

    def keep(
        self, key: str, fingerprint: bytes, answer: dict[str, Any], *, waiter: str | None, time_ms: int
    ) -> None:
        """Give this answer to whoever sends the key again. An answer that is too long is replaced by a word."""
        self._put(key, Row(fingerprint, _packed(answer), time_ms, waiter))
        keys_max, bytes_max = self._limit["idempotency_keys_max"], self._limit["idempotency_bytes_max"]
        for _ in range(ROOM_PER_ENTRY_MAX):
            if len(self._rows) <= keys_max and self.bytes <= bytes_max:
                return
            self.forget(next(iter(self._rows)))
            self.forgotten_early += 1

    def used(self) -> dict[str, int]:
        """How much of the limits is taken."""
        return {"idempotency_keys_max": len(self._rows), "idempotency_bytes_max": self.bytes}

    def settle(self, waiter: str, answer: dict[str, Any]) -> None:
        """The waiter has this answer from now on; where it was cancelled, its keys are unknown again."""
        keys = tuple(self._waiters.get(waiter, ()))
        if not keys:
            return
        if answer.get("reason") == CANCELLED:
            for key in keys:
                self.forget(key)
            return
        # Once: an owner that asks again and again under new keys ties them all to its place.
        packed = _packed(answer)
        for key in keys:
            self._put(key, self._rows[key]._replace(answer=packed))

    def forget(self, key: str) -> None:
        """What is kept under the key goes."""
        row = self._rows.pop(key)
        self.bytes -= _size(key, row)
        if row.waiter is not None:
            keys = self._waiters[row.waiter]
            del keys[key]
            if not keys:
                del self._waiters[row.waiter]

    def forget_old(self, time_ms: int) -> None:
        """Take back the room of rows whose time is over, a bounded number at a time."""
        for _ in range(FORGOTTEN_PER_ENTRY_MAX):
            if not self._rows:
                return
            key, row = next(iter(self._rows.items()))
            if time_ms - row.since_ms < KEEP_MS:
                return
            self.forget(key)

    def snapshot(self) -> tuple[int, Iterator[list[Any]]]:
        """The number of rows, and the rows."""
        rows = list(self._rows.items())
        return len(rows), ([key, *row] for key, row in rows)

    def restore(self, rows: Iterable[list[Any]]) -> None:
        """Fill an empty table."""
        for key, *fields in rows:
            self._put(key, Row(*fields))

    def _put(self, key: str, row: Row) -> None:
        """Set a row, in its old place where there is one."""
        before = self._rows.get(key)
        if before is not None:
            self.bytes -= _size(key, before)
        self._rows[key] = row
        self.bytes += _size(key, row)
        if row.waiter is not None:
            self._waiters.setdefault(row.waiter, {})[key] = None


def _packed(answer: dict[str, Any]) -> bytes:
    try:
        packed = pack(answer)
    except WireError:
        return pack(_TOO_LONG)
    return packed if len(packed) <= ANSWER_BYTES_MAX else pack(_TOO_LONG)


def _size(key: str, row: Row) -> int:
    return len(key) + len(row.answer) + ROW_OVERHEAD_BYTES


def answer_of(row: Row) -> dict[str, Any]:
    """The answer that was kept."""
    kept: dict[str, Any] = unpack(row.answer)
    return kept
