"""common/runtime.py: the loop, the signals, and tasks whose death is heard."""

import asyncio
import os
import signal
import time

from common.runtime import Tasks, measure_loop_lag, on_stop_signals, run
from tests.helpers import eventually


def test_run_returns_the_exit_status():
    """Goal: a process's status is what its main coroutine answers."""

    async def main() -> int:
        await asyncio.sleep(0)
        return 3

    assert run(main()) == 3


async def test_a_task_that_dies_is_heard():
    """Goal: nothing limps: whoever runs the process learns of the death at once, with its cause."""
    tasks = Tasks()

    async def die() -> None:
        raise KeyError("gone")

    tasks.start("dying", die())

    error = await asyncio.wait_for(tasks.failed, 5)
    assert isinstance(error, KeyError)


async def test_tasks_that_end_or_are_stopped_are_no_failure():
    """Goal: a graceful stop does not look like a death."""
    tasks = Tasks()
    waiting = tasks.start("waiting", asyncio.Event().wait())
    ending = tasks.start("ending", asyncio.sleep(0))
    await ending

    await tasks.stop()

    assert waiting.cancelled()
    assert not tasks.failed.done()


async def test_a_second_death_does_not_hide_the_first():
    """Goal: the first cause is the one that is reported."""
    tasks = Tasks()

    async def die(error: Exception) -> None:
        raise error

    deaths = [tasks.start("first", die(KeyError())), tasks.start("second", die(ValueError()))]
    await asyncio.wait(deaths)

    assert isinstance(await asyncio.wait_for(tasks.failed, 5), KeyError)


async def test_stop_signals_reach_the_loop():
    """Goal: SIGTERM begins a graceful stop."""
    heard = []
    on_stop_signals(lambda: heard.append(True))
    try:
        os.kill(os.getpid(), signal.SIGTERM)

        await eventually(lambda: heard)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_blocked_loop_shows_as_lag():
    """Goal: the metric sees what a stall does to everybody."""
    lags: list[float] = []
    tasks = Tasks()
    tasks.start("lag", measure_loop_lag(lags.append, interval_seconds=0.001))
    await eventually(lambda: lags)
    lags.clear()

    time.sleep(0.05)  # noqa: ASYNC251 - the stall that is to be seen

    await eventually(lambda: lags)
    assert max(lags) >= 0.04
    await tasks.stop()
