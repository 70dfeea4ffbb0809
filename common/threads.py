"""Threads of a node's own, what is handed to them, and the clock that they wait by.

The rule of the file: what may wait for a disk that hangs runs on such a thread. It is a daemon: unlike the threads of
the event loop's executor, it cannot keep the process from ending. A simulation has threads of its own, which take
turns as its seed says; so nothing else of ours begins a thread or makes a queue between threads.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")


class Queue(Protocol[Item]):
    """Things for another thread, first in, first out. Errors are those of the standard library."""

    def put(self, item: Item, /) -> None:
        """Wait for room where the queue is full."""

    def put_nowait(self, item: Item, /) -> None:
        """Raises queue.Full."""

    def get(self, *, timeout: float | None = None) -> Item:
        """Wait for something; for `timeout` seconds at most, then it raises queue.Empty."""

    def get_nowait(self) -> Item:
        """Raises queue.Empty."""

    def full(self) -> bool: ...


class Event(Protocol):
    """Something that happens once, and for which threads can wait."""

    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for `timeout` seconds at most. Whether it is set."""


class Threads(Protocol):
    """Where threads come from."""

    def start(self, name: str, body: Callable[[], None]) -> None:
        """Run `body` on a thread of its own, which cannot keep the process from ending."""

    def queue(self, size_max: int = 0) -> Queue[Any]:
        """An empty one, of `size_max` things at most; 0 for any number."""

    def event(self) -> Event:
        """One that is not set."""

    def monotonic(self) -> float:
        """Seconds of a clock that never runs backward, to measure what a thread takes."""


class _Unbounded(queue.SimpleQueue[Any]):
    """Faster than a bounded one, because it needs no lock of Python's."""

    __slots__ = ()

    def full(self) -> bool:
        return False


class SystemThreads:
    """Those of the operating system."""

    def start(self, name: str, body: Callable[[], None]) -> None:
        threading.Thread(target=body, name=name, daemon=True).start()

    def queue(self, size_max: int = 0) -> Queue[Any]:
        return queue.Queue(size_max) if size_max else _Unbounded()

    def event(self) -> Event:
        return threading.Event()

    def monotonic(self) -> float:
        return time.monotonic()


#: Whoever is given no others uses these.
SYSTEM_THREADS: Threads = SystemThreads()
