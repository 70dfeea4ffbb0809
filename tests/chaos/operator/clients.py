"""Clients that write while commands run, what was acknowledged to them, and the check that it is still there.

Every write has a key of its own and an `Idempotency-Key`, and the client sends it again until it is acknowledged or
given up. The rule of the file: everything in the ledger was acknowledged; nothing is known about other writes.
"""

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tests.cluster.tools import call

#: The group that keeps each kind of write.
KINDS = ("cache", "queue", "lock")
#: Between two writes of one client: a run of ten minutes shall be looked through in seconds.
PAUSE_SECONDS = 0.1
TRIES_MAX = 12
TRY_SECONDS_MAX = 3.0
#: Answers that say "not now"; anything else that is no `ok` is a finding.
PASSING_STATUSES = frozenset({429, 503, 504})
#: Messages of one queue: as many as one peek shows.
MESSAGES_PER_QUEUE = 100
ROWS_PER_PAGE = 1_000
#: How long a look at what is there is tried again while groups elect.
LOOK_SECONDS_MAX = 30.0

Ledger = dict[str, set[str]]


class Clients:
    """One writer for each kind, through all nodes in turn."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = list(ports)
        #: Answers that no client should get.
        self.surprises: list[str] = []
        self.unknown = 0
        self._acknowledged: Ledger = {kind: set() for kind in KINDS}
        self._lock = threading.Lock()
        self._may_write, self._stop = threading.Event(), threading.Event()
        self._idle = {kind: threading.Event() for kind in KINDS}
        self._threads = [threading.Thread(target=self._write, args=(kind,), daemon=True) for kind in KINDS]

    def __enter__(self) -> "Clients":
        self._may_write.set()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """No client writes within the block. A write that was not acknowledged before is given up."""
        self._may_write.clear()
        for idle in self._idle.values():
            assert idle.wait(timeout=30), "a client hangs"
        try:
            yield
        finally:
            self._may_write.set()

    def acknowledged(self) -> Ledger:
        """What was acknowledged until now."""
        with self._lock:
            return {kind: set(keys) for kind, keys in self._acknowledged.items()}

    def claim_only(self, ledger: Ledger) -> None:
        """From now on nothing is claimed of what was acknowledged beyond `ledger`. While quiet."""
        with self._lock:
            self._acknowledged = {kind: set(keys) for kind, keys in ledger.items()}

    def _write(self, kind: str) -> None:
        for number in itertools.count():
            while not self._may_write.is_set() and not self._stop.is_set():
                self._idle[kind].set()
                self._may_write.wait(0.1)
            if self._stop.is_set():
                return
            self._idle[kind].clear()
            self._write_one(kind, number)
            self._stop.wait(PAUSE_SECONDS)

    def _write_one(self, kind: str, number: int) -> None:
        path, body, key = _request(kind, number)
        headers = {"Idempotency-Key": f"{kind}-{number}"}
        for attempt in range(TRIES_MAX):
            if self._stop.is_set() or not self._may_write.is_set():
                break
            port = self.ports[(number + attempt) % len(self.ports)]
            try:
                status, answer = call(port, path, body, headers=headers, timeout_seconds=TRY_SECONDS_MAX)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                self._stop.wait(0.1)
                continue
            if status == 200 and answer["ok"] is True:
                with self._lock:
                    self._acknowledged[kind].add(key)
                return
            if status not in PASSING_STATUSES:
                self.surprises.append(f"{path} of {key} on port {port}: {status} {answer}")
            self._stop.wait(0.1)
        self.unknown += 1


def _request(kind: str, number: int) -> tuple[str, dict[str, Any], str]:
    """Path, body and key of one write."""
    if kind == "cache":
        return "/cache/put", {"key": f"line-{number}", "val": number}, f"line-{number}"
    if kind == "lock":
        return "/lock/acquire", {"key": f"lock-{number}", "client_id": "operator"}, f"lock-{number}"
    queue = f"load-{number // MESSAGES_PER_QUEUE}"
    return "/queue/enq", {"queue": queue, "value": number}, f"{queue}/{number}"


def missing(port: int, ledger: Ledger) -> list[str]:
    """What of the ledger a node does not give back.

    Raises:
        AssertionError: it did not answer in time.
    """
    lost = _missing_lines(port, ledger["cache"]) + _missing_locks(port, ledger["lock"])
    return lost + _missing_messages(port, ledger["queue"])


def _missing_lines(port: int, keys: set[str]) -> list[str]:
    lost = []
    ordered = sorted(keys)
    for begin in range(0, len(ordered), ROWS_PER_PAGE):
        some = ordered[begin : begin + ROWS_PER_PAGE]
        for item in look(port, "/cache/mget", {"keys": some})["items"]:
            if item["val"] != int(item["key"].removeprefix("line-")):
                lost.append(f"{item['key']} (the cache has {item['val']!r})")
    return lost


def _missing_locks(port: int, keys: set[str]) -> list[str]:
    found, after = set(), ""
    while True:
        page = look(port, f"/lock/list?limit={ROWS_PER_PAGE}&prefix=lock-&after={after}")
        found |= {row["key"] for row in page["locks"]}
        after = page["next"]
        if not after:
            return sorted(keys - found)


def _missing_messages(port: int, keys: set[str]) -> list[str]:
    found = set()
    for queue in sorted({key.partition("/")[0] for key in keys}):
        path = f"/queue/peek?queue={queue}&state=ready&limit={MESSAGES_PER_QUEUE}"
        found |= {f"{queue}/{message['payload']['value']}" for message in look(port, path)["messages"]}
    return sorted(keys - found)


def look(port: int, path: str, body: Any = None) -> Any:
    """The answer to a question that changes nothing, asked again while it is refused for now."""
    until = time.monotonic() + LOOK_SECONDS_MAX
    while True:
        try:
            status, answer = call(port, path, body, timeout_seconds=TRY_SECONDS_MAX)
        except (OSError, http.client.HTTPException) as error:
            status, answer = 0, repr(error)
        if status == 200:
            return answer
        assert time.monotonic() < until, f"{path} on port {port}: {status} {answer}"
        time.sleep(0.1)
