"""Read leases: every rule that raft/core/leases.py states, from the outside of one core.

The leader is `a`, with `b` and `c` as peers; L is 600 ms, drift 5 %, so no lease outlives 632 ms of anyone's clock.
"""

from dataclasses import replace

from raft.core import leases
from raft.core.lease_records import HELD_MAX
from raft.core.membership import changed, encode_configuration
from raft.core.messages import AppendEntries, AppendEntriesReply, Applied
from raft.core.types import Configuration, EntryKind
from tests.core.replica import (
    Replica,
    acknowledge,
    append,
    entries,
    entry,
    follower_of,
    leader_of,
    vote_request,
)

LEASE = {"lease_ms": 600, "lease_drift_percent": 5}
#: A group that has agreed on that length.
AGREED = Configuration(("a", "b", "c"), lease_ms=600)
#: L(1 + drift) and the clock's tick.
LONGEST_MS = 632


def answer(request: AppendEntries, *, applied: int, number: int = 7) -> AppendEntriesReply:
    """The peer holds it durably, has applied so much, and calls its reply `number`."""
    return replace(acknowledge(request, applied=applied), number=number)


def leading(*peers: str) -> Replica:
    """A leader whose no-op is applied by itself and by `peers`; the others never answered. It stays in office
    however long nobody answers, so that time alone can be looked at."""
    leader = leader_of(AGREED, check_quorum=False, **LEASE)
    for _ in range(2):
        for request in leader.sent(AppendEntries):
            if request.to in peers:
                leader.receive(answer(request, applied=leader.core.applied_index))
    return leader


def heartbeat(leader: Replica, to: str) -> AppendEntries:
    """The next heartbeat to this peer."""
    leader.sent()
    leader.pass_ms(leader.core.config.heartbeat_ms)
    return leader.sent(AppendEntries, to)[-1]


def granted(leader: Replica, to: str) -> tuple[int, int]:
    """The grant that what was sent to this peer carries, the next heartbeat included."""
    leader.pass_ms(leader.core.config.heartbeat_ms)
    return max(message.lease for message in leader.sent(AppendEntries, to))


def may_serve(replica: Replica) -> bool:
    return leases.is_valid(replica.core, replica.now_ms)


def following(**options: int) -> Replica:
    return follower_of("b", 1, **LEASE, **options)


def give(follower: Replica, duration_ms: int, *, sent_ms_ago: int = 0) -> None:
    """A heartbeat that the follower answers now, and after `sent_ms_ago` the grant for that answer."""
    follower.receive(append("b", 1, sequence=50))
    number = follower.one_sent(AppendEntriesReply).number
    follower.pass_ms(sent_ms_ago)
    follower.receive(replace(append("b", 1, sequence=51), lease=(number, duration_ms)))


# Who may serve


def test_without_a_lease_nobody_serves() -> None:
    assert not may_serve(following())
    assert not may_serve(Replica(**LEASE))


def test_a_follower_counts_its_lease_from_when_it_sent_the_reply() -> None:
    """Goal: counted from receipt it would outlive what the leader reckons with."""
    follower = following()

    give(follower, 600, sent_ms_ago=100)

    assert may_serve(follower.pass_ms(499))
    assert not may_serve(follower.pass_ms(1))


def test_a_grant_for_a_reply_of_an_earlier_life_counts_for_nothing() -> None:
    """Goal: the request was doubled on the way; the second life's reply to it is later than the one that the leader
    dated the grant by."""
    first = following()
    first.receive(append("b", 1, sequence=50))
    number = first.one_sent(AppendEntriesReply).number
    first.now_ms += 1
    first.restart()
    first.receive(append("b", 1, sequence=50))

    first.receive(replace(append("b", 1, sequence=51), lease=(number, 600)))

    assert not may_serve(first)


def test_a_lease_survives_a_change_of_leaders() -> None:
    """Goal: the new leader waits it out."""
    follower = following()
    give(follower, 600)

    follower.receive(append("c", 2))

    assert may_serve(follower.pass_ms(300))


def test_a_stall_ends_the_lease() -> None:
    follower = following()
    give(follower, 600)

    follower.core.stalled(follower.now_ms)

    assert not may_serve(follower)


def test_a_leader_serves_until_a_lease_after_its_last_round_that_a_quorum_answered() -> None:
    leader = leading("b", "c")
    request = heartbeat(leader, "b")
    sent_ms = leader.now_ms
    leader.pass_ms(20)
    leader.receive(answer(request, applied=leader.core.applied_index))

    leader.now_ms = sent_ms + 599
    assert may_serve(leader)
    leader.now_ms = sent_ms + 600
    assert not may_serve(leader)


def test_a_leader_that_has_not_applied_its_no_op_serves_nothing() -> None:
    assert not may_serve(leader_of(AGREED, **LEASE))


