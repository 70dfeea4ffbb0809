"""Snapshots and log compaction: paper 7, thesis 5. Taking, sending and storing the data is the driver's work."""

from raft.core.membership import ConfigurationHistory
from raft.core.messages import InstallSnapshot, InstallSnapshotReply
from raft.core.progress import ProgressState
from raft.core.server import Server
from raft.core.types import Index, SnapshotMeta


def meta_at(raft: Server, index: Index, time_ms: int) -> SnapshotMeta:
    """The meta of a snapshot of the state after `index`. The entry must still be in memory."""
    term = raft.log.term_at(index)
    assert term is not None and index <= raft.log.applied_index
    return SnapshotMeta(index, term, time_ms, raft.configurations.at(index))


def may_take(raft: Server, index: Index) -> bool:
    """Whether a snapshot after `index` can have a meta. A server that joins knows no configuration until the entry
    that added it: a snapshot from before would tell others that there are no voters."""
    return bool(raft.configurations.at(index).voters)


def on_taken(raft: Server, snapshot: SnapshotMeta, retain_from: Index) -> None:
    """This node's own snapshot is durable: forget the log before `retain_from`."""
    if snapshot.index <= raft.log.snapshot.index:
        return
    compact(raft, snapshot, retain_from)


def compact(raft: Server, snapshot: SnapshotMeta, retain_from: Index) -> None:
    """Forget the log before `retain_from`, as far as `snapshot` covers it."""
    raft.log.compact(snapshot, retain_from)
    raft.configurations.compact(raft.log.compacted_index)


def would_install(raft: Server, message: InstallSnapshot) -> bool:
    """Whether the snapshot brings anything new. The driver asks this before it fetches the data."""
    return message.term >= raft.state.term and message.snapshot.index > raft.log.commit_index


def on_install_snapshot(raft: Server, message: InstallSnapshot) -> None:
    """Receiver's rules (paper Figure 13). The term was checked and the sender is the leader."""
    snapshot, log = message.snapshot, raft.log
    if not snapshot.configuration.voters:
        # A server that installed it could never take part in an election again, and would pass it on.
        raft.rejected_messages += 1
        return
    if snapshot.index <= log.commit_index:
        # Never install something older (NuRaft#407); what is committed here is as good as the snapshot.
        _reply(raft, message, log.commit_index)
        return
    if log.term_at(snapshot.index) == snapshot.term:
        # The log already holds the snapshot's last entry: keep what follows it, only commit.
        log.commit_to(snapshot.index)
        _reply(raft, message, snapshot.index)
        return
    log.restore(snapshot)
    raft.configurations = ConfigurationHistory(snapshot.index, snapshot.configuration, ())
    raft.leases.members_changed_ms = raft.now_ms
    raft.snapshot_to_persist = snapshot
    _reply(raft, message, snapshot.index)


def _reply(raft: Server, message: InstallSnapshot, match_index: Index) -> None:
    raft.send(
        InstallSnapshotReply(
            sender=raft.id,
            to=message.sender,
            term=raft.state.term,
            sequence=message.sequence,
            match_index=match_index,
        )
    )


def is_wanted(raft: Server, message: InstallSnapshot) -> bool:
    """Leader: whether the peer still needs the snapshot that this message began to send. It does not if it has caught
    up in another way or is no longer a member, or if this leadership is over."""
    progress = raft.progress.get(message.to)
    return (
        message.term == raft.state.term
        and progress is not None
        and progress.state is ProgressState.SNAPSHOT
    )


def on_advanced(raft: Server, peer: str, share: float) -> None:
    """Leader: this share of the snapshot that is streamed to `peer` has arrived there, from 0 to 1."""
    progress = raft.progress.get(peer)
    if progress is not None:
        progress.on_snapshot_advanced(share, raft.now_ms)


def on_sent(raft: Server, peer: str, delivered: bool) -> None:
    """Leader: the driver reports how sending a snapshot to `peer` ended. If it was delivered, the peer's reply
    follows, but it may be lost; the leader waits for nothing that can be lost."""
    progress = raft.progress.get(peer)
    if progress is None:
        return
    if delivered:
        progress.on_snapshot_delivered()
    else:
        progress.on_snapshot_failed()
