"""What a leader does for a follower that comes back far behind: it keeps the log that this one needs, and goes slower
before that grows beyond its bound."""

import pytest

from raft.core import catching_up, snapshotting
from raft.core.errors import FollowerBehind
from raft.core.log import ENTRY_OVERHEAD_BYTES
from raft.core.messages import AppendEntries, InstallSnapshot, InstallSnapshotReply
from tests.core.replica import Replica, acknowledge, acknowledge_all, settled_leader

#: Room for eight of the entries that these tests propose, with what they take beside their data.
DATA = b"x" * 1_000
ROOM = 8 * (len(DATA) + ENTRY_OVERHEAD_BYTES)


def leader_that_sends_b_a_snapshot() -> tuple[Replica, InstallSnapshot]:
    """The leader of a, b, c has forgotten what b lacks, and b has answered lately."""
    leader = settled_leader(catch_up_bytes_max=ROOM)
    leader.propose(b"lost on its way to b")
    acknowledge_all(leader, "c")
    leader.take_snapshot()
    leader.sent()
    leader.core.peer_lost("b", leader.now_ms)
    leader.drain()
    return leader, leader.one_sent(InstallSnapshot, "b")


def write(leader: Replica, count: int) -> None:
    """Entries that c has at once; b answers heartbeats and acknowledges nothing new."""
    for _ in range(count):
        leader.propose(DATA)
        acknowledge_all(leader, "c")


def test_what_a_snapshot_under_way_needs_behind_it_is_kept_although_newer_ones_are_taken() -> None:
    """Else the next one overtakes it, and the one after that, for as long as the load lasts."""
    leader, offered = leader_that_sends_b_a_snapshot()
    write(leader, 2)

    assert catching_up.needed_from(leader.core) == offered.snapshot.index + 1

    leader.take_snapshot(retain=leader.core.applied_index + 1 - catching_up.needed_from(leader.core))
    leader.core.snapshot_sent("b", delivered=True, now_ms=leader.now_ms)
    reply = InstallSnapshotReply("b", "a", leader.term, offered.sequence, offered.snapshot.index)
    leader.receive(reply)
    probe = leader.one_sent(AppendEntries, "b")
    assert offered.snapshot.index == probe.prev_log_index
    leader.receive(acknowledge(probe))

    acknowledge_all(leader)
    assert leader.core.progress["b"].match_index == leader.core.log.last_index
    assert catching_up.needed_from(leader.core) == leader.core.log.last_index + 1


def test_without_a_follower_that_is_behind_nothing_is_kept_and_nothing_is_refused() -> None:
    leader = settled_leader(catch_up_bytes_max=ROOM)

    for _ in range(20):
        leader.propose(DATA)
        acknowledge_all(leader)

    assert catching_up.needed_from(leader.core) == leader.core.log.last_index + 1


def test_proposals_are_refused_before_the_log_that_a_follower_needs_outgrows_its_bound() -> None:
    """A quarter of the room while nothing of the snapshot has come, and more with what has come of it."""
    leader, _ = leader_that_sends_b_a_snapshot()
    write(leader, 2)
    with pytest.raises(FollowerBehind):
        write(leader, 1)

    snapshotting.on_advanced(leader.core, "b", 0.5)
    write(leader, 3)
    with pytest.raises(FollowerBehind):
        write(leader, 1)

    snapshotting.on_advanced(leader.core, "b", 1.0)
    write(leader, 3)
    with pytest.raises(FollowerBehind):
        write(leader, 1)
    assert leader.core.log.counted_bytes(catching_up.needed_from(leader.core) - 1, leader.core.log.last_index) <= ROOM


def test_a_follower_that_does_not_answer_slows_nobody() -> None:
    """A dead member must not cost the group its writes."""
    leader, _ = leader_that_sends_b_a_snapshot()
    write(leader, 2)
    for _ in range(20):
        leader.pass_ms(50)
        acknowledge_all(leader, "c")

    write(leader, 20)

    assert catching_up.needed_from(leader.core) == leader.core.log.last_index + 1


def test_a_follower_that_answers_and_comes_no_further_is_let_go() -> None:
    """One without room for the snapshot, for example: tries to send it that fail are no progress."""
    leader, _ = leader_that_sends_b_a_snapshot()
    write(leader, 2)
    began_ms = leader.now_ms

    while leader.now_ms - began_ms <= leader.core.config.catch_up_patience_ms:
        leader.pass_ms(50)
        leader.receive(*map(acknowledge, leader.sent(AppendEntries)))
        leader.core.snapshot_sent("b", delivered=False, now_ms=leader.now_ms)
        leader.drain()

    write(leader, 20)


def test_a_follower_whose_entries_are_on_their_way_sets_the_pace_once_the_room_is_used_up() -> None:
    leader = settled_leader(catch_up_bytes_max=ROOM)
    kept: list[AppendEntries] = []

    for _ in range(8):
        leader.propose(DATA)
        for request in leader.sent(AppendEntries):
            if request.to == "b" and request.entries:
                kept.append(request)
            else:
                leader.receive(acknowledge(request))
    with pytest.raises(FollowerBehind):
        leader.propose(DATA)
    leader.receive(acknowledge(kept[0]))

    leader.propose(DATA)


def test_what_was_behind_the_snapshot_when_it_began_does_not_stop_the_writers() -> None:
    """The log since the last snapshot may take half of the room before anybody needs help."""
    leader = settled_leader(catch_up_bytes_max=ROOM)
    leader.propose(b"lost on its way to b")
    acknowledge_all(leader, "c")
    leader.take_snapshot()
    write(leader, 4)
    leader.sent()
    leader.core.peer_lost("b", leader.now_ms)
    leader.drain()
    leader.one_sent(InstallSnapshot, "b")

    write(leader, 1)
    with pytest.raises(FollowerBehind):
        write(leader, 1)


def test_time_goes_on_while_writers_are_slowed() -> None:
    """What expires must not wait for a follower."""
    leader, _ = leader_that_sends_b_a_snapshot()
    write(leader, 2)
    with pytest.raises(FollowerBehind):
        write(leader, 1)

    assert leader.core.propose_advance(leader.now_ms) == leader.core.log.last_index
