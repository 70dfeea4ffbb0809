"""Clients that write while nodes die, and remember which writes were acknowledged."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.cluster.tools import ask, call


@dataclass(slots=True)
class Acknowledged:
    """What the cluster promised to keep. Filled by several threads, read when they are done."""

    #: Cache key to the value that was written.
    lines: dict[str, int] = field(default_factory=dict)
    #: Values of messages that were put into the queue.
    messages: set[str] = field(default_factory=set)
    #: When each write was acknowledged, by the monotonic clock.
    times: list[float] = field(default_factory=list)


def write_once(port: int, name: str, number: int, done: Acknowledged) -> bool:
    """Write one cache line and put one message through one node; True where both were acknowledged.

    Anything but an `ok` counts as unknown: it may have been done, and nothing is claimed about it.
    """
    key = f"{name}-{number}"
    try:
        status, answer = call(port, "/cache/put", {"key": key, "val": number}, timeout_seconds=3)
        if status != 200 or answer["ok"] is not True:
            return False
        done.lines[key] = number
        status, answer = call(port, "/queue/enq", {"queue": "load", "value": key}, timeout_seconds=3)
        if status != 200 or answer["ok"] is not True:
            return False
        done.messages.add(key)
    except (OSError, http.client.HTTPException):
        return False
    done.times.append(time.monotonic())
    return True


@contextmanager
def writers(ports: list[int], *, count: int = 4) -> Iterator[Acknowledged]:
    """`count` clients that write one after the other through all nodes in turn until the block ends."""
    done, stop = Acknowledged(), threading.Event()

    def write(client: int) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            if not write_once(ports[(client + number) % len(ports)], f"client{client}", number, done):
                # A node that is away refuses at once; without a pause a client would do nothing but ask it.
                stop.wait(0.02)

    threads = [threading.Thread(target=write, args=(client,), daemon=True) for client in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=10)
        assert not any(thread.is_alive() for thread in threads), "a client hangs"


def missing_lines(port: int, done: Acknowledged) -> list[str]:
    """The keys of acknowledged cache lines that a node does not give back as they were written."""
    return [
        key for key, value in done.lines.items() if ask(port, "/cache/get", {"key": key})[1]["val"] != value
    ]


def missing_messages(port: int, done: Acknowledged) -> set[str]:
    """The acknowledged messages that are not delivered when the queue is emptied through a node."""
    delivered: set[str] = set()
    while True:
        messages = ask(port, "/queue/deq", {"queue": "load", "max": 100, "visibility": 300})[1]["messages"]
        if not messages:
            return done.messages - delivered
        delivered |= {message["payload"]["value"] for message in messages}
