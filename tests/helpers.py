"""What tests of several parts share: waiting for a state with a bound, a clock that a test turns, a served app."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from common.listener import Limits, ListenerRunner

#: How often a state is looked at again, in seconds.
POLL_SECONDS = 0.005
#: How long a state is waited for, in seconds. Only a test that fails waits so long; slow machines need the room.
WITHIN_SECONDS = 30.0


async def eventually(predicate: Callable[[], Any], within_s: float = WITHIN_SECONDS) -> Any:
    """Wait until `predicate()` (awaited where it is a coroutine function) is true, and return what it answered.

    Raises:
        AssertionError: it was still false after `within_s` seconds; the text holds its last answer.
    """
    deadline = monotonic() + within_s
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert monotonic() < deadline, f"not within {within_s} s: {predicate!r} last answered {answer!r}"
        await asyncio.sleep(POLL_SECONDS)


class ManualClock:
    """A `common.clock.Clock` that moves only when the test says so."""

    def __init__(self, now_ms: int = 1_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, milliseconds: int) -> None:
        assert milliseconds >= 0, "no clock of ours runs backward"
        self.now_ms += milliseconds


class _Server(TestServer):
    """Serves as a node does."""

    def __init__(self, app: web.Application, limits: Limits, refused: list[str]) -> None:
        super().__init__(app)
        self._limits = limits
        self._refused = refused

    async def _make_runner(self, **options: Any) -> ListenerRunner:
        return ListenerRunner(self.app, self._limits, count_refused=self._refused.append, **options)


@asynccontextmanager
async def serving(
    app: web.Application, *, refused: list[str] | None = None, **limits: Any
) -> AsyncIterator[TestClient]:
    """`app` on a loopback port behind a listener of ours, and a client for it. `limits` are those of the listener,
    and `refused` takes the words for what it refuses."""
    bounds = Limits(**{"connections_max": 1_000, "connections_per_address_max": 1_000, **limits})
    async with TestClient(_Server(app, bounds, [] if refused is None else refused)) as client:
        yield client
