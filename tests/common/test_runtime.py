"""common/runtime.py: the loop, the signals, and tasks whose death is heard."""

import asyncio
import errno
import os
import signal
import time
from types import SimpleNamespace

import pytest

from common import runtime
from common.logs import SparseLog
from common.runtime import Tasks, measure_loop_lag, on_loop_error, on_stop_signals, run, settle
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


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_that_nothing_can_be_accepted_is_one_line(number: int, monkeypatch: pytest.MonkeyPatch):
    """Goal: asyncio tells it for every connection that waits, 128 at a time, each with a traceback."""
    lines: list[dict] = []
    logger = SimpleNamespace(error=lambda event, **fields: lines.append(fields))
    monkeypatch.setattr(runtime, "sparse_log", SparseLog(logger))
    context = {"message": "socket.accept() failed", "exception": OSError(number, os.strerror(number))}

    for _ in range(128):
        on_loop_error(asyncio.get_running_loop(), context)

    assert ["ulimit -n" in line["advice"] for line in lines] == [True]
    assert "exc_info" not in lines[0]


async def test_what_else_the_loop_meets_is_told_as_ever(caplog: pytest.LogCaptureFixture):
    on_loop_error(asyncio.get_running_loop(), {"message": "a callback failed", "exception": KeyError("x")})

    assert [record.getMessage() for record in caplog.records] == ["a callback failed"]


async def test_a_future_is_settled_once() -> None:
    loop = asyncio.get_running_loop()
    told, failed, given_up = loop.create_future(), loop.create_future(), loop.create_future()
    settle(told, 1)
    settle(told, 2)
    settle(told, None, ValueError())
    assert told.result() == 1
    settle(failed, None, ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        failed.result()
    given_up.cancel()
    settle(given_up, 3)
    assert given_up.cancelled()
