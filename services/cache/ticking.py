"""A look at something every now and then, for as long as somebody wants to know."""

import asyncio
from collections.abc import Callable

#: Between two looks.
TICK_SECONDS = 0.25


class Ticker:
    """Calls `look` every `TICK_SECONDS` until it returns False; `start` begins again. No task, so nothing to stop."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Nothing happens where it runs already."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._handle = None
        if self._look():
            self.start()