# Granting


def test_a_grant_names_the_reply_and_is_bounded_by_the_leaders_own_lease() -> None:
    leader = leading("b", "c")
    request = heartbeat(leader, "b")
    leader.pass_ms(30)

    leader.receive(answer(request, applied=leader.core.applied_index, number=41))

    # Of the 600 ms, 30 passed since the round was sent, and one may have in the clock's last tick.
    assert granted(leader, "b") == (41, 569)


def test_a_leader_that_hears_one_of_four_peers_stops_renewing_that_ones_lease() -> None:
    """Goal: the other three may have elected another; without the bound by Q its lease would run on and on."""
    leader = leader_of(Configuration(("a", "b", "c", "d", "e"), lease_ms=600), check_quorum=False, **LEASE)
    for _ in range(2):
        for request in leader.sent(AppendEntries):
            leader.receive(answer(request, applied=leader.core.applied_index))
    last = []

    for _ in range(16):
        request = heartbeat(leader, "b")
        leader.receive(answer(request, applied=leader.core.applied_index))
        last.append(leader.core.leases.may_serve_until_ms("b"))

    assert last[-1] == last[10] <= leader.now_ms
    assert granted(leader, "b") == (0, 0)


def test_a_new_leader_grants_nothing_to_a_node_that_has_not_applied_its_no_op() -> None:
    leader = leading("b")

    leader.receive(answer(heartbeat(leader, "c"), applied=0))

    assert granted(leader, "c") == (0, 0)


def test_a_lapsed_lease_is_given_anew_only_behind_what_was_answered_without_it() -> None:
    leader = leading("b", "c")
    behind = leader.core.applied_index
    index = leader.propose(b"x")
    leader.pass_ms(leader.core.leases.may_serve_until_ms("b") - leader.now_ms)

    assert leases.is_done(leader.core, "b", index)
    leader.receive(answer(heartbeat(leader, "b"), applied=behind))
    assert granted(leader, "b") == (0, 0)
    leader.receive(answer(heartbeat(leader, "b"), applied=index))
    leader.receive(answer(heartbeat(leader, "c"), applied=index))
    leader.receive(answer(heartbeat(leader, "b"), applied=index))
    assert granted(leader, "b")[1] > 0


def test_a_node_that_answers_but_lags_is_given_no_lease() -> None:
    """Goal: it is waited for no longer than a dead one, not for as long as it lags."""
    leader = leading("b", "c")
    behind = leader.core.applied_index
    leader.propose(b"x")
    for request in leader.sent(AppendEntries, "c"):
        leader.receive(answer(request, applied=behind))

    for _ in range(20):
        request = heartbeat(leader, "b")
        leader.receive(answer(request, applied=behind))
        leader.receive(*(answer(r, applied=behind + 1) for r in leader.sent(AppendEntries, "c")))

    assert granted(leader, "b") == (0, 0)
    assert leases.is_done(leader.core, "b", behind + 1)


def test_rounds_for_reads_do_not_keep_leases_from_a_node_that_applies_a_little_later() -> None:
    """Two heartbeats are the measure of lag, however many rounds go out meanwhile."""
    leader = leading("b", "c")

    for step in range(100):
        behind = max(1, leader.core.applied_index - 4)
        leader.propose(b"x")
        leader.read(step)
        leader.pass_ms(2)
        for request in leader.sent(AppendEntries):
            leader.receive(
                answer(request, applied=behind if request.to == "b" else leader.core.applied_index)
            )

    assert leader.core.leases.may_serve_until_ms("b") - leader.now_ms > 500


def test_a_node_of_a_configuration_that_is_not_committed_is_given_no_lease() -> None:
    """Goal: the next leader may not know of it, and so could not wait for it."""
    leader = leading("b", "c")
    behind = leader.core.applied_index
    index = leader.configure(changed(AGREED, add="d"))

    leader.receive(answer(heartbeat(leader, "d"), applied=behind))
    before = granted(leader, "d")
    for _ in range(3):
        leader.pass_ms(50)
        for request in leader.sent(AppendEntries):
            leader.receive(answer(request, applied=leader.core.applied_index))

    assert before == (0, 0)
    assert leader.core.log.commit_index >= index
    assert granted(leader, "d")[1] > 0


def test_a_lease_does_not_run_on_while_the_leader_looks_at_nothing() -> None:
    """Goal: how long a removal can be unknown to a node that serves must not depend on heartbeats, which nodes may
    be set differently for."""
    leader = leader_of(AGREED, check_quorum=False, heartbeat_ms=1_000, **LEASE)
    for _ in range(2):
        for request in leader.sent(AppendEntries):
            leader.receive(answer(request, applied=leader.core.applied_index))
    marked_ms = leader.now_ms
    leader.pass_ms(900)
    leader.propose(b"x")

    for request in leader.sent(AppendEntries):
        leader.receive(answer(request, applied=leader.core.term_start_index))

    assert leader.core.leases.may_serve_until_ms("b") <= marked_ms + 1_200 + 16


