"""Requests that wait at nodes when these are told to stop. Each is answered, whatever it is told: a client that finds
its connection broken instead knows nothing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.shell.client import Client, NotDone, Unknown
from tests.shell.wire import message

if TYPE_CHECKING:
    from tests.shell.run import Run

#: Longer than all that comes after.
WAIT_S = 30.0
#: After this all requests wait.
BEGUN_S = 0.1
QUEUE, KEY = "last", "last wait"
#: By group, what is asked and would be waited for.
WAITS: dict[str, tuple[str, dict[str, Any]]] = {
    "queue": ("/queue/deq", {"queue": QUEUE, "wait": WAIT_S}),
    "cache": ("/cache/get", {"key": KEY, "lease_ttl": 2 * WAIT_S, "wait": WAIT_S}),
}


class LastWait(Client):
    """One request at one node."""

    def __init__(self, run: Run, group: str, node: str) -> None:
        super().__init__(run, f"{group} waits at {node}")
        self.group, self.node = group, node
        #: It waits, or was answered: nothing keeps it from that.
        self.is_fine = True

    async def wait(self) -> None:
        path, body = WAITS[self.group]
        head, data = message("POST", path, json.dumps(body).encode())
        try:
            async with asyncio.timeout(WAIT_S):
                await self._exchange(self.node, head, data)
            self.world.count(f"a wait for {self.group} was answered")
        except NotDone:
            # It has no descriptor left for this client.
            pass
        except (Unknown, TimeoutError):
            self.is_fine = False


def begin_waits(run: Run) -> list[LastWait]:
    """One of each kind at each node. Of those for the cache, the first has the lease that the others wait for."""
    waits = [LastWait(run, group, node) for group in WAITS if group in run.plan.groups for node in run.world.nodes]
    for each in waits:
        each.process.start(each.wait(), each.name)
    return waits


def check_waits(run: Run, waits: list[LastWait]) -> None:
    """To be called once all nodes have stopped."""
    for each in waits:
        if not each.is_fine:
            run.fail(f"{each.name}, and was not answered when that stopped")
