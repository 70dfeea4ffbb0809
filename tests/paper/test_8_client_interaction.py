"""Raft paper, section 8: client interaction. What the core and the replicated state owe it."""

import pytest

from raft.core.errors import NotLeading
from raft.core.messages import AppendEntries
from raft.core.types import EntryKind, HardState
from raft.state_machine import ApplyContext
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine
from tests.core.replica import (
    Disk,
    Replica,
    acknowledge,
    acknowledge_all,
    entries,
    follower_of,
    leader_of,
    settled_leader,
)
from tests.paper.counting import Add, Counter
from tests.paper.groups import elect, elected, propose


def test_a_server_that_does_not_lead_refuses_and_names_the_most_recent_leader() -> None:
    """Paper 8: so that the client (here: the node, on its behalf) knows where to send it."""
    follower = follower_of("b", 1)

    with pytest.raises(NotLeading):
        follower.propose(b"x")

    assert follower.core.status().leader == "b"


def test_a_command_is_executed_once_though_it_stands_twice_in_the_log() -> None:
    """Paper 8: the state machine tracks the serial number; a command seen before is answered, not re-executed."""
    machine = ReplicatedMachine(Counter)
    command = encode_command(Add(1), idempotency_key="k", fingerprint=b"f")

    first = machine.apply(ApplyContext(1, 0), command)
    second = machine.apply(ApplyContext(2, 0), command)

    assert first == {"ok": True, "total": 1}
    assert second == {**first, "replayed": True}
    assert machine.inner.total == 1


def test_a_retry_after_the_leader_died_before_answering_is_not_executed_again() -> None:
    """Paper 8: the very case for which serial numbers exist (known bug 79)."""
    cluster = elected()
    command = encode_command(Add(1), idempotency_key="k", fingerprint=b"f")
    propose(cluster, "a", command)
    cluster.crash("a")
    elect(cluster, "b")

    propose(cluster, "b", command)

    machine = ReplicatedMachine(Counter)
    for index, data in enumerate(cluster.nodes["b"].commands, 1):
        machine.apply(ApplyContext(index, 0), data)
    assert cluster.nodes["b"].commands == [command, command]
    assert machine.inner.total == 1


def test_a_leader_commits_a_blank_entry_at_the_start_of_its_term() -> None:
    """Paper 8: it may not know which entries are committed until it has committed one of its own (known bug 39)."""
    leader = leader_of(disk=Disk(HardState(2), entries(1, 2)))

    noop = leader.core.log.entry(3)
    acknowledge_all(leader)

    assert (noop.kind, noop.term, noop.data) == (EntryKind.NOOP, 3, b"")
    assert leader.core.log.commit_index == 3


def test_a_read_waits_until_the_leader_has_committed_in_its_term() -> None:
    """Paper 8: a leader must have the latest information on which entries are committed (known bug 66)."""
    leader = leader_of(disk=Disk(HardState(2), entries(1, 2)))
    noops = leader.sent(AppendEntries)

    leader.read(1)
    leader.receive(acknowledge(noops[0]))
    acknowledge_all(leader)

    assert [(state.context, state.index) for state in leader.read_states] == [(1, 3)]


def test_a_read_is_answered_only_after_a_majority_has_confirmed_the_leader() -> None:
    """Paper 8: it checks whether it has been deposed by exchanging heartbeats with a majority first."""
    leader = settled_leader()

    leader.read(1)
    assert leader.read_states == []
    acknowledge_all(leader, "c")

    assert len(leader.read_states) == 1


def test_a_deposed_leader_answers_no_read() -> None:
    """Paper 8: otherwise it could return stale data, a newer leader having been elected unknown to it."""
    cluster = elected()
    cluster.cuts = {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
    elect(cluster, "b")
    propose(cluster, "b", b"newer")
    old: Replica = cluster.nodes["a"]

    cluster.at("a", lambda node: node.read(1))
    cluster.run(2_000)

    assert "may be served" not in " ".join(cluster.take_trace())
    assert not old.leads


def test_a_read_writes_nothing_to_the_log() -> None:
    """Paper 8: read-only operations can be handled without writing anything into the log."""
    leader = settled_leader()

    leader.read(1)
    acknowledge_all(leader)

    assert leader.core.log.last_index == 1
