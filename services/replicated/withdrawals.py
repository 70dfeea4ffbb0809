"""What this node has to take back for clients that have gone: each until its outcome is known.

A withdrawal is replicated like any other command, and like any other it may find no leader or have an unknown
outcome. Then it is said again: to withdraw what is withdrawn already does nothing. Many go in one entry, so a change
of leader under which thousands of clients leave costs a few entries. A node that stops says what is left before it
leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from itertools import islice
from typing import Generic, Protocol, TypeVar

from common.logs import get_logger
from common.runtime import Background
from raft.errors import RaftError
from services.replicated.envelope import Command
from services.replicated.proposing import ProposingNode, propose

Item = TypeVar("Item")

#: What is withdrawn by one entry: with names of the longest legal length, half of what a command may have.
WITHDRAWN_PER_ENTRY_MAX = 500
#: What one node may have to withdraw. Beyond it the oldest is left to its own time, or to the leader.
WITHDRAWALS_MAX = 100_000
#: Pause before a withdrawal is said again.
RETRY_S = 0.2

logger = get_logger("services.replicated.withdrawals")


class Node(ProposingNode, Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    before_leaving: list[Callable[[], Awaitable[None]]]

    @property
    def closed(self) -> RaftError | None: ...


class Withdrawals(Generic[Item]):
    """The withdrawals of one kind at one node.

    Args:
        command_of: makes the command that withdraws these.
        background: where tasks that outlive a request are kept.
    """

    def __init__(
        self, node: Node, command_of: Callable[[tuple[Item, ...]], Command], background: Background
    ) -> None:
        self._node = node
        self._command_of = command_of
        self._background = background
        #: By name, in order of their arrival.
        self._items: dict[Hashable, Item] = {}
        self._running: asyncio.Task[None] | None = None
        node.before_leaving.append(self.flush)

    def __len__(self) -> int:
        """What is not known to be withdrawn yet."""
        return len(self._items)

    def add(self, name: Hashable, item: Item) -> None:
        """Withdraw this, now and again until that is known. It takes the place of another of its name."""
        self._items[name] = item
        if len(self._items) > WITHDRAWALS_MAX:
            del self._items[next(iter(self._items))]
        if self._running is None:
            self._running = self._background.start("withdraw", self._run())

    def forget(self, name: Hashable) -> None:
        """It has ended, or somebody has it after all."""
        self._items.pop(name, None)

    def clear(self) -> None:
        """What there is to withdraw is found out anew."""
        self._items.clear()

    async def flush(self) -> None:
        """Return when nothing is left, or the node takes no more."""
        while self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        try:
            await self._withdraw_all()
        finally:
            # Here and not when the loop says that this task is done: what is added in between would wait for ever.
            self._running = None

    async def _withdraw_all(self) -> None:
        while self._items:
            batch = tuple(islice(self._items.items(), WITHDRAWN_PER_ENTRY_MAX))
            command = self._command_of(tuple(item for _, item in batch))
            try:
                await propose(self._node, command, parting=True)
            except RaftError as error:
                if error is self._node.closed:
                    logger.info("not withdrawn before this node left", command=command.OP, count=len(self._items))
                    return
                await asyncio.sleep(RETRY_S)
                continue
            for name, item in batch:
                if self._items.get(name) == item:
                    del self._items[name]
