"""The event loop of the world: virtual time, and in it one queue of callbacks for each simulated process.

    WorldLoop   what asyncio runs on. Time goes on only when nothing is left to be done at this moment.
    Process     one operating system process: its callbacks, its timers, its clock; it can be frozen and killed

A process runs its callbacks as a real loop does: all that are ready, in their order, then what came meanwhile. A
little time passes between two such rounds, so what other processes send can arrive in between. A callback belongs to
the process in whose context it was made. A process that is killed never runs again, not even a `finally`: what it
left behind is kept until the world ends.

The rule of the file: the same calls in the same order give the same run. Nothing is ordered by an address or a hash.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, TypeVar, TypeVarTuple, Unpack

from services.world.clock import ComputerClock

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

#: How long one round of a process's callbacks takes, drawn anew for each, in microseconds.
ROUND_US = (5, 60)
#: A task, a future or a callback of which nobody has said otherwise is of this process.
_process: ContextVar[Process | None] = ContextVar("process", default=None)
_serial = count()


class State(Enum):
    RUNS = "runs"
    FROZEN = "frozen"
    DEAD = "dead"


class WorldTask(asyncio.Task[Result]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._number = next(_serial)
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number


class WorldFuture(asyncio.Future[Result]):
    """A future whose place in a set does not depend on its address."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        self._number = next(_serial)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class Timer(asyncio.TimerHandle):
    """A callback of a process for later."""

    __slots__ = ("is_over", "process")

    def __init__(self, when: float, callback: Callable[..., Any], arguments: Any, process: Process,
                 context: Context) -> None:  # fmt: skip
        super().__init__(when, callback, arguments, process.loop, context)
        self.process = process
        #: It is in the queue of its process, or never will be.
        self.is_over = False


