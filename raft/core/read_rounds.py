"""The reads that wait for a leader's round, and the round under way. `raft.core.reads` says what a round proves."""

from raft.core.types import Index, NodeId


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
        """The index and the askers of the round, if a quorum has answered up to `acked_sequence`."""
        if not self._round or acked_sequence < self._round_sequence:
            return 0, []
        confirmed, self._round = self._round, []
        return self._round_index, confirmed

    def take_all(self) -> list[tuple[NodeId, int]]:
        everything = self._round + self._waiting
        self._round, self._waiting = [], []
        return everything
