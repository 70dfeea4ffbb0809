"""Threads of simulated processes: they block in virtual time, one runs at a time, and a switch happens only there.

A thread is a greenlet. What blocks it (a queue, an event, a disk) lets the world go on and comes back at a moment of
true time. So the code that nodes run on threads runs here as it is. What takes long may also be called from a
process's event loop: then that loop stands still for so long, as a real one would.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it has types, and does not say so

from common.runtime import settle
from services.world.loop import Process, WorldLoop

Item = TypeVar("Item")

#: How long it takes until a thread runs that may run, in microseconds.
SWITCH_US = (1, 40)


class Thread(greenlet):  # type: ignore[misc]  # see its import
    """A thread of a process."""

    def __init__(self, process: Process, name: str, body: Callable[[], None]) -> None:
        super().__init__(body)
        self.process = process
        self.name = name
        self.gr_context = process.context.copy()
        #: Number of its waits: what would end an earlier one comes too late.
        self.waits = 0


class SimulatedThreads:
    """All threads of a world; `of(process)` is what a process has of them (`common.threads.Threads`)."""

    def __init__(self, loop: WorldLoop) -> None:
        self._loop = loop
        loop.run_on_thread = self._run_call
        #: Told `(process, seconds)` where an event loop called what blocks.
        self.on_blocked_loop: Callable[[Process, float], None] = lambda process, seconds: None
        #: Threads of processes that are no more: their code must not run on, not even to clean up.
        self._alive: dict[Thread, None] = {}

    def of(self, process: Process) -> ProcessThreads:
        return ProcessThreads(self, process)

    def pause(self, seconds: float) -> None:
        """Whoever calls this goes on so much later."""
        thread = getcurrent()
        if isinstance(thread, Thread):
            self.block(round(seconds * 1_000_000))
            return
        process = self._loop.process
        process.busy_until_us = max(process.busy_until_us, self._loop.now_us) + round(seconds * 1_000_000)
        self.on_blocked_loop(process, seconds)

    def start(self, process: Process, name: str, body: Callable[[], None]) -> None:
        thread = Thread(process, name, body)
        self._alive[thread] = None
        self._go_on(thread, thread.waits, self._loop.random.randint(*SWITCH_US))

    def block(self, until_us: int | None) -> bool:
        """Let the world go on until this thread is woken or so much time has passed; whether it was woken."""
        thread = getcurrent()
        assert isinstance(thread, Thread), "an event loop would wait here for ever"
        if until_us is not None:
            self._go_on(thread, thread.waits, until_us, False)
        woken: bool = thread.parent.switch()
        return woken

    def wake(self, thread: Thread, waits: int) -> None:
        """It was woken from that wait."""
        self._go_on(thread, waits, self._loop.random.randint(*SWITCH_US))

    def _go_on(self, thread: Thread, waits: int, delay_us: int, woken: bool = True) -> None:
        self._loop.after(delay_us, thread.process.when_running, lambda: self._switch(thread, waits, woken))

    def _switch(self, thread: Thread, waits: int, woken: bool) -> None:
        if thread.waits != waits or thread.dead:
            return
        thread.waits += 1
        thread.parent = getcurrent()
        self._loop.events += 1
        thread.switch(woken) if waits else thread.switch()
        if thread.dead:
            self._alive.pop(thread, None)

    def _run_call(self, process: Process, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        def run() -> None:
            try:
                result, error = call(), None
            except BaseException as raised:
                result, error = None, raised
            process.call_soon(settle, future, result, error)

        self.start(process, "executor", run)


class ProcessThreads:
    """Implements `common.threads.Threads` for one process."""

    def __init__(self, threads: SimulatedThreads, process: Process) -> None:
        self._threads = threads
        self._process = process

    def start(self, name: str, body: Callable[[], None]) -> None:
        self._threads.start(self._process, name, body)

    def queue(self, size_max: int = 0) -> SimulatedQueue[Any]:
        return SimulatedQueue(self._threads, size_max)

    def event(self) -> SimulatedEvent:
        return SimulatedEvent(self._threads)

    def monotonic(self) -> float:
        return self._process.time()


class _Waiters:
    """Threads that wait for the same, first come, first woken."""

    def __init__(self, threads: SimulatedThreads) -> None:
        self._threads = threads
        self._waiting: deque[tuple[Thread, int]] = deque()

    def wait(self, timeout: float | None) -> bool:
        thread = getcurrent()
        assert isinstance(thread, Thread), "an event loop would wait here for ever"
        place = (thread, thread.waits)
        self._waiting.append(place)
        woken = self._threads.block(None if timeout is None else round(timeout * 1_000_000))
        if not woken and place in self._waiting:
            self._waiting.remove(place)
        return woken

    def wake_one(self) -> None:
        if self._waiting:
            self._threads.wake(*self._waiting.popleft())

    def wake_all(self) -> None:
        while self._waiting:
            self.wake_one()


class SimulatedQueue(Generic[Item]):
    """See `common.threads.Queue`."""

    def __init__(self, threads: SimulatedThreads, size_max: int) -> None:
        self._items: deque[Item] = deque()
        self._size_max = size_max
        self._takers = _Waiters(threads)
        self._putters = _Waiters(threads)

    def full(self) -> bool:
        return 0 < self._size_max <= len(self._items)

    def put(self, item: Item) -> None:
        while self.full():
            self._putters.wait(None)
        self.put_nowait(item)

    def put_nowait(self, item: Item) -> None:
        if self.full():
            raise queue.Full
        self._items.append(item)
        self._takers.wake_one()

    def get(self, timeout: float | None = None) -> Item:
        while not self._items:
            if not self._takers.wait(timeout) and not self._items:
                raise queue.Empty
        return self.get_nowait()

    def get_nowait(self) -> Item:
        if not self._items:
            raise queue.Empty
        item = self._items.popleft()
        self._putters.wake_one()
        return item


class SimulatedEvent:
    """See `common.threads.Event`."""

    def __init__(self, threads: SimulatedThreads) -> None:
        self._is_set = False
        self._waiters = _Waiters(threads)

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._waiters.wake_all()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            self._waiters.wait(timeout)
        return self._is_set
