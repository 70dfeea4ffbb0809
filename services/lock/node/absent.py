"""Requests that wait at a node which is gone: its clients' connections died with it, so nothing may be granted to
them.

A node ends those of its own earlier lives when it starts. While it is away, the leader ends them, once it has not
heard from the node for `waiter_gone_ms`. A node that was only cut off for so long tells its clients' requests to ask
anew (`services.lock.node.waiting`): they lose their places in line and nothing else.
"""

import asyncio
from contextlib import suppress
from typing import Protocol

from raft.errors import RaftError
from services.lock.replicated.commands import DropWaiters
from services.node.host import Host
from services.replicated.proposing import ProposingNode, propose

#: How often a leader looks whose node is silent.
LOOK_S = 0.5
#: Pause between tries while no leader can be reached.
RETRY_S = 0.5


class Node(ProposingNode, Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    id: str

    @property
    def leads(self) -> bool: ...

    def silence_ms(self, member: str) -> int | None: ...


async def clear_lines(here: Host, node: Node) -> None:
    """Runs as long as the node does."""
    await _drop_own(node, DropWaiters(here.node_id, here.boot))
    while True:
        await asyncio.sleep(LOOK_S)
        for absent in absent_nodes(node, here.settings.waiter_gone_ms):
            # Where it fails, look again before the next try: the node may be back by then.
            with suppress(RaftError):
                await _drop(node, DropWaiters(absent))


def absent_nodes(node: Node, gone_ms: int) -> list[str]:
    """Leader: the nodes at which requests wait, and that are no members or have been silent for `gone_ms`."""
    if not node.leads:
        return []
    waited_at = sorted({name for name, _ in node.machine.inner.lives} - {node.id})
    silences = ((name, node.silence_ms(name)) for name in waited_at)
    return [name for name, silence_ms in silences if silence_ms is None or silence_ms >= gone_ms]


async def _drop_own(node: Node, command: DropWaiters) -> None:
    """Until it is known to be done. To say it again does no harm: those lives do not come back."""
    while True:
        try:
            return await _drop(node, command)
        except RaftError:
            await asyncio.sleep(RETRY_S)


async def _drop(node: Node, command: DropWaiters) -> None:
    """As many entries as it takes. Raises: RaftError."""
    while (await propose(node, command))["more"]:
        pass
