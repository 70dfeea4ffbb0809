"""What a replica writes to the log of its own accord: who leads its group, and whether its disk has room.

The rule of the file: once a turn, what was told is compared with what is so, and only a difference is a line. A
network or a disk that flaps cannot fill a log: between two lines of one kind there is a pause, after which what is so
then is told, with the number of changes in between.
"""

from typing import Protocol

from common.logs import SPARSE_SECONDS, get_logger
from raft.core.types import NOBODY, NodeId, Term
from raft.status import ReachingNode, why_no_leader

#: Between two lines about the leader; an election takes about as long.
LEADER_PAUSE_MS = 1_000
#: Between two lines that the disk is full. That it has room again is told at once.
FULL_PAUSE_MS = int(SPARSE_SECONDS * 1000)
#: A group is without a leader for longer than it should be once as many elections could have failed in a row.
ELECTIONS_MAX = 4

logger = get_logger("raft.node")


class RemarkedNode(ReachingNode, Protocol):
    """The node that lines are written about."""

    group: str
    is_disk_full: bool

    @property
    def is_member(self) -> bool: ...

    def now_ms(self) -> int: ...


class Remarks:
    """Lines about one replica."""

    def __init__(self, node: RemarkedNode) -> None:
        self._node = node
        self._leaderless_ms_max = ELECTIONS_MAX * node.core.config.election_timeout_max_ms
        #: Who was told to lead, and in which term; None where it was told last that nobody does.
        self._told: tuple[NodeId, Term] | None = (NOBODY, 0)
        #: `leader_changes` of the core when that was told.
        self._changes_told = 0
        self._leader_due_ms = node.now_ms()
        #: Since when this replica has known no leader; None while it knows one.
        self._leaderless_since_ms: int | None = None
        self._full_told = False
        self._full_since_ms = 0
        self._full_due_ms = node.now_ms()

    def observe(self, now_ms: int) -> None:
        """A turn has ended."""
        state = self._node.core.state
        if state.leader == NOBODY:
            self._observe_nobody(now_ms)
        else:
            self._leaderless_since_ms = None
            if self._told != (state.leader, state.term) and now_ms >= self._leader_due_ms:
                self._tell_leader(now_ms)
        full = self._node.is_disk_full
        if full != self._full_told and (not full or now_ms >= self._full_due_ms):
            self._tell_full(full, now_ms)

    def _tell_leader(self, now_ms: int) -> None:
        state = self._node.core.state
        left_out = state.leader_changes - self._changes_told - 1
        self._told = (state.leader, state.term)
        self._changes_told = state.leader_changes
        self._leader_due_ms = now_ms + LEADER_PAUSE_MS
        fields = {"left_out": left_out} if left_out > 0 else {}
        logger.info("the group is led", group=self._node.group, leader=state.leader, term=state.term, **fields)

    def _observe_nobody(self, now_ms: int) -> None:
        if self._leaderless_since_ms is None:
            self._leaderless_since_ms = now_ms
        leaderless_ms = now_ms - self._leaderless_since_ms
        node = self._node
        # A node that was removed hears of no leader, and should not.
        if self._told is None or leaderless_ms < self._leaderless_ms_max or not node.is_member:
            return
        self._told = None
        logger.warning(
            "the group has no leader, for longer than an election should take",
            group=node.group,
            term=node.core.state.term,
            for_ms=leaderless_ms,
            reason=str(why_no_leader(node)),
        )

    def _tell_full(self, full: bool, now_ms: int) -> None:
        self._full_told = full
        if full:
            self._full_since_ms, self._full_due_ms = now_ms, now_ms + FULL_PAUSE_MS
            logger.error(
                "the disk is full: this node refuses writes",
                group=self._node.group,
                advice="free some space; it goes on by itself and has lost nothing",
            )
        else:
            logger.warning(
                "the disk has room again", group=self._node.group, full_ms=now_ms - self._full_since_ms
            )