# Nodes that are set differently


def acknowledged(leader: Replica) -> None:
    """Every peer holds and has applied all, and the next heartbeats have been answered."""
    for _ in range(4):
        leader.pass_ms(50)
        while requests := leader.sent(AppendEntries):
            leader.receive(*(answer(request, applied=leader.core.applied_index) for request in requests))


def test_nothing_is_given_before_the_group_has_agreed_on_a_length() -> None:
    leader = leader_of(**LEASE)
    for request in leader.sent(AppendEntries):
        leader.receive(answer(request, applied=1))
    leader.receive(*(answer(request, applied=1) for request in leader.sent(AppendEntries)))
    before = (granted(leader, "b"), may_serve(leader))

    acknowledged(leader)

    assert before == ((0, 0), False)
    assert leader.core.configuration == AGREED
    assert granted(leader, "b")[1] > 500
    assert may_serve(leader)


def test_a_leader_gives_longer_leases_only_once_that_is_agreed_upon() -> None:
    """Goal: a leader after it would not wait for them."""
    leader = leader_of(AGREED, check_quorum=False, lease_ms=1_200)
    for request in leader.sent(AppendEntries):
        leader.receive(answer(request, applied=1))
    leader.receive(*(answer(request, applied=1) for request in leader.sent(AppendEntries)))
    before = granted(leader, "b")[1]

    acknowledged(leader)

    assert 500 < before <= 600
    assert leader.core.configuration.lease_ms == 1_200
    assert granted(leader, "b")[1] > 1_100


def test_a_new_leader_waits_out_what_the_group_agreed_upon_whatever_it_gives_itself() -> None:
    leader = leader_of(AGREED, lease_ms=300, lease_drift_percent=5)

    assert leader.core.leases.may_serve_until_ms("unheard of") == leader.now_ms + LONGEST_MS


def test_shorter_leases_are_agreed_upon_once_nothing_longer_can_run() -> None:
    """Goal: what a node holds was given by an earlier leader; the one after this one must still wait for it."""
    leader = leader_of(AGREED, check_quorum=False, lease_ms=300, lease_drift_percent=5)
    elected_ms = leader.now_ms

    acknowledged(leader)
    given = granted(leader, "b")[1]
    while leader.now_ms < elected_ms + LONGEST_MS:
        assert leader.core.configuration.lease_ms == 600
        leader.pass_ms(10)
    acknowledged(leader)

    assert 200 < given <= 300
    assert leader.core.configuration.lease_ms == 300


def test_what_was_removed_may_be_unknown_for_as_long_as_the_group_agreed_upon() -> None:
    shorter = Replica(configuration=AGREED, lease_ms=300, lease_drift_percent=5)

    assert leases.removal_unknown_ms(shorter.core) == 3 * LONGEST_MS


# Waiting


def test_a_node_is_done_once_it_has_applied_the_entry_or_its_lease_is_over() -> None:
    leader = leading("b", "c")
    index = leader.propose(b"x")

    assert not leases.is_done(leader.core, "b", index)
    leader.receive(Applied("b", "a", leader.term, 0, index))
    assert leases.is_done(leader.core, "b", index)
    assert not leases.is_done(leader.core, "c", index)
    leader.pass_ms(leader.core.leases.may_serve_until_ms("c") - leader.now_ms)
    assert leases.is_done(leader.core, "c", index)


def test_a_server_under_the_id_of_one_that_was_removed_does_not_speak_for_it() -> None:
    """Goal: the one that was removed does not know it and serves on by its lease, whatever the new one applies."""
    leader = leading("b", "c")
    acknowledged(leader)
    until_ms = leader.core.leases.may_serve_until_ms("c")
    leader.configure(changed(leader.core.configuration, remove="c"))
    leader.receive(*(answer(request, applied=1) for request in leader.sent(AppendEntries, "b")))
    leader.configure(changed(leader.core.configuration, add="c"))
    index = leader.propose(b"x")

    leader.receive(Applied("c", "a", leader.term, 0, index))

    assert leader.now_ms < until_ms
    assert not leases.is_done(leader.core, "c", index)
    leader.pass_ms(until_ms - leader.now_ms)
    assert leases.is_done(leader.core, "c", index)


def test_no_node_is_done_before_every_lease_of_an_earlier_leader_has_ended() -> None:
    leader = leading("b")
    elected_ms = leader.now_ms

    assert not leases.is_done(leader.core, "c", leader.core.applied_index)
    assert leader.core.leases.may_serve_until_ms("unheard of") == elected_ms + LONGEST_MS


