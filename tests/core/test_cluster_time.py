"""The group's clock (raft/core/cluster_time.py): what is lost with a leader, and that nothing ends early."""

from dataclasses import replace

from raft.core.messages import AppendEntries, InstallSnapshot, RequestVote
from raft.core.types import Entry, EntryKind, Role, SnapshotMeta
from tests.core.replica import THREE, Replica, append, entry, follower_of, settled_leader, vote_reply


def told(follower: Replica, time_ms: int, *, leader: str = "b", term: int = 1, **options) -> None:
    """A leader's message that says so; at first with its no-op, which it stamped at 0."""
    follower.receive(replace(append(leader, term, **options), time_ms=time_ms))


def holding_a_no_op(**options) -> Replica:
    """A follower of `b` with the no-op of term 1."""
    follower = follower_of("b", 1, **options)
    follower.receive(append("b", 1, new=[entry(1, 1, b"", EntryKind.NOOP)], commit=1, sequence=2))
    return follower


def elect(replica: Replica) -> Entry:
    """Let its timeout pass and `c` vote for it; its no-op."""
    replica.sent()
    replica.time_out()
    while not replica.leads:
        for request in replica.sent(RequestVote, "c"):
            replica.receive(vote_reply(request))
    return replica.core.log.entry(replica.core.term_start_index)


def test_every_message_of_a_leader_says_the_time() -> None:
    leader = settled_leader(check_quorum=False)
    leader.sent()

    leader.run_ms(6_000)

    newest = leader.sent(AppendEntries)[-1]
    assert newest.time_ms - leader.core.log.last_time_ms >= 5_900


def test_time_that_passed_under_an_idle_leader_is_not_lost_with_it() -> None:
    """6 s without an entry: the new leader begins from them, and what was due after 8 s is due in 2."""
    follower = holding_a_no_op()
    told(follower, 6_000, previous=(1, 1), sequence=3)

    assert elect(follower).time_ms == 6_000


def test_time_stands_still_while_there_is_no_leader() -> None:
    """Whoever holds a lock with a ttl can renew it before it ends."""
    follower = holding_a_no_op()
    told(follower, 6_000, previous=(1, 1), sequence=3)
    follower.now_ms += 3_600_000

    assert elect(follower).time_ms == 6_000


def test_the_word_of_a_deposed_leader_does_not_count_for_an_entry_of_its_successor() -> None:
    """Goal: never early. `b` was cut off at 5,000 and went on to tell 5,900 to this node alone; `c` began from 5,000,
    and gave somebody a lock at 5,100, for which nobody has waited another 800 ms. However the entry comes here."""
    by_entry, by_snapshot = holding_a_no_op(), holding_a_no_op()
    for follower in (by_entry, by_snapshot):
        told(follower, 5_900, previous=(1, 1), sequence=3)

    told(
        by_entry,
        5_150,
        leader="c",
        term=2,
        previous=(1, 1),
        new=[Entry(2, 2, 5_100, EntryKind.COMMAND, b"lock")],
    )
    by_snapshot.receive(InstallSnapshot("c", "a", 2, 1, SnapshotMeta(2, 2, 5_100, THREE)))

    assert elect(by_entry).time_ms == 5_150
    assert elect(by_snapshot).time_ms == 5_100


def test_a_leader_of_whose_term_the_log_holds_nothing_does_not_count() -> None:
    """Goal: never early. Its clock goes on from another log than this one."""
    follower = holding_a_no_op()
    told(follower, 9_000, leader="c", term=2, previous=(4, 2))

    assert elect(follower).time_ms == 0


def test_a_message_that_was_overtaken_takes_nothing_back() -> None:
    follower = holding_a_no_op()
    told(follower, 6_000, previous=(1, 1), sequence=4)
    told(follower, 5_950, previous=(1, 1), sequence=3)

    assert elect(follower).time_ms == 6_000


def test_a_leader_that_steps_down_and_leads_again_goes_on_from_what_it_told() -> None:
    leader = settled_leader()
    began_ms = leader.core.log.last_time_ms
    leader.run_ms(700)

    leader.core.stalled(leader.now_ms + 60_000)
    leader.now_ms += 60_000

    assert leader.role is Role.FOLLOWER
    assert 650 <= elect(leader).time_ms - began_ms <= 700


def test_a_follower_estimates_the_time_from_what_it_last_heard() -> None:
    """Not from the last entry: a new leader began from less than this node's clock would make of that."""
    follower = holding_a_no_op()
    told(follower, 6_000, previous=(1, 1), sequence=3)
    follower.now_ms += 40
    before = follower.core.estimated_time_ms(follower.now_ms)
    follower.now_ms += 900

    told(follower, 6_100, leader="c", term=2, previous=(1, 1))

    assert before == 6_040
    assert follower.core.estimated_time_ms(follower.now_ms + 5) == 6_105


def test_a_node_that_heard_of_no_leader_yet_shows_the_time_of_its_log() -> None:
    follower = holding_a_no_op()
    follower.receive(append("b", 1, (1, 1), [Entry(2, 1, 70, EntryKind.ADVANCE, b"")], sequence=3))

    follower.restart()

    assert follower.core.estimated_time_ms(follower.now_ms + 500) == 70


def test_the_log_is_brought_the_time_though_what_is_due_is_far_off() -> None:
    """Goal: a restart of all nodes loses at most so much."""
    leader = settled_leader(time_entry_ms=1_000)
    last_ms = leader.core.log.last_time_ms

    assert leader.core.time_entry_due_ms(last_ms + 60_000) == last_ms + 1_000
    assert leader.core.time_entry_due_ms(last_ms + 30) == last_ms + 30
