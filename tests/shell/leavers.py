"""Clients that ask once all is mended, and leave before they are told.

The rule of the file: what a node has written on a client's connection may have reached the client, as far as that
node can know, and nothing else has. So it is known exactly which clients may have an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.shell.client import Client, NotDone, Unknown
from tests.shell.wire import message

if TYPE_CHECKING:
    from tests.shell.run import Run

#: What a request takes then, or somewhat more.
REQUEST_S = 0.006
#: A node that stands still for less than an election takes meets all at once that came meanwhile.
STILL_S = (0.005, 0.03)


class Leaver(Client):
    """It asks one node for one thing."""

    def __init__(self, run: Run, name: str, node: str) -> None:
        super().__init__(run, name)
        self.node = node

    def any_node(self) -> str:
        return self.node

    @property
    def may_know(self) -> bool:
        """Whether its node has written an answer by now."""
        return any(each.written for each in self.tries)

    async def ask_and_leave(self, path: str, body: dict[str, Any], leaves_s: float, key: str = "") -> None:
        head, data = message("POST", path, json.dumps(body).encode(), {"Idempotency-Key": key} if key else {})
        with suppress(TimeoutError, NotDone, Unknown):
            async with asyncio.timeout(leaves_s):
                await self._exchange(self.node, head, data)


async def stand_still(run: Run, names: Iterable[str], client: Client, after_s: float = 0.0) -> None:
    """One of these nodes does nothing for a moment, somewhat later than that."""
    node = run.world.nodes[client.random.choice(tuple(names))]
    await asyncio.sleep(after_s + client.random.random() * REQUEST_S)
    node.freeze()
    await asyncio.sleep(client.random.uniform(*STILL_S))
    node.thaw()


def leadership(run: Run, group: str) -> tuple[str, int]:
    """Who leads the group, and in which term."""
    leader = run.world.leader(group)
    if leader is None or leader.here is None:
        return "", 0
    return leader.name, leader.here.nodes[group].core.state.term
