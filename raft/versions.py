"""Which kinds of entries the members of a group know, so that none is proposed that one of them could not carry out.

What a node knows is one whole number, the *version of the log*; what stands behind it only the service's code knows.
A group's version is in its replicated state and only ever rises: an entry raises it, and what is new waits for that.

    every member says that it knows 2 ──the leader's entry──> on its way ──applied──> in force: 2
      │ ^── one that is not connected, or knows less, keeps the version where it is
      └──from the entry on──> who knows less is not taken in, nor made a voter

The rule of the file: whether all members know a version, and the entry that raises to it, are one step of the leader,
and so are whether a node knows enough, and the configuration that takes it in. In between the other could happen.
"""

from collections.abc import Callable
from typing import Protocol

from raft.applier import Applier
from raft.core.errors import ConfigurationBusy, ConfigurationRefused
from raft.core.raft import RaftCore
from raft.core.types import Index, NodeId, Role, Term
from raft.state_machine import FIRST_VERSION


class VersionedNode(Protocol):
    """The node whose group has a version."""

    id: NodeId
    core: RaftCore
    applier: Applier

    def now_ms(self) -> int: ...

    def wake(self) -> None: ...


class Versions:
    """What a `RaftNode` does about its group's version. The wiring sets the first three."""

    def __init__(self, node: VersionedNode) -> None:
        self._node = node
        #: What this node knows.
        self.known = FIRST_VERSION
        #: The version that this node's machine has applied.
        self.in_force: Callable[[], int] = lambda: FIRST_VERSION
        #: What the process says that runs now as this member, on the disk that the group knows; None where none is
        #: connected. A member that is away may come back with less than it knew before.
        self.said: Callable[[NodeId], int | None] = lambda member: None
        #: The version that this node proposed last, and the term in which it did.
        self._proposed: tuple[Term, int] = (0, FIRST_VERSION)

    def to_raise(self) -> int | None:
        """Leader: the version that every member knows, where that is more than is in force or on its way."""
        core = self._node.core
        if core.state.role is not Role.LEADER:
            return None
        said = [self.known if member == self._node.id else self.said(member) for member in core.configuration.members]
        lowest = min((FIRST_VERSION if version is None else version for version in said), default=FIRST_VERSION)
        try:
            return lowest if lowest > self._needed() else None
        except ConfigurationBusy:
            return None

    def raise_to(self, version: int, command: bytes) -> Index:
        """Leader: append the entry that raises the group to what `to_raise` gave, with no await in between.

        Raises:
            NotLeading, TransferInProgress, TooMuchUncommitted, FollowerBehind: nothing was appended.
        """
        node = self._node
        # Not as a client's command: another leader might append it, among members that it has taken in meanwhile.
        assert version == self.to_raise(), "the version that every member knows now"
        index = node.core.propose([command], node.now_ms())
        self._proposed = (node.core.state.term, version)
        node.wake()
        return index

    def check(self, member: NodeId, known: int | None = None) -> None:
        """Leader: `member`, which says that it knows this version, may be taken in. None: as far as it has said
        anything.

        Raises:
            ConfigurationRefused: it knows less than the group needs; the text says which version it must know.
            ConfigurationBusy: what the group needs is not known yet.
        """
        known = self.said(member) if known is None else known
        needed = self._needed()
        if known is not None and known < needed:
            raise ConfigurationRefused(
                f"{member} knows the entries of version {known} of the log, and the group has those of version "
                f"{needed}: start {member} with a release that knows these, such as the one of the others"
            )

    def held_back(self) -> frozenset[NodeId]:
        """Leader: the learners that may not vote yet: they have not said that they know what the group needs."""
        core = self._node.core
        if core.state.role is not Role.LEADER:
            return frozenset()
        learners = core.configuration.learners
        try:
            needed = self._needed()
        except ConfigurationBusy:
            return frozenset(learners)
        return frozenset(each for each in learners if (self.said(each) or FIRST_VERSION) < needed)

    def _needed(self) -> int:
        """Leader: what a member must know, an entry that is on its way included.

        Raises:
            ConfigurationBusy: this node has not applied all that former leaders left; one may have raised it.
        """
        node = self._node
        if node.applier.applied_index < node.core.term_start_index:
            raise ConfigurationBusy("the leader has not applied what former leaders left; try again")
        term, version = self._proposed
        return max(self.in_force(), version if term == node.core.state.term else FIRST_VERSION)
