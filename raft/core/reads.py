"""Linearizable reads without a log entry: ReadIndex, thesis 6.4.

The leader notes its commit index, proves with a round of AppendEntries *sent after that* that a quorum still
follows it, and names the index. Before it has committed in its own term it does not know what is committed, so
reads wait for its no-op (etcd#7331). One round serves every read that was waiting when it started; later ones
wait for the next. Contexts come from the driver and are unique over restarts (etcd-io/raft#397).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core import replication
from raft.core.messages import ReadIndex, ReadIndexReply
from raft.core.quorum import quorum_value
from raft.core.ready import ReadState
from raft.core.types import NOBODY, Index, NodeId, Role

if TYPE_CHECKING:
    from raft.core.raft import RaftCore


class ReadRounds:
    """Leader: reads waiting for a round, and the round under way."""

    __slots__ = ("_round", "_round_index", "_round_sequence", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[NodeId, int]] = []
        self._round: list[tuple[NodeId, int]] = []
        #: The round is confirmed once a quorum has answered this sequence or a later one.
        self._round_sequence = 0
        self._round_index: Index = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._round)

    @property
    def under_way(self) -> bool:
        return bool(self._round)

    @property
    def may_start(self) -> bool:
        return bool(self._waiting) and not self._round

    def add(self, asker: NodeId, context: int) -> None:
        self._waiting.append((asker, context))

    def start(self, sequence: int, index: Index) -> None:
        self._round, self._waiting = self._waiting, []
        self._round_sequence, self._round_index = sequence, index

    def take_confirmed(self, acked_sequence: int) -> tuple[Index, list[tuple[NodeId, int]]]:
        """The index and the askers of the round, where a quorum has answered up to `acked_sequence`."""
        if not self._round or acked_sequence < self._round_sequence:
            return 0, []
        confirmed, self._round = self._round, []
        return self._round_index, confirmed

    def take_all(self) -> list[tuple[NodeId, int]]:
        everything = self._round + self._waiting
        self._round, self._waiting = [], []
        return everything


def read(raft: RaftCore, context: int) -> None:
    """This node's own read: answered by a `ReadState` with the same context."""
    if raft.state.role is Role.LEADER:
        _add(raft, raft.id, context)
    elif raft.state.leader != NOBODY:
        raft.send(ReadIndex(sender=raft.id, to=raft.state.leader, term=raft.state.term, sequence=context))
    else:
        _answer(raft, raft.id, context, 0)


def on_read_index(raft: RaftCore, message: ReadIndex) -> None:
    if raft.state.role is Role.LEADER:
        _add(raft, message.sender, message.sequence)
    else:
        _answer(raft, message.sender, message.sequence, 0)


def refuse(raft: RaftCore, message: ReadIndex) -> None:
    """The asker's term is old: it must learn who leads before it asks again."""
    _answer(raft, message.sender, message.sequence, 0)


def on_read_index_reply(raft: RaftCore, message: ReadIndexReply) -> None:
    raft.read_states.append(ReadState(message.sequence, message.index))


def _add(raft: RaftCore, asker: NodeId, context: int) -> None:
    if len(raft.reads) >= raft.config.reads_waiting_max:
        _answer(raft, asker, context, 0)
    else:
        raft.reads.add(asker, context)


def _answer(raft: RaftCore, asker: NodeId, context: int, index: Index) -> None:
    if asker == raft.id:
        raft.read_states.append(ReadState(context, index))
    else:
        raft.send(
            ReadIndexReply(sender=raft.id, to=asker, term=raft.state.term, sequence=context, index=index)
        )


def maybe_start_round(raft: RaftCore) -> bool:
    """Start a round for the waiting reads, unless one is under way or the no-op is not committed yet."""
    if not raft.reads.may_start or raft.log.commit_index < raft.term_start_index:
        return False
    raft.reads.start(raft.last_sequence + 1, raft.log.commit_index)
    replication.broadcast_heartbeat(raft)
    on_answer(raft)
    return True


def on_answer(raft: RaftCore) -> None:
    """A follower answered: perhaps a quorum has now confirmed the round."""
    if not raft.reads.under_way:
        return
    acked = {peer: progress.acked_sequence for peer, progress in raft.progress.items()}
    acked[raft.id] = raft.last_sequence + 1
    index, askers = raft.reads.take_confirmed(quorum_value(acked, raft.configuration.voters))
    for asker, context in askers:
        _answer(raft, asker, context, index)


def refuse_all(raft: RaftCore) -> None:
    """This node stopped leading: whoever waits asks again."""
    for asker, context in raft.reads.take_all():
        _answer(raft, asker, context, 0)
