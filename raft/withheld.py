"""Answers that must wait although their entry is applied: what a service with leases asks of its driver.

In a group with read leases (`raft.core.leases`) an answer is given only when no node can serve any more what the
entry replaced. The service knows which nodes that may be; the core knows how far each has applied and when its
lease ends; the driver brings the two together and lets the leader publish the outcome.
"""

from collections.abc import Callable
from typing import Protocol

from raft.core import leases
from raft.core.raft import RaftCore
from raft.core.types import Index, NodeId, Role

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


class Publisher:
    """What the driver does around its applies so that the service's account and the core's releases agree."""

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        #: First index of the leadership that an account is kept for; 0 where none is.
        self._led_from = 0

    def before_apply(self, withheld: Withheld | None) -> None:
        """A leadership that began or ended since the last apply begins or ends the account."""
        leads_from = self._core.term_start_index if self._core.state.role is Role.LEADER else 0
        if withheld is None or leads_from == self._led_from:
            return
        self._led_from = leads_from
        if leads_from:
            withheld.begin()
        else:
            withheld.end()

    def after_apply(self, withheld: Withheld | None) -> None:
        """Leader: publish what is released by now. Time releases, too: call it at every wake."""
        if withheld is None or not self._led_from:
            return
        held, wants = withheld.waiting(lambda node, index: leases.is_done(self._core, node, index))
        if leases.is_open(self._core):
            self._core.publish_release((self._core.applied_index, held), wants)
