"""Leadership transfer: thesis 3.10. The leader stops taking proposals, brings the successor up to date, and tells it
to campaign at once. It takes proposals again if the successor does not win within an election timeout."""

from raft.core.messages import TimeoutNow
from raft.core.server import Server
from raft.core.types import NodeId, Role


def start(raft: Server, to: NodeId) -> bool:
    """Hand leadership to `to`. False if this node does not lead, `to` is no other voter, or a transfer is under
    way."""
    if raft.state.role is not Role.LEADER or raft.transfer.to:
        return False
    if to == raft.id or to not in raft.configuration.voters:
        return False
    raft.transfer.to = to
    raft.transfer.deadline_ms = raft.now_ms + raft.config.election_timeout_max_ms
    maybe_finish(raft, to)
    return True


def maybe_finish(raft: Server, peer: NodeId) -> bool:
    """Once the successor's log is complete, tell it."""
    transfer = raft.transfer
    if peer != transfer.to or transfer.told or raft.progress[peer].match_index < raft.log.last_index:
        return False
    transfer.told = True
    raft.send(TimeoutNow(sender=raft.id, to=peer, term=raft.state.term, sequence=raft.next_sequence()))
    return True


def check_deadline(raft: Server) -> None:
    if raft.transfer.to and raft.now_ms >= raft.transfer.deadline_ms:
        raft.transfer.clear()
