"""What a core is told once, at its creation. Times are milliseconds of the node's own clock."""

from dataclasses import dataclass

from raft.core.types import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """Limits and times of one core. All nodes of a group should have the same times. Safety does not need that; it
    needs clocks whose rates differ by no more than each node's configuration says."""

    id: NodeId
    heartbeat_ms: int = 50
    #: A follower that heard from a leader within this time grants no vote (paper 6, thesis 4.2.3).
    election_timeout_min_ms: int = 400
    #: Election timeouts are drawn evenly from min to max (paper 5.2). A leader that has not been acknowledged
    #: by a quorum for `max` steps down (CheckQuorum).
    election_timeout_max_ms: int = 800
    #: Upper bound of the random delay before the pre-vote of a follower whose connection from the leader broke.
    fast_election_delay_max_ms: int = 40
    #: Length of the read leases that this node gives as leader, once the group has agreed on it; 0: the group has no
    #: read leases. Nodes may differ.
    lease_ms: int = 0
    #: How much faster one node's clock may run than another's, in per cent.
    lease_drift_percent: int = 5
    #: How long a leader may delay a new commit index for a follower, if it has nothing else to send and no client of
    #: the follower waits. Under load the index travels with entries; a message of its own would double the messages
    #: of a write.
    commit_notice_ms: int = 5
    #: While something is due later, the leader appends an entry for the time this often. A restart of all nodes loses
    #: at most this much cluster time, besides the time in which none ran.
    time_entry_ms: int = 1_000
    pre_vote: bool = True
    check_quorum: bool = True

    #: One AppendEntries carries at most this many entries and, beyond its first, this many bytes.
    append_entries_max: int = 1024
    append_bytes_max: int = 1 << 20
    #: AppendEntries with entries that may be unanswered per follower in state REPLICATE.
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 8 << 20
    #: Bytes of entries that a leader takes beyond the commit index; the first proposal always fits.
    uncommitted_bytes_max: int = 32 << 20
    #: Bytes of the log, counted in memory, that a leader keeps for a follower that is catching up. It slows proposals
    #: down so that this is enough.
    catch_up_bytes_max: int = 128 << 20
    #: The leader does not wait for a follower that made no progress for so long.
    catch_up_patience_ms: int = 10_000
    #: Entries and bytes handed out for apply in one `Ready`: what the event loop does in one go.
    committed_entries_max: int = 2048
    committed_bytes_max: int = 4 << 20
    #: Reads that may wait for a ReadIndex round.
    reads_waiting_max: int = 10_000
    #: A learner is promoted once it lacks at most this many entries.
    learner_lag_max: int = 64
