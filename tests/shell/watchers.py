"""Clients that watch the cache: each follows one prefix, over one node after the other.

A connection may break, be silent for too long, or be left. Then the watcher comes again, at any node, and mostly says
what it was told last. What it is told is judged in the end (`tests.shell.cache_judge`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from services.cache.node import changes
from services.world.world import CLIENT_PORT
from tests.shell.cache_record import Notice, Watch
from tests.shell.client import PATIENCE_S, RETRY_S, Client
from tests.shell.wire import Hung, Wire

if TYPE_CHECKING:
    from tests.shell.plan import Plan
    from tests.shell.run import Run

PREFIXES = ("", "", "key", "tagged", "key0.")
#: How long a watcher stays, and how long it stands silence: nodes break it after ten seconds.
STAYS_S = (0.5, 5.0, 30.0)
SILENCE_S, SILENCE_HEALED_S = (1.0, 12.0, 12.0), 3.0
#: After an event it may read no more for so long, that often.
SLOW, SLOW_S = 0.02, 1.0
#: It comes again as one that knows nothing that often.
ANEW = 0.1
#: Phases of a run in which nobody comes any more.
LATE = frozenset({"equal", "stopped", "judged"})


@contextmanager
def watch_bounds(plan: Plan) -> Iterator[None]:
    """Nodes keep as few changes as the plan says: what happens beyond comes about in a short run, too."""
    before = changes.HISTORY_MAX, changes.BUFFER_MAX
    changes.HISTORY_MAX, changes.BUFFER_MAX = plan.history_max, plan.buffer_max
    try:
        yield
    finally:
        changes.HISTORY_MAX, changes.BUFFER_MAX = before


class Watcher(Client):
    """See the module."""

    def __init__(self, run: Run, name: str) -> None:
        super().__init__(run, name)
        self.watch = Watch(name, self.random.choice(PREFIXES))
        run.caches.watches.append(self.watch)
        #: What it was told last, to go on from there.
        self._last_id = ""

    async def _run(self) -> None:
        while self.run.phase not in LATE:
            try:
                await self._watch_once()
            except (OSError, Hung):
                self.world.count("cache: a watcher's stream broke")
            self.watch.is_current = False
            await asyncio.sleep(self.random.uniform(*RETRY_S))

    async def _watch_once(self) -> None:
        """One connection. Raises: OSError (TimeoutError is one), Hung."""
        node = self.world.nodes[self.any_node()]
        if self._last_id and self.random.random() < ANEW:
            self._last_id = ""
        if not self._last_id:
            self.watch.last.clear()
            self.watch.told.append(Notice("lost", self.now_us))
        async with asyncio.timeout(PATIENCE_S):
            wire = await Wire.connect(node.host.address, CLIENT_PORT)
        try:
            headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
            async with asyncio.timeout(PATIENCE_S):
                answer = await wire.request("GET", f"/cache/watch?prefix={self.watch.prefix}", headers=headers)
            self.world.count(f"cache: watch {answer.status}")
            if answer.status == 200:
                await self._follow(wire)
        finally:
            wire.abort()

    async def _follow(self, wire: Wire) -> None:
        """To the end of the stream, of this watcher's patience or of its stay."""
        random, name = self.random, ""
        until_us = self.now_us + round(random.choice(STAYS_S) * 1_000_000)
        async with aclosing(wire.events()) as events:
            while self.now_us < until_us or self.run.healed_us is not None:
                silence_s = random.choice(SILENCE_S) if self.run.healed_us is None else SILENCE_HEALED_S
                async with asyncio.timeout(silence_s):
                    event = await anext(events, None)
                if event is None:
                    break
                if event[1]:
                    name = event[1]
                    self._on_event(*event)
                if random.random() < SLOW and self.run.healed_us is None:
                    await self._read_nothing(wire, random.random() * SLOW_S)
            else:
                return
        if name != "end":
            self.run.fail(f"{self.name}: a stream ended behind {name!r}, and its end was not told")

    async def _read_nothing(self, wire: Wire, seconds: float) -> None:
        transport = wire.transport
        assert transport is not None
        self.world.count("cache: a watcher reads late")
        transport.pause_reading()
        await asyncio.sleep(seconds)
        transport.resume_reading()

    def _on_event(self, told_id: str, name: str, data: dict[str, Any]) -> None:
        watch, position = self.watch, (0, 0)
        if name != "end":
            self._last_id = told_id
            index, _, number = told_id.partition("-")
            position = int(index), int(number)
        known = {field: data[field] for field in ("key", "version", "previous_version", "reason") if field in data}
        watch.told.append(Notice(name, self.now_us, position, **known))
        self.world.count(f"cache: told {name} {data.get('reason', '')}")
        if name == "ready":
            watch.is_current = True
        elif name == "gap":
            watch.last.clear()
        elif name != "end":
            watch.last[data["key"]] = data["version"]
