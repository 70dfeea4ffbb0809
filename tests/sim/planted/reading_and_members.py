"""Reads, time, retries and membership."""

from tests.sim.planted import Bug

BUGS = (
    Bug(
        "read_before_the_noop_is_committed",
        (66, 39),
        "raft.core.reads:maybe_start_round",
        "or raft.log.commit_index < raft.term_start_index",
        "",
    ),
    Bug(
        "read_without_a_round",
        (67,),
        "raft.core.reads:maybe_start_round",
        "raft.last_sequence + 1",
        "0",
    ),
    Bug(
        "read_confirmed_by_an_earlier_round",
        (67,),
        "raft.core.reads:maybe_start_round",
        "raft.last_sequence + 1",
        "raft.last_sequence - 20 * len(raft.progress)",
    ),
    Bug(
        "read_served_before_it_is_applied",
        (72,),
        "tests.sim.clients:Clients.on_read_state",
        "if node.applied_index >= state.index:",
        "if True:",
    ),
    Bug(
        "cluster_time_is_the_leaders_clock",
        (77,),
        "raft.core.raft:RaftCore.append_own",
        "self.cluster_time_ms(self.now_ms)",
        "self.now_ms",
    ),
    Bug(
        "new_leader_starts_time_anew",
        (77,),
        "raft.core.raft:RaftCore.cluster_time_ms",
        "return max(self.log.last_time_ms, self._cluster_time_base_ms + elapsed)",
        "return elapsed",
    ),
    Bug(
        "apply_reads_the_local_clock",
        (77,),
        "tests.sim.replica:Replica._apply_one",
        "time_ms=entry.time_ms",
        "time_ms=self.now_ms()",
    ),
    Bug(
        "retry_is_carried_out_twice",
        (79,),
        "tests.sim.machine:SimMachine.apply",
        "if self.was_retry:",
        "if False:",
    ),
    Bug(
        "change_before_the_noop_is_committed",
        (82,),
        "raft.core.membership:propose",
        "if raft.log.commit_index < raft.term_start_index:",
        "if False:",
    ),
    Bug(
        "two_changes_at_once",
        (82,),
        "raft.core.membership:propose",
        "if raft.configurations.latest_index > raft.log.commit_index:",
        "if False:",
    ),
    Bug(
        "two_voters_in_one_change",
        (82,),
        "raft.core.membership:propose",
        "len(set(current.voters) ^ set(configuration.voters)) > 1 or",
        "",
    ),
    Bug(
        "replaced_configuration_stays",
        (82,),
        "raft.core.membership:ConfigurationHistory.append",
        "self._history.pop()",
        "break",
    ),
    Bug(
        "removed_leader_stays",
        (82,),
        "raft.core.membership:on_committed",
        "raft.retiring = True",
        "pass",
    ),
    Bug(
        "configuration_used_by_the_leader_alone",
        (82,),
        "raft.core.membership:on_entries_appended",
        "if not raft.configurations.append(entries) or raft.state.role is not Role.LEADER:",
        "if raft.state.role is not Role.LEADER or not raft.configurations.append(entries):",
    ),
)
