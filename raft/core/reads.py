"""Linearizable reads without a log entry: ReadIndex, thesis 6.4.

The leader notes its commit index. Then it proves with a round of AppendEntries, *sent after that*, that a quorum
still follows it, and names the index. Before it has committed an entry of its own term it does not know what is
committed, so reads wait for its no-op (etcd#7331). One round serves every read that was waiting when it started;
later ones wait for the next. Contexts come from the driver and are unique over restarts (etcd-io/raft#397).
"""

from raft.core.messages import ReadIndex, ReadIndexReply
from raft.core.quorum import quorum_value
from raft.core.ready import ReadState
from raft.core.server import Server
from raft.core.types import NOBODY, Index, NodeId, Role


def read(raft: Server, context: int) -> None:
    """This node's own read: answered by a `ReadState` with the same context."""
    if raft.state.role is Role.LEADER:
        _add(raft, raft.id, context)
    elif raft.state.leader != NOBODY:
        raft.send(ReadIndex(sender=raft.id, to=raft.state.leader, term=raft.state.term, sequence=context))
    else:
        _answer(raft, raft.id, context, 0)


def on_read_index(raft: Server, message: ReadIndex) -> None:
    if raft.state.role is Role.LEADER:
        _add(raft, message.sender, message.sequence)
    else:
        _answer(raft, message.sender, message.sequence, 0)


def refuse(raft: Server, message: ReadIndex) -> None:
    """The asker's term is old: it must learn who leads before it asks again."""
    _answer(raft, message.sender, message.sequence, 0)


def on_read_index_reply(raft: Server, message: ReadIndexReply) -> None:
    raft.read_states.append(ReadState(message.sequence, message.index))


def _add(raft: Server, asker: NodeId, context: int) -> None:
    if len(raft.reads) >= raft.config.reads_waiting_max:
        _answer(raft, asker, context, 0)
    else:
        raft.reads.add(asker, context)


def _answer(raft: Server, asker: NodeId, context: int, index: Index) -> None:
    if asker == raft.id:
        raft.read_states.append(ReadState(context, index))
    else:
        raft.send(
            ReadIndexReply(sender=raft.id, to=asker, term=raft.state.term, sequence=context, index=index)
        )


def maybe_start_round(raft: Server) -> bool:
    """Start a round for the waiting reads, unless one is under way or the no-op is not committed yet. If it returns
    True, the messages that are sent next belong to the round."""
    if not raft.reads.may_start or raft.log.commit_index < raft.term_start_index:
        return False
    raft.reads.start(raft.last_sequence + 1, raft.log.commit_index)
    return True


def on_answer(raft: Server) -> None:
    """A follower replied: perhaps a quorum has now confirmed the round."""
    if not raft.reads.under_way:
        return
    acked = {peer: progress.acked_sequence for peer, progress in raft.progress.items()}
    acked[raft.id] = raft.last_sequence + 1
    index, askers = raft.reads.take_confirmed(quorum_value(acked, raft.configuration.voters))
    for asker, context in askers:
        _answer(raft, asker, context, index)


def refuse_all(raft: Server) -> None:
    """This node stopped leading: all askers must ask again."""
    for asker, context in raft.reads.take_all():
        _answer(raft, asker, context, 0)