def test_answers_stay_shut_until_every_node_has_applied_the_no_op_or_the_longest_lease_is_over() -> None:
    everywhere, elsewhere = leading("b", "c"), leading("b")
    for leader in (everywhere, elsewhere):
        # Nobody has left lately.
        leader.core.leases.members_changed_ms -= LONGEST_MS
    for request in everywhere.sent(AppendEntries):
        everywhere.receive(answer(request, applied=everywhere.core.applied_index))

    assert leases.is_open(everywhere.core)
    assert not leases.is_open(elsewhere.core)
    elsewhere.pass_ms(LONGEST_MS)
    assert leases.is_open(elsewhere.core)


def test_a_member_that_left_lately_is_waited_out() -> None:
    """Goal: it may hold a lease of an earlier leader's, and nobody hears from it any more."""
    leader = leading("b", "c")
    leader.core.leases.members_changed_ms = leader.now_ms
    for request in leader.sent(AppendEntries):
        leader.receive(answer(request, applied=leader.core.applied_index))

    assert not leases.is_open(leader.core)
    leader.pass_ms(LONGEST_MS)
    assert leases.is_open(leader.core)


def test_a_server_that_is_removed_and_added_again_at_once_counts_as_one_that_left() -> None:
    """Goal: a follower may learn of both in one message."""
    follower = follower_of("b", 1, configuration=AGREED, **LEASE)
    follower.pass_ms(5)
    without = changed(AGREED, remove="c")
    changes = [without, changed(without, add="c")]

    follower.receive(
        append(
            "b",
            1,
            new=[
                entry(index, 1, encode_configuration(each), EntryKind.CONFIGURATION)
                for index, each in enumerate(changes, 1)
            ],
            sequence=2,
        )
    )

    assert follower.core.leases.members_changed_ms == follower.now_ms


def test_a_length_that_is_agreed_upon_makes_nobody_leave() -> None:
    leader = leader_of(**LEASE)
    began_ms = leader.core.leases.members_changed_ms

    acknowledged(leader)

    assert leader.core.configuration == AGREED
    assert leader.core.leases.members_changed_ms == began_ms


def test_a_new_configuration_counts_as_a_member_that_may_have_left() -> None:
    leader = leading("b", "c")
    leader.pass_ms(5)

    leader.configure(changed(AGREED, remove="c"))

    assert leader.core.leases.members_changed_ms == leader.now_ms


# Releases


def test_a_release_rides_on_every_message_until_a_newer_one() -> None:
    leader = leading("b", "c")

    leader.core.publish_release((5, (3,)), frozenset({"b"}))
    leader.drain()

    for _ in range(3):
        message = heartbeat(leader, "b")
        assert (message.release, message.wants_applied) == ((5, (3,)), True)


def test_a_new_release_is_sent_at_once() -> None:
    leader = leading("b", "c")
    for request in leader.sent(AppendEntries):
        leader.receive(answer(request, applied=leader.core.applied_index))
    leader.sent()

    leader.core.publish_release((1, ()), frozenset())
    leader.drain()

    assert {message.to for message in leader.sent(AppendEntries)} == {"b", "c"}


def test_a_follower_answers_what_is_released_and_not_held() -> None:
    follower = following()

    follower.receive(replace(append("b", 1, sequence=2), release=(5, (3,))))

    assert [follower.core.leases.is_released(index) for index in (2, 3, 5, 6)] == [True, False, True, False]


def test_an_older_release_that_comes_late_takes_nothing_back() -> None:
    follower = following()
    follower.receive(replace(append("b", 1, sequence=3), release=(5, ())))

    follower.receive(replace(append("b", 1, sequence=2), release=(4, (3,))))

    assert follower.core.leases.is_released(3)
    assert follower.core.leases.is_released(5)


def test_with_too_many_held_everything_behind_the_first_is() -> None:
    leader = leading("b", "c")

    leader.core.publish_release((5_000, tuple(range(1_000, 1_000 + HELD_MAX + 1))), frozenset())

    assert leader.core.leases.is_released(999)
    assert not leader.core.leases.is_released(4_999)


def test_a_deposed_leader_releases_nothing_any_more() -> None:
    leader = leading("b", "c")
    leader.core.publish_release((5, ()), frozenset())

    leader.receive(vote_request("b", 9, (9, 9), transfer=True))

    assert not leader.core.leases.is_released(1)


def test_a_follower_that_is_waited_for_says_so_once_it_has_applied() -> None:
    follower = following()

    follower.receive(replace(append("b", 1, new=entries(1), sequence=2, commit=1), wants_applied=True))

    assert [message.applied_index for message in follower.sent(Applied)] == [1]
