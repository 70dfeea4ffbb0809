"""What a node answers when a command was not carried out, or may not have been.

RaftError
├── NotDone               certainly not done: safe to send again
│   ├── NotLeader         this node does not lead; says who does, where it knows
│   ├── NoLeader          nobody leads that this node knows of
│   ├── NoQuorum          the leader cannot reach a majority
│   ├── Overloaded        too much is waiting at this node or in the log
│   ├── StorageFailed     this node's disk failed or is full
│   ├── NotKnownToAll     a member of the group may not know yet what the command says
│   └── Stopping          this node is shutting down
├── TooLarge              the command is larger than what nodes can send each other: it never can be done
├── MembershipRefused     the change of members is not possible; says why
└── OutcomeUnknown        it may or may not have been done: neither success nor failure
"""

from raft.core.types import NOBODY, NodeId


class RaftError(Exception):
    """Base of everything that `RaftNode.propose` and `RaftNode.read_index` raise on purpose."""


class NotDone(RaftError):
    """The command was certainly not carried out and never will be: sending it again is safe."""


class NotLeader(NotDone):
    """This node does not lead the group. `leader` is the id of the node that does, or `NOBODY`."""

    def __init__(self, leader: NodeId = NOBODY) -> None:
        super().__init__(f"the leader is {leader}" if leader else "no leader is known")
        self.leader = leader


class NoLeader(NotDone):
    """No leader was known for as long as the caller was willing to wait."""


class NoQuorum(NotDone):
    """The leader has not heard from a majority of the group lately."""


class Overloaded(NotDone):
    """A bound on what may wait was reached; later is better than more often."""


class TooLarge(RaftError):
    """The command does not fit a message between nodes: it was not done and never can be."""


class StorageFailed(NotDone):
    """The disk of this node refused a write, or is full."""


class NotKnownToAll(NotDone):
    """The command is newer than the version that all members of the group have agreed on (`raft.versions`)."""

    def __init__(self) -> None:
        super().__init__("not every node of the group knows this yet; upgrade all of them first")


class MembershipRefused(RaftError):
    """The change of members is not possible as things are; the text says why."""


class Stopping(NotDone):
    """This node has been told to stop and takes nothing new."""


class OutcomeUnknown(RaftError):
    """Leadership was lost or time ran out with the command on its way. It may be carried out later, or never:
    only a retry with the same idempotency key tells. Never report it as a failure."""
