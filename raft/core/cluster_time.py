"""The group's clock (LogCabin's cluster clock): every entry carries it, and nothing else tells a machine the time.

A leader's cluster time is its first value plus its own clock's progress since then. It tells cluster time with every
AppendEntries, so that time that passes without entries is not lost with the leader. A new leader begins from the
larger of two: the time of the last entry, and the newest time that it heard *from the leader of that entry's term*.
It adds nothing for the time since it heard that: cluster time stands still while there is no leader, so that the
holder of a lock can still renew it.

Why nothing ends early. Imagine that every leader's clock goes on after its leadership. A new leader begins from a
time that the clock of the leader of its last entry's term showed before this moment. So from here on its clock never
shows more than that clock. The same holds for that leader and the term before it in the same log, and so on. So after
any stamp in this log, no more cluster time passes than real time. The term is what counts. A deposed leader's clock
may be ahead of its successor's, which began from less. A leader that used the deposed leader's time with an entry of
the successor would end too early what that entry began.
"""

from raft.core.server import Server
from raft.core.types import Role, Term


def begin(raft: Server) -> None:
    """A new leader's clock starts."""
    raft.cluster_time.base_ms = _standing_ms(raft)
    raft.cluster_time.since_ms = raft.now_ms


def now(raft: Server, now_ms: int) -> int:
    """What a leader would stamp at `now_ms`; on a node that does not lead, what it would begin from."""
    if raft.state.role is not Role.LEADER:
        return _standing_ms(raft)
    elapsed_ms = max(0, now_ms - raft.cluster_time.since_ms)
    return max(raft.log.last_time_ms, raft.cluster_time.base_ms + elapsed_ms)


def tell(raft: Server) -> int:
    """Leader: the cluster time for a message that is sent now. It counts for this node's own next leadership, too."""
    time_ms = now(raft, raft.now_ms)
    on_heard(raft, raft.state.term, time_ms)
    return time_ms


def on_heard(raft: Server, term: Term, time_ms: int) -> None:
    """The leader of `term` said that it is `time_ms`. A message that was overtaken on its way brings no news."""
    clock = raft.cluster_time
    if term != clock.heard_term or time_ms >= clock.heard_ms:
        clock.heard_term, clock.heard_ms, clock.heard_at_ms = term, time_ms, raft.now_ms


def estimate(raft: Server, now_ms: int) -> int:
    """Cluster time as far as this node can know it: the last time that it heard, plus what has passed here since. For
    answers that show remaining times; nothing is ever decided by it."""
    if raft.state.role is Role.LEADER:
        return now(raft, now_ms)
    clock = raft.cluster_time
    elapsed_ms = max(0, now_ms - clock.heard_at_ms) if clock.heard_term else 0
    return max(_standing_ms(raft), clock.heard_ms + elapsed_ms)


def _standing_ms(raft: Server) -> int:
    """Where cluster time stands without a leader, as far as this node may say."""
    clock, log = raft.cluster_time, raft.log
    return max(log.last_time_ms, clock.heard_ms) if clock.heard_term == log.last_term else log.last_time_ms