class Process:
    """See the module. `WorldLoop.new_process` makes one."""

    def __init__(self, loop: WorldLoop, name: str, clock: ComputerClock) -> None:
        self.loop = loop
        self.name = name
        self.clock = clock
        self.state = State.RUNS
        self.context = copy_context()
        self.context.run(_process.set, self)
        self._ready: deque[asyncio.Handle] = deque()
        self._is_scheduled = False
        #: Until then it is at work and begins no round.
        self.busy_until_us = 0
        #: What came due while it was frozen.
        self._held: list[Callable[[], object]] = []
        #: Every task that has not ended, in the order of their making.
        self.tasks: dict[asyncio.Task[Any], None] = {}
        #: Called once it is dead.
        self.on_death: list[Callable[[], None]] = []
        #: What it left behind.
        self._remains: list[Any] = []

    def time(self) -> float:
        """Seconds of its monotonic clock."""
        return self.clock.monotonic_us(self.loop.now_us) / 1_000_000

    def now_ms(self) -> int:
        """Milliseconds of the clock that counts suspend (`common.clock.now_ms`)."""
        return self.clock.boottime_us(self.loop.now_us) // 1000

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> asyncio.Handle:
        """Run this in the process's next round."""
        handle = asyncio.Handle(callback, arguments, self.loop, self.context)
        self.add(handle)
        return handle

    def start(self, work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
        """Run `work` as a task of this process."""
        return self.context.run(lambda: self.loop.create_task(work, name=name))

    def add(self, handle: asyncio.Handle) -> None:
        if self.state is State.DEAD:
            self._remains.append(handle)
            return
        self._ready.append(handle)
        self._schedule()

    def when_running(self, call: Callable[[], object]) -> None:
        """Call this now; where the process is frozen, once it is not; where it is dead, never."""
        if self.state is State.RUNS:
            call()
        elif self.state is State.FROZEN:
            self._held.append(call)
        else:
            self._remains.append(call)

    def freeze(self) -> None:
        """SIGSTOP: it does nothing until `thaw`, and does not notice."""
        if self.state is State.RUNS:
            self.state = State.FROZEN

    def thaw(self) -> None:
        if self.state is State.FROZEN:
            self.state = State.RUNS
            held, self._held = self._held, []
            for call in held:
                call()
            self._schedule()

    def kill(self) -> None:
        """SIGKILL."""
        if self.state is State.DEAD:
            return
        self.state = State.DEAD
        self._remains.extend((tuple(self._ready), tuple(self._held), tuple(self.tasks)))
        self._ready.clear()
        self._held.clear()
        for call in self.on_death:
            call()

    def clock_changed(self) -> None:
        """Its clock was set: timers come due at other moments."""
        self.loop.look_again_at_timers(self)

    def _schedule(self) -> None:
        if not self._is_scheduled and self._ready and self.state is State.RUNS:
            self._is_scheduled = True
            loop = self.loop
            loop.at(max(loop.now_us, self.busy_until_us), self._round)

    def _round(self) -> None:
        loop, ready = self.loop, self._ready
        if self.state is not State.RUNS or self.busy_until_us > loop.now_us:
            self._is_scheduled = False
            self._schedule()
            return
        loop.note(f"{self.name} {len(ready)}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            loop.events += 1
            handle._run()
            if self.state is not State.RUNS:
                break
        loop.after_round(self)
        self.busy_until_us = max(self.busy_until_us, loop.now_us + int(loop.random.uniform(*ROUND_US)))
        self._is_scheduled = False
        self._schedule()


class WorldLoop(asyncio.AbstractEventLoop):
    """See the module. Sockets come from `network`, threads from `services.world.threads`, once they are there."""

    def __init__(self, random: Random) -> None:
        self.random = random
        #: True time.
        self.now_us = 0
        #: Callbacks that have run.
        self.events = 0
        #: Of everything that has happened, in its order: two runs with the same digest are the same run.
        self.digest = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._closed = False
        self._stopping = False
        #: What nobody handled: (process, context) as of asyncio's exception handlers.
        self.unhandled: list[tuple[str, dict[str, Any]]] = []
        #: Whom the network asks for connections and listeners.
        self.network: Any = None
        #: Runs a call on a thread of a process: (process, call, future).
        self.run_on_thread: Callable[[Process, Callable[[], Any], asyncio.Future[Any]], None] | None = None
        self.after_round: Callable[[Process], None] = lambda process: None
        #: Who is none of the simulated computers: the test, the nemesis.
        self.outside = Process(self, "outside", ComputerClock())

    @property
    def process(self) -> Process:
        """Whose code runs."""
        return _process.get() or self.outside

    # The world's own events

    def at(self, at_us: int, call: Callable[..., None], *arguments: Any) -> None:
        """Let this happen at that moment of true time; what is asked for first happens first."""
        self._scheduled += 1
        heappush(self._queue, (at_us, self._scheduled, call, arguments))

    def after(self, delay_us: int, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now_us + delay_us, call, *arguments)

    def note(self, what: str) -> None:
        """Something happened at this moment."""
        self.digest = zlib.crc32(b"%d %s" % (self.now_us, what.encode()), self.digest)

    def new_process(self, name: str, clock: ComputerClock | None = None) -> Process:
        return Process(self, name, clock or ComputerClock())

    def run_for(self, duration_us: int) -> None:
        """Let so much true time pass."""
        self.run_while(lambda: True, duration_us)

    def run_while(self, goes_on: Callable[[], bool], limit_us: int | None = None) -> bool:
        """Let things happen for as long as `goes_on`, asked after each; False where time ran out before."""
        if events._get_running_loop() is not None:
            raise RuntimeError(
                "time passes by calls of the test itself: make the test a plain function, and in a coroutine await"
            )
        until_us = None if limit_us is None else self.now_us + limit_us
        queue = self._queue
        events._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._finalize)
        try:
            while goes_on():
                if not queue or (until_us is not None and queue[0][0] > until_us):
                    if until_us is None:
                        raise RuntimeError("nothing is left that could happen, and something is still awaited")
                    self.now_us = until_us
                    return False
                at_us, _, call, arguments = heappop(queue)
                if at_us > self.now_us:
                    self.now_us = at_us
                call(*arguments)
            return True
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(None)

    def look_again_at_timers(self, process: Process) -> None:
        """Let each timer of a process come due by its clock as it is now."""
        for _, _, call, arguments in tuple(self._queue):
            if call == self._on_due and arguments[0].process is process and not arguments[0].is_over:
                self._set(arguments[0])

    def _set(self, timer: Timer) -> None:
        due_us = timer.process.clock.true_us_at(round(timer.when() * 1_000_000))
        # On a clock that stands still: far away, and looked at again once it goes on.
        self.at(max(self.now_us, due_us) if due_us is not None else self.now_us + 10**13, self._on_due, timer)

    def _on_due(self, timer: Timer) -> None:
        if timer.is_over or timer.cancelled():
            return
        due_us = timer.process.clock.true_us_at(round(timer.when() * 1_000_000))
        if due_us is None or due_us > self.now_us:
            # Another look is in the queue where the clock was set.
            return
        timer.is_over = True
        timer.process.when_running(lambda: timer.process.add(timer))

    def _process_of(self, context: Context) -> Process:
        return context.get(_process, None) or self.outside

    def _finalize(self, generator: Any) -> None:
        if not self._closed:
            self.create_task(generator.aclose())

    # asyncio.AbstractEventLoop

    def time(self) -> float:
        return self.process.time()

    def call_soon(
        self, callback: Callable[[Unpack[Arguments]], object], *arguments: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:  # fmt: skip
        if context is None:
            context = copy_context()
        process = self._process_of(context)
        handle = asyncio.Handle(callback, arguments, self, context)
        if not self._closed:
            process.add(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Arguments]], object], *arguments: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:  # fmt: skip
        if self._closed:
            raise RuntimeError("Event loop is closed")
        return self.call_soon(callback, *arguments, context=context)

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Arguments]], object], *arguments: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:  # fmt: skip
        return self.call_at(self.time() + delay, callback, *arguments, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Arguments]], object], *arguments: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:  # fmt: skip
        if context is None:
            context = copy_context()
        timer = Timer(when, callback, arguments, self._process_of(context), context)
        if not self._closed:
            self._set(timer)
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        """asyncio tells it of each; it stays in the queue until its time."""

    def create_future(self) -> asyncio.Future[Any]:
        return WorldFuture(loop=self)

    def create_task(
        self, work: Generator[Any, None, Result] | Coroutine[Any, Any, Result], *, name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Result]:  # fmt: skip
        process = self.process if context is None else self._process_of(context)
        options = {} if context is None else {"context": context}
        # Python numbers tasks without a name; the number would depend on what ran before this world.
        name = name or getattr(work, "__qualname__", "a task")
        task: asyncio.Task[Result] = WorldTask(work, loop=self, name=name, **options)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # of a process that was killed
        process.tasks[task] = None
        task.add_done_callback(process.tasks.pop)
        return task

    def run_in_executor(
        self, executor: Any, call: Callable[[Unpack[Arguments]], Result], *arguments: *Arguments
    ) -> asyncio.Future[Result]:
        assert executor is None, "the world has one executor"
        assert self.run_on_thread is not None
        future = self.create_future()
        self.run_on_thread(self.process, partial(call, *arguments), future)
        return future

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        pass

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return self.network.addresses_of(host, port)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.network.connect_for(sock, self.process, address)

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **options: Any
    ) -> Any:
        assert not options.get("ssl"), "the world speaks no TLS"
        return await self.network.create_connection(self.process, protocol_factory, host, port, sock)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return self.network.create_server(self.process, protocol_factory, host, port)

    def run_forever(self) -> None:
        self._stopping = False
        self.run_while(lambda: not self._stopping)

    def run_until_complete(self, work: Any) -> Any:
        future = asyncio.ensure_future(work, loop=self)
        self.run_while(lambda: not future.done())
        return future.result()

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._queue.clear()

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        pass

    def get_exception_handler(self) -> None:
        return None

    def set_exception_handler(self, handler: Any) -> None:
        pass

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._closed:
            self.unhandled.append((self.process.name, context))
