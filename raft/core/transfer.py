"""Leadership transfer: thesis 3.10. The leader stops taking proposals, brings the successor up to date, tells it
to campaign at once, and takes proposals again if nothing came of it within an election timeout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core.messages import TimeoutNow
from raft.core.types import NOBODY, NodeId, Role

if TYPE_CHECKING:
    from raft.core.raft import RaftCore


class Transfer:
    """The transfer under way, if any. Cleared whenever this node stops leading (hashicorp/raft#696)."""

    __slots__ = ("deadline_ms", "to", "told")

    def __init__(self) -> None:
        self.to: NodeId = NOBODY
        self.deadline_ms = 0
        #: TimeoutNow was sent.
        self.told = False

    def clear(self) -> None:
        self.to = NOBODY
        self.told = False


def start(raft: RaftCore, to: NodeId) -> bool:
    """Hand leadership to `to`. False where this node does not lead, `to` is no other voter, or one is under way."""
    if raft.state.role is not Role.LEADER or raft.transfer.to:
        return False
    if to == raft.id or to not in raft.configuration.voters:
        return False
    raft.transfer.to = to
    raft.transfer.deadline_ms = raft.now_ms + raft.config.election_timeout_max_ms
    maybe_finish(raft, to)
    return True


def maybe_finish(raft: RaftCore, peer: NodeId) -> bool:
    """Once the successor's log is complete, tell it."""
    transfer = raft.transfer
    if peer != transfer.to or transfer.told or raft.progress[peer].match_index < raft.log.last_index:
        return False
    transfer.told = True
    raft.send(TimeoutNow(sender=raft.id, to=peer, term=raft.state.term, sequence=raft.next_sequence()))
    return True


def check_deadline(raft: RaftCore) -> None:
    if raft.transfer.to and raft.now_ms >= raft.transfer.deadline_ms:
        raft.transfer.clear()
