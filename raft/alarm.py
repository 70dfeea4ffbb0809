"""When a node looks at its clock next."""

import asyncio
from collections.abc import Callable

#: A node looks at its clock at least this often, if only to notice that it stood still itself.
WAKE_MS = 100


class Alarm:
    """Calls `wake` once the time that was last `set` has come.

    Most deadlines are put off before they come: a follower's by each heartbeat, many times in a second. That costs
    nothing here; the timer that runs finds out when it fires, and goes on to the new time.
    """

    def __init__(self, clock_ms: Callable[[], int], wake: Callable[[], None]) -> None:
        self._clock_ms = clock_ms
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._due_ms = 0
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer fires, at or before `_due_ms`.
        self._timer_ms = 0

    def set(self, due_ms: int, now_ms: int) -> None:
        """Wake at `due_ms` and at no other time; a millisecond from `now_ms` at the earliest."""
        self._due_ms = max(due_ms, now_ms + 1)
        if self._timer is not None:
            if self._timer_ms <= self._due_ms:
                return
            self._timer.cancel()
        self._start(now_ms)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, now_ms: int) -> None:
        self._timer_ms = self._due_ms
        self._timer = self._loop.call_later((self._due_ms - now_ms) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_ms = self._clock_ms()
        if now_ms < self._due_ms:
            self._start(now_ms)
        else:
            self._wake()
