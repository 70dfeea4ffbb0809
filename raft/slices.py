"""Long work on the event loop, a slice at a time, so that heartbeats and clients pass between the slices."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

#: How long the event loop works before it lets others run, and how long it rests then: half of its time is left
#: to clients, and a loop that sleeps now and then is woken sooner on a busy machine than one that never does.
SLICE_SECONDS = 0.002
PAUSE_SECONDS = 0.002


async def in_slices(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The same items; after each `SLICE_SECONDS` of making them the loop is given away for a moment. Time that the
    consumer spends waiting counts as given away only if it sleeps itself."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SLICE_SECONDS
    for item in items:
        yield item
        if loop.time() >= until:
            await asyncio.sleep(PAUSE_SECONDS)
            until = loop.time() + SLICE_SECONDS


class Pace:
    """Work that many tasks do, all of them together at most `slice_max` before others run. Tasks that are woken at
    one moment would else all run before the loop looks at anything else."""

    def __init__(self, slice_max: int) -> None:
        self._slice_max = slice_max
        self._spent = 0
        self._line = asyncio.Lock()

    async def wait_turn(self) -> None:
        """Return when something may be done; first come, first served."""
        async with self._line:
            if self._spent >= self._slice_max:
                await asyncio.sleep(0)
                self._spent = 0

    def spend(self, things: int) -> None:
        """So much was done, with no await since `wait_turn`."""
        self._spent += things
