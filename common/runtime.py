"""Running a node's process: the event loop, the signals, the tasks that must not die, and how late the loop is.

The rule of the file: a background task has one owner, and one that dies takes the process down. A node that limps on
without its run loop or its disk thread is worse than a node that is gone.
"""

import asyncio
import contextlib
import errno
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from time import perf_counter
from typing import Any, TypeVar

from common.logs import SparseLog, get_logger

#: How often the lateness of the event loop is measured, in seconds.
LAG_INTERVAL_SECONDS = 0.25

#: How long a thread may keep the interpreter while another waits for it. Python's own 5 ms would delay the loop at
#: each of its system calls while a thread restores a snapshot.
SWITCH_INTERVAL_SECONDS = 0.001

#: Allocations before a young collection, young ones before a middle one, middle ones before a full one. A node makes
#: very few cycles, and with Python's own 700 the collector would look for them several times a millisecond under
#: load.
GARBAGE_THRESHOLDS = (20_000, 20, 50)

#: No descriptor is left, in this process or on the whole machine.
DESCRIPTOR_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE})

Result = TypeVar("Result")

log = get_logger("common.runtime")
sparse_log = SparseLog(log)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run `main` to its end and return its exit status; on uvloop if there is one (not on Windows)."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.get_loop().set_exception_handler(on_loop_error)
        return runner.run(main)


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that the loop could give to nobody. If no descriptor is left to accept connections, this happens again
    for every connection that waits, so the log says it only from time to time, in one line."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in DESCRIPTOR_ERRNOS:
        sparse_log.error(
            "no descriptor is left for a connection",
            error=str(error),
            advice="raise the limit of open files (ulimit -n)",
        )
    else:
        loop.default_exception_handler(context)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def freeze_garbage() -> None:
    """Hide everything that start-up made from the garbage collector: its full runs stall the loop by milliseconds for
    each 100,000 objects. Call this once the node is wired."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


@contextlib.contextmanager
def garbage_at_rest() -> Iterator[None]:
    """Keep the garbage collector from running while many lasting objects are made: reading back a log makes an object
    for each entry, and every collection meanwhile would look at all of them again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Background:
    """The owner of tasks that outlive what began them, such as a request."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Tasks that run."""
        return len(self._tasks)

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task called `name` until it ends or `stop` is called."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.keep(task)
        return task

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Own a task that runs already."""
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def stop(self) -> None:
        """Cancel what still runs and wait for its end."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)


class Tasks(Background):
    """The owner of a process's background tasks.

    `failed` is done as soon as one of them raises, or `fail` is called; whoever runs the process waits for it and
    exits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """The process must not survive this; the first such error counts."""
        if not self.failed.done():
            self.failed.set_result(error)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        super()._on_done(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        log.critical("background task died", task=task.get_name(), exc_info=error)
        self.fail(error)


def settle(future: asyncio.Future[Result], result: Result, error: BaseException | None = None) -> None:
    """Give a future its outcome, the error where there is one. Where it has one already, who waited may have gone."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def on_stop_signals(callback: Callable[[], None]) -> None:
    """Call `callback` in the running loop at SIGINT and SIGTERM, each time one arrives."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:
            # Windows: the handler runs between bytecodes of the main thread, so the loop must be woken.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))


async def measure_loop_lag(
    observe: Callable[[float], None], *, interval_seconds: float = LAG_INTERVAL_SECONDS
) -> None:
    """Report for ever how many seconds too late the loop wakes a sleeper."""
    while True:
        due = perf_counter() + interval_seconds
        await asyncio.sleep(interval_seconds)
        observe(max(0.0, perf_counter() - due))
