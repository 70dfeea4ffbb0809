"""Leases to fill that were given to this life of the node and that nobody here has: they go back.

A node that stops gives back what it can for as long as the group still takes it; whoever stops the node waits for its
background tasks.

The rule of this file: a lease stays owed until the log has decided. Giving back is repeated for as long as its
outcome is not known, and may be repeated without harm: it names one telling of the lease (`FillLease.told`), and a
lease that was told again meanwhile, here or to another node, stays with whoever was told. What piles up while the
group cannot answer goes back in as few entries as it fits into.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Protocol

from common.logs import get_logger
from raft.errors import RaftError
from services.cache.commands import GIVEN_BACK_MAX, GiveBack
from services.cache.fill_leases import FillLease
from services.envelope import encode_command

#: Pause before another try, where the outcome of one is not known or it was certainly not done.
RETRY_S = 0.2

logger = get_logger("services.cache.giving_back")


class Node(Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    #: Why nothing is accepted any more; None while the node serves.
    closed: RaftError | None

    def propose(self, command: bytes) -> Awaitable[object]: ...


class OwedLeases:
    """All leases that one node has to give back.

    Args:
        spawn: runs a coroutine to its end, whatever becomes of the request that began it.
    """

    def __init__(self, node: Node, spawn: Callable[..., asyncio.Task]) -> None:
        self._node = node
        self._spawn = spawn
        #: By key, the one that has waited longest first.
        self._owed: dict[str, FillLease] = {}
        self._task: asyncio.Task | None = None

    def __len__(self) -> int:
        return len(self._owed)

    def add(self, lease: FillLease) -> None:
        self._owed[lease.key] = lease
        if self._task is None or self._task.done():
            self._task = self._spawn(self._give_back())

    def forget(self, key: str) -> None:
        """The lease of `key` has ended, or somebody has it after all."""
        self._owed.pop(key, None)

    def clear(self) -> None:
        """Another machine: what is owed is found out anew."""
        self._owed.clear()

    async def _give_back(self) -> None:
        while self._owed:
            leases = tuple(islice(self._owed.values(), GIVEN_BACK_MAX))
            command = GiveBack(tuple((each.key, each.token, each.told) for each in leases))
            try:
                await self._node.propose(encode_command(command))
            except RaftError as error:
                if error is self._node.closed:
                    logger.info("leases go with the node; their time ends them", leases=len(self), error=str(error))
                    return
                await asyncio.sleep(RETRY_S)
            else:
                for lease in leases:
                    if self._owed.get(lease.key) == lease:
                        del self._owed[lease.key]
