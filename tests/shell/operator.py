"""Who changes the members of all groups while everything goes on: one change at a time, asked again until it is done.

One server at a time may be without its disk or out of a group: docs/membership.md promises nothing for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from services.world.node import Node
from tests.shell.client import Client, NotDone, Unknown

if TYPE_CHECKING:
    from tests.shell.run import Run

#: A change may take so long at the node that is asked (`raft.membership`).
CHANGE_S = 8.0
#: Pause before a change is asked again, or looked at.
AGAIN_S = 0.1


class Operator(Client):
    """See the module."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, "operator")
        self.is_busy = False
        #: The node that changes are about; it is not asked itself.
        self._about = ""

    def any_node(self) -> str:
        return self.random.choice([name for name in self.world.nodes if name != self._about])

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this; nothing else may be under way."""
        self.is_busy = True
        self.process.start(work, self.name).add_done_callback(self._on_done)

    def _on_done(self, work: asyncio.Task[None]) -> None:
        self.is_busy = False
        self._on_end(work)

    # What it does

    async def replace(self, node: Node) -> None:
        """A node's disk is lost: its groups take it in anew."""
        await self._remove(node)
        await self._add(node)

    async def move_out_and_in(self, node: Node, away_s: float) -> None:
        """A node leaves its groups, runs all the same, and comes back."""
        await self._remove(node)
        await asyncio.sleep(away_s)
        await self._add(node)

    async def join(self, node: Node) -> None:
        """A node that was none of them becomes one."""
        await self._add(node)

    async def _remove(self, node: Node) -> None:
        await self._change(node, {"remove": {"id": node.name}})
        self.world.tell(f"{node.name} was removed")
        self.world.count("member removed")

    async def _add(self, node: Node) -> None:
        await self._change(node, {"add": {"id": node.name, "address": self.world.address(node.name)}})
        self.world.tell(f"{node.name} was added")
        while True:
            await asyncio.sleep(AGAIN_S)
            if await self._is_voter(node):
                break
        self.world.tell(f"{node.name} is a voter")
        self.world.count("member added")

    async def _change(self, node: Node, body: dict[str, Any]) -> None:
        self._about = node.name
        while True:
            try:
                told = await self.ask("/admin/members", body, wait_s=CHANGE_S)
                if told["ok"] or told["reason"] == "not_a_member":
                    return
                self.world.count(f"told {told['reason']}")
            except (NotDone, Unknown):
                pass
            await asyncio.sleep(AGAIN_S)

    async def _is_voter(self, node: Node) -> bool:
        try:
            told = await self.ask_get("/admin/members")
        except (NotDone, Unknown):
            return False
        ours = [each for group in told["groups"].values() for each in group["members"] if each["id"] == node.name]
        voters = [each for each in ours if each["role"] == "voter" and each["bound"]]
        return len(voters) == len(self.run.plan.groups)
