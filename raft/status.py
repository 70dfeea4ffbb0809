"""What a node is told at its creation, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from raft.applier import Applier
from raft.core.config import CoreConfig
from raft.core.raft import RaftCore
from raft.core.ready import CoreStatus
from raft.core.types import NOBODY, Index, NodeId
from raft.disk import DiskQueue
from raft.errors import NoLeader, NoQuorum, RaftError
from raft.life import is_life
from raft.proposals import Proposals
from raft.read_index import ReadIndexClient

#: A node that lacks more than this of the entries that it knows the leader to have committed is not ready to serve.
READY_LAG_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One replica's settings beyond the core's. Times are milliseconds."""

    group: str
    core: CoreConfig
    #: The members to start with; what the log says later overrides it.
    voters: tuple[NodeId, ...]
    #: Where the settings say that nodes are reached, `host:port` for clients.
    addresses: Mapping[NodeId, str] = field(default_factory=dict)
    #: How long a request may wait for a leader to be known.
    leader_wait_ms: int = 1500
    #: How long a request may wait for its outcome.
    request_timeout_ms: int = 1800
    #: Commands that may be under way at this node, and what they may take in memory; the first one always may.
    proposals_max: int = 10_000
    proposals_bytes_max: int = 64 << 20
    #: A snapshot is taken once the log holds this many applied entries or bytes since the last one.
    snapshot_entries: int = 100_000
    snapshot_bytes: int = 64 << 20
    #: Entries and bytes of them, as counted in memory, kept behind a snapshot for followers that lag a little.
    snapshot_retain_entries: int = 5_000
    snapshot_retain_bytes_max: int = 32 << 20


class ReachingNode(Protocol):
    """A node and whom it reaches."""

    id: NodeId
    core: RaftCore

    def connected_peers(self) -> tuple[NodeId, ...]: ...


class RestoringFiles(Protocol):
    """What a node has of a leader's snapshot."""

    @property
    def hindrance(self) -> str: ...


class DescribedNode(ReachingNode, Protocol):
    """The node that tells about itself."""

    group: str
    applier: Applier
    proposals: Proposals
    reads: ReadIndexClient
    disk: DiskQueue
    stalls: int
    started_ms: int
    admitted: bool
    admitted_index: Index
    incarnation: str
    hindrance: str

    @property
    def snapshotter(self) -> RestoringFiles: ...

    @property
    def closed(self) -> RaftError | None: ...

    @property
    def life(self) -> str: ...

    @property
    def log_bytes(self) -> int: ...

    def cluster_time_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A moment of one replica."""

    group: str
    core: CoreStatus
    applied_index: Index
    cluster_time_ms: int
    #: Empty where the node can serve; otherwise why it cannot.
    not_ready_reason: str
    #: Peers that a connection stands to.
    connected: tuple[NodeId, ...]
    proposals: int
    reads: int
    stalls: int
    uptime_ms: int
    log_bytes: int
    snapshot_index: Index
    #: Where members are reached, as `(id, host:port)`, as far as the configuration knows.
    addresses: tuple[tuple[NodeId, str], ...] = ()
    #: Which life of the group the data is of; empty while that is not known.
    life: str = ""
    #: What the log, and the commands under way, take in memory.
    log_memory_bytes: int = 0
    proposals_bytes: int = 0
    #: What this node is in its group, by the configuration that it uses: "voter", "learner" or "none".
    membership: str = "voter"
    #: Entries that it knows to be committed and has not applied yet.
    lag: int = 0
    #: The disk has no room, and writes wait for some.
    disk_full: bool = False

    @property
    def ready(self) -> bool:
        return not self.not_ready_reason

    @classmethod
    def of(cls, node: DescribedNode, now_ms: int) -> NodeStatus:
        core = node.core.status()
        return cls(
            group=node.group,
            core=core,
            applied_index=node.applier.applied_index,
            cluster_time_ms=node.cluster_time_ms(),
            not_ready_reason=_not_ready_reason(node, core),
            connected=node.connected_peers(),
            proposals=len(node.proposals),
            reads=len(node.reads),
            stalls=node.stalls,
            uptime_ms=now_ms - node.started_ms,
            log_bytes=node.log_bytes,
            snapshot_index=node.core.log.snapshot.index,
            addresses=node.core.configuration.addresses,
            life=node.life if is_life(node.life) else "",
            log_memory_bytes=node.core.log.memory_bytes,
            proposals_bytes=node.proposals.memory_bytes,
            membership=_membership(node, core),
            lag=_lag(node, core),
            disk_full=node.disk.statistics().full,
        )


def _membership(node: DescribedNode, core: CoreStatus) -> str:
    if not node.admitted:
        # Its settings may name it, but its disk is empty and the group has not taken it in.
        return "none"
    if node.id in core.voters:
        return "voter"
    return "learner" if node.id in core.learners else "none"


def _lag(node: DescribedNode, core: CoreStatus) -> int:
    return max(0, max(core.commit_index, core.heard_commit_index) - node.applier.applied_index)


def _not_ready_reason(node: DescribedNode, core: CoreStatus) -> str:
    if node.closed is not None:
        return str(node.closed)
    if node.disk.statistics().full:
        return "the disk is full; free some space, it goes on by itself"
    if node.hindrance:
        return node.hindrance
    if core.leader == NOBODY:
        return "no leader is known"
    if node.snapshotter.hindrance:
        return node.snapshotter.hindrance
    if node.core.log.last_term != core.term:
        return "nothing of the current term has arrived yet"
    lag = _lag(node, core)
    if lag > READY_LAG_MAX:
        return f"{lag} entries behind"
    if node.applier.applied_index < node.admitted_index:
        missing = node.admitted_index - node.applier.applied_index
        return f"{missing} entries behind what the group had when it took this node in"
    if node.id in core.learners:
        return "this node is a learner still; it votes, and serves, once it has caught up"
    if node.id not in core.voters:
        return "this node is no member of the group"
    # What this node has applied may be older than its disk, and tells of the one who had its id before. This holds
    # over a restart, too, after which nobody has to take it in.
    applied = node.core.configurations.at(node.applier.applied_index)
    if node.incarnation and applied.incarnation_of(node.id) != node.incarnation:
        return "what the group had when it came to know this node's disk is not applied here yet"
    return ""


def why_no_leader(node: ReachingNode) -> RaftError:
    """What a client is told whose request found no leader in time."""
    voters = node.core.configuration.voters
    reachable = len(set(voters) & {node.id, *node.connected_peers()})
    if reachable <= len(voters) // 2:
        return NoQuorum(f"{reachable} of {len(voters)} nodes can be reached; a majority is needed")
    return NoLeader("no leader is known yet; try again shortly")
