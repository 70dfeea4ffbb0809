"""Answers that must wait although their entry is applied: what a service with leases asks of its driver.

In a group with read leases (`raft.core.leases`) an answer is given only when no node can serve any more what the
entry replaced. The service knows which nodes that may be; the core knows how far each has applied and when its
lease ends; the driver brings the two together and lets the leader publish the outcome.
"""

from collections.abc import Callable
from typing import Protocol

from raft.core.types import Index, NodeId

IsDone = Callable[[NodeId, Index], bool]


class Withheld(Protocol):
    """The leader's account of who must be waited for. Hears of entries by `RaftNode.subscribe`."""

    def begin(self) -> None:
        """This node begins to lead: what earlier leaders waited for is covered by the wait after an election."""

    def end(self) -> None:
        """This node leads no more."""

    def waiting(self, is_done: IsDone) -> tuple[tuple[Index, ...], frozenset[NodeId]]:
        """The entries whose answers are held, and the nodes that they wait for. `is_done(node, index)` says whether
        a node has applied the entry at `index` or can serve nothing older any more."""
