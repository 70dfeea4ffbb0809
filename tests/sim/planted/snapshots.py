"""Snapshots and compaction."""

from tests.sim.planted import Bug

BUGS = (
    Bug(
        "older_snapshot_is_installed",
        (41, 51),
        "raft.core.snapshotting:on_install_snapshot",
        "if snapshot.index <= log.commit_index:",
        "if False:",
    ),
    Bug(
        "conflicting_entry_at_the_snapshot_is_kept",
        (42,),
        "raft.core.snapshotting:on_install_snapshot",
        "if log.term_at(snapshot.index) == snapshot.term:",
        "if log.term_at(snapshot.index) is not None:",
    ),
    Bug(
        "lost_reply_to_a_snapshot_ends_replication",
        (37, 44),
        "raft.core.progress:Progress.on_snapshot_delivered",
        "if self.state is ProgressState.SNAPSHOT:",
        "if False:",
    ),
    Bug(
        "failed_snapshot_is_not_repeated",
        (37, 40),
        "raft.core.progress:Progress.on_snapshot_failed",
        "self.become_probe()",
        "pass",
    ),
    Bug(
        "snapshot_carries_an_uncommitted_configuration",
        (46, 82),
        "raft.core.snapshotting:meta_at",
        "raft.configurations.at(index)",
        "raft.configuration",
    ),
    Bug(
        "snapshot_before_any_configuration",
        (46,),
        "raft.core.snapshotting:may_take",
        "return bool(raft.configurations.at(index).voters)",
        "return True",
    ),
    Bug(
        "snapshot_forgets_the_configuration",
        (46,),
        "raft.core.snapshotting:on_install_snapshot",
        "ConfigurationHistory(snapshot.index, snapshot.configuration, ())",
        "ConfigurationHistory(snapshot.index, raft.configurations._history[0][1], ())",
    ),
    Bug(
        "compacted_follower_is_sent_nothing",
        (49,),
        "raft.core.replication:maybe_send_entries",
        "_send_snapshot(raft, peer, progress)",
        "pass",
    ),
    Bug(
        "snapshot_loses_the_idempotency_table",
        (46, 79),
        "tests.sim.machine:SimMachine.snapshot",
        "self.queues, self.answers]",
        "self.queues, {}]",
    ),
    Bug(
        "snapshot_loses_a_deadline",
        (46, 78),
        "tests.sim.machine:SimMachine.restore",
        "= state",
        "= state\n    self.locks = {key: [owner, token, 0] for key, (owner, token, _) in self.locks.items()}",
    ),
    Bug(
        "installed_snapshot_never_reaches_the_disk",
        (52,),
        "raft.core.snapshotting:on_install_snapshot",
        "raft.snapshot_to_persist = snapshot",
        "raft.log.durable_index = snapshot.index",
    ),
)
