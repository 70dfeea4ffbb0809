"""Every limit of a core is a setting with a default, and is kept."""

from dataclasses import fields

from raft.core.config import CoreConfig
from raft.core.messages import AppendEntries
from raft.core.types import HardState
from tests.core.replica import (
    Disk,
    acknowledge,
    append,
    entries,
    entry,
    follower_of,
    leader_of,
    settled_leader,
)


def test_every_setting_but_the_id_has_a_default() -> None:
    config = CoreConfig(id="a")

    assert all(getattr(config, field.name) is not None for field in fields(config))


def test_the_default_times_keep_the_papers_order() -> None:
    """Paper 5.6: broadcast time well below the election timeout; several heartbeats may be lost before it ends."""
    config = CoreConfig(id="a")

    assert config.heartbeat_ms * 4 <= config.election_timeout_min_ms < config.election_timeout_max_ms
    assert config.fast_election_delay_max_ms < config.election_timeout_min_ms


def test_one_append_carries_at_most_so_many_entries() -> None:
    leader = settled_leader(append_entries_max=2)
    leader.core.propose((b"1", b"2", b"3", b"4", b"5"), leader.now_ms)

    leader.drain()

    assert [len(request.entries) for request in leader.sent(AppendEntries, "b")] == [2, 2, 1]


def test_one_append_carries_at_most_so_many_bytes_beyond_its_first_entry() -> None:
    leader = settled_leader(append_bytes_max=10)
    leader.core.propose((b"x" * 30, b"x" * 5, b"x" * 5, b"x" * 5), leader.now_ms)

    leader.drain()

    assert [len(request.entries) for request in leader.sent(AppendEntries, "b")] == [1, 2, 1]


def test_committed_entries_are_handed_out_in_portions() -> None:
    """What the event loop does in one go is bounded; nothing is left behind."""
    leader = leader_of(committed_entries_max=2)
    for request in leader.sent(AppendEntries):
        leader.core.receive(acknowledge(request), leader.now_ms)
    leader.core.propose((b"1", b"2", b"3"), leader.now_ms)
    leader.drain()
    for request in leader.sent(AppendEntries):
        leader.core.receive(acknowledge(request), leader.now_ms)

    portions = []
    while ready := leader.core.take_ready():
        portions.append(len(ready.committed))

    assert max(portions) == 2
    assert sum(portions) == 3


def test_committed_bytes_are_handed_out_in_portions() -> None:
    follower = follower_of("b", 1, committed_bytes_max=10)
    batch = [entry(index, 1, b"x" * 8) for index in (1, 2, 3)]
    follower.core.receive(append("b", 1, new=batch, commit=3), follower.now_ms)

    assert [len(follower.core.take_ready().committed) for _ in range(4)] == [1, 1, 1, 0]


def test_elections_and_heartbeats_follow_their_settings() -> None:
    leader = leader_of(heartbeat_ms=7, election_timeout_min_ms=100, election_timeout_max_ms=110)

    assert 1_100 <= leader.now_ms <= 1_110
    assert leader.core.next_deadline_ms() - leader.now_ms == 7


def test_status_tells_what_the_core_knows() -> None:
    """For health pages and metrics."""
    follower = follower_of("b", 3, disk=Disk(HardState(3, "b"), entries(1, 2)))

    status = follower.core.status()

    assert (status.id, status.term, status.vote, status.leader) == ("a", 3, "b", "b")
    assert (status.first_index, status.last_index, status.durable_index, status.commit_index) == (1, 2, 2, 0)
    assert (status.voters, status.learners, status.rejected_messages) == (("a", "b", "c"), (), 0)
