"""Elections by one core: timers, refusals, the fast path, stalls, CheckQuorum, a disk that hangs."""

import pytest

from raft.core.election import FAST_RETRIES_MAX
from raft.core.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from raft.core.types import NOBODY, Configuration, HardState, Role
from tests.core.replica import (
    FIVE,
    Disk,
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    entries,
    follower_of,
    heartbeat,
    leader_of,
    settled_leader,
    vote_reply,
    vote_request,
)

MIN_MS, MAX_MS = 400, 800


def answer(node: Replica, *, granted: bool = True) -> None:
    """The first peer asked answers the running round."""
    node.receive(vote_reply(node.sent(RequestVote)[0], granted=granted))


def lost_leader(**options) -> Replica:
    """A follower whose connection from its leader b just broke."""
    follower = follower_of("b", 1, **options)
    follower.core.peer_lost("b", follower.now_ms)
    return follower.drain()


# Who may win


def test_a_stale_answer_is_not_counted_in_a_later_round() -> None:
    """known bug 5: eliben/raft#13; rounds are told apart by their sequence, terms by the term."""
    node = Replica(pre_vote=False)
    node.time_out()
    first = node.sent(RequestVote)
    node.time_out()
    second = node.sent(RequestVote)

    node.receive(vote_reply(first[0]), vote_reply(first[1]))
    assert node.role is Role.CANDIDATE
    node.receive(vote_reply(second[0]))

    assert node.leads


def test_an_answer_to_the_pre_vote_is_no_vote() -> None:
    """known bug 5: the same peer, the same round number, another question."""
    node = Replica()
    node.time_out()
    pre_votes = node.sent(RequestVote)
    node.receive(vote_reply(pre_votes[0]))
    assert node.role is Role.CANDIDATE

    node.receive(vote_reply(pre_votes[0]), vote_reply(pre_votes[1]))

    assert node.role is Role.CANDIDATE


def test_one_peer_counts_once_however_often_it_answers() -> None:
    node = Replica(configuration=FIVE, pre_vote=False)
    node.time_out()
    request = node.sent(RequestVote)[0]

    node.receive(*[vote_reply(request)] * 5)

    assert node.role is Role.CANDIDATE


def test_a_candidate_that_cannot_win_any_more_gives_up() -> None:
    """Two of three refuse: waiting for the third would be of no use."""
    node = Replica(pre_vote=False)
    node.time_out()
    requests = node.sent(RequestVote)

    node.receive(*(vote_reply(request, granted=False) for request in requests))

    assert node.role is Role.FOLLOWER
    assert node.term == 1


def test_votes_of_learners_do_not_count() -> None:
    """Thesis 4.2.1."""
    node = Replica(configuration=Configuration(("a", "b", "c"), ("l",)), pre_vote=False)
    node.time_out()
    request = node.sent(RequestVote)[0]

    node.receive(RequestVoteReply("l", "a", node.term, request.sequence, True))

    assert node.role is Role.CANDIDATE


def test_a_candidate_does_not_ask_learners() -> None:
    node = Replica(configuration=Configuration(("a", "b", "c"), ("l",)), pre_vote=False)

    node.time_out()

    assert [request.to for request in node.sent(RequestVote)] == ["b", "c"]


@pytest.mark.parametrize("configuration", [Configuration(("b", "c"), ("a",)), Configuration()], ids=str)
def test_a_server_that_does_not_vote_does_not_campaign(configuration: Configuration) -> None:
    """known bug 14: learners, and servers that know no configuration yet."""
    node = Replica(configuration=configuration)

    node.run_ms(5_000)

    assert (node.role, node.term, node.sent()) == (Role.FOLLOWER, 0, [])


def test_a_repeated_vote_request_is_granted_again() -> None:
    """known bug 13: the first answer was lost; a refusal would stall the election."""
    voter = Replica()

    voter.receive(vote_request("b", 1), vote_request("b", 1))

    assert [reply.granted for reply in voter.sent(RequestVoteReply)] == [True, True]


# Timers


def test_a_refused_vote_request_does_not_postpone_the_own_election() -> None:
    """known bug 11 (hashicorp 30f065a): whoever asks often and cannot win would keep everybody from campaigning."""
    node = Replica(disk=Disk(HardState(1), entries(1, 1)))
    deadline_ms = node.core.next_deadline_ms()

    for term in range(2, 12):
        node.now_ms += 10
        node.receive(vote_request("b", term, (1, 1)))

    assert node.core.next_deadline_ms() == deadline_ms


def test_a_granted_vote_postpones_the_own_election() -> None:
    """known bug 11: the winner needs time to be heard."""
    node = Replica()
    node.now_ms += 300

    node.receive(vote_request("b", 1))

    assert node.core.next_deadline_ms() >= node.now_ms + MIN_MS


def test_a_pre_vote_touches_no_timer_term_or_vote() -> None:
    """known bug 10 (hashicorp 42d3446): granted or not."""
    node = Replica(disk=Disk(HardState(3, "c")))
    before = (node.core.next_deadline_ms(), node.core.state.hard_state, node.core.election.leader_contact_ms)
    node.now_ms += 100

    node.receive(vote_request("b", 4, pre_vote=True))

    assert node.one_sent(RequestVoteReply).granted
    after = (node.core.next_deadline_ms(), node.core.state.hard_state, node.core.election.leader_contact_ms)
    assert before == after


def test_timeouts_spread_over_the_whole_interval() -> None:
    """Paper 5.2: randomised, so that votes rarely split; the same seed draws the same."""
    drawn = {Replica(seed=seed).core.next_deadline_ms() - 1_000 for seed in range(200)}

    assert min(drawn) >= MIN_MS and max(drawn) <= MAX_MS
    assert min(drawn) < MIN_MS + 50 and max(drawn) > MAX_MS - 50
    assert Replica(seed=5).core.next_deadline_ms() == Replica(seed=5).core.next_deadline_ms()


def test_many_ticks_after_a_pause_make_one_campaign() -> None:
    """known bug 20: time is compared, ticks are not counted."""
    node = Replica()

    node.now_ms += 10 * MAX_MS
    for _ in range(50):
        node.core.tick(node.now_ms)
    node.drain()

    assert len(node.sent(RequestVote)) == 2


def test_a_clock_that_jumps_back_changes_nothing() -> None:
    """The core takes the highest time it was told."""
    node = follower_of("b", 1)
    deadline_ms = node.core.next_deadline_ms()

    node.core.tick(node.now_ms - 500)

    assert node.core.now_ms == node.now_ms
    assert node.core.next_deadline_ms() == deadline_ms


def test_a_refused_pre_vote_is_tried_again_soon() -> None:
    """The others' timeouts may run out a heartbeat after ours: waiting a whole one would double the failover."""
    node = Replica()
    node.time_out()

    for request in node.sent(RequestVote):
        node.receive(vote_reply(request, granted=False, term=0))

    assert node.role is Role.FOLLOWER
    assert node.core.next_deadline_ms() - node.now_ms <= 3 * node.core.config.heartbeat_ms


# Who hears a leader


def test_a_vote_request_is_ignored_while_a_leader_is_heard() -> None:
    """Paper 6, thesis 4.2.3: neither the term is adopted nor the vote given (known bug 14)."""
    follower = follower_of("b", 1)
    follower.now_ms += MIN_MS - 1

    follower.receive(vote_request("c", 9, (9, 9)))

    assert follower.term == 1
    assert not follower.one_sent(RequestVoteReply).granted


def test_hearing_ends_with_the_lower_bound_of_the_timeout() -> None:
    follower = follower_of("b", 1)
    follower.now_ms += MIN_MS

    follower.receive(vote_request("c", 2))

    assert follower.one_sent(RequestVoteReply).granted


def test_a_leader_with_its_quorum_ignores_a_vote_request() -> None:
    """Thesis 4.2.3: the leader hears itself, as long as a quorum answers it."""
    leader = settled_leader()
    leader.now_ms += MIN_MS - 1

    leader.receive(vote_request("b", 9, (9, 9)))

    assert leader.leads


def test_a_leader_without_its_quorum_gives_way() -> None:
    """Otherwise nobody could win before it notices."""
    leader = settled_leader()
    leader.now_ms += MIN_MS

    leader.receive(vote_request("b", 9, (9, 9)))

    assert not leader.leads
    assert leader.term == 9


def test_a_former_leader_grants_pre_votes() -> None:
    """known bug 7 (etcd#8334, raft-rs#84): it must not believe that it is still heard."""
    leader = settled_leader()
    leader.run_ms(MAX_MS + 100)
    assert leader.role is not Role.LEADER
    leader.sent()

    leader.receive(vote_request("b", leader.term + 1, (9, 9), pre_vote=True))

    assert leader.one_sent(RequestVoteReply).granted


def test_a_pre_vote_of_a_lower_term_is_answered_with_the_higher_one() -> None:
    """known bug 8 (etcd#8243): silence would leave the asker behind, and nobody might be left to win."""
    voter = Replica(disk=Disk(HardState(5)))

    voter.receive(vote_request("b", 2, pre_vote=True))

    reply = voter.one_sent(RequestVoteReply)
    assert (reply.granted, reply.term) == (False, 5)


@pytest.mark.parametrize("pre_vote", [True, False])
def test_an_election_is_won_beside_servers_with_the_other_setting(pre_vote: bool) -> None:
    """known bug 9 (etcd#8501): a group in which PreVote is switched on node by node."""
    node = Replica(pre_vote=pre_vote)
    peers = [Replica(id, pre_vote=not pre_vote) for id in "bc"]
    node.time_out()

    for _ in range(3):
        for request in node.sent(RequestVote):
            peer = next(p for p in peers if p.id == request.to)
            node.receive(peer.receive(request).one_sent(RequestVoteReply))

    assert node.leads


# The fast path


def test_a_broken_connection_from_the_leader_starts_a_pre_vote_at_once() -> None:
    """The design, section 7: after a small random delay instead of the election timeout."""
    follower = lost_leader()

    follower.time_out()

    assert follower.now_ms - 1_000 <= follower.core.config.fast_election_delay_max_ms
    assert all(request.pre_vote for request in follower.sent(RequestVote))


def test_a_broken_connection_from_another_peer_starts_nothing() -> None:
    follower = follower_of("b", 1)
    deadline_ms = follower.core.next_deadline_ms()

    follower.core.peer_lost("c", follower.now_ms)

    assert follower.core.next_deadline_ms() == deadline_ms


def test_a_connection_refused_again_and_again_does_not_postpone_the_pre_vote() -> None:
    """Reconnecting fails every few milliseconds while the leader is dead."""
    follower = lost_leader()
    deadline_ms = follower.core.next_deadline_ms()

    for _ in range(10):
        follower.core.peer_lost("b", follower.now_ms)

    assert follower.core.next_deadline_ms() == deadline_ms


def test_only_a_follower_that_lost_the_leader_itself_grants_the_fast_pre_vote() -> None:
    """One broken connection must not depose a leader whom all others hear."""
    hears, lost = follower_of("b", 1), lost_leader()

    for voter in (hears, lost):
        voter.receive(vote_request("c", 2, pre_vote=True))

    assert not hears.one_sent(RequestVoteReply).granted
    assert lost.one_sent(RequestVoteReply).granted


def test_fast_retries_slow_down_to_the_ordinary_timeout() -> None:
    """A node that alone lost its leader asks less and less often."""
    follower = lost_leader()
    delays = []

    for _ in range(FAST_RETRIES_MAX + 4):
        before_ms = follower.now_ms
        follower.time_out()
        delays.append(follower.now_ms - before_ms)
        for request in follower.sent(RequestVote):
            follower.receive(vote_reply(request, granted=False, term=1))
        follower.sent()

    assert delays[0] <= 40
    assert max(delays) <= MAX_MS
    assert delays[-1] >= follower.core.config.heartbeat_ms


def test_the_leader_heard_again_ends_the_alarm() -> None:
    """The connection came back: hearing counts again, and the timeout is a whole one."""
    follower = lost_leader()

    follower.receive(append("b", 1))
    follower.sent()
    follower.receive(vote_request("c", 2, pre_vote=True))

    assert not follower.one_sent(RequestVoteReply).granted
    assert follower.core.next_deadline_ms() - follower.now_ms >= MIN_MS


def test_a_leader_whose_follower_is_lost_probes_it_again() -> None:
    """What was on the way may be lost with the connection."""
    leader = settled_leader()
    leader.propose(b"x")
    leader.sent()

    leader.core.peer_lost("b", leader.now_ms)
    leader.drain()

    resent = leader.one_sent(AppendEntries, "b")
    assert (resent.prev_log_index, len(resent.entries)) == (1, 1)


# Stalls


def test_a_leader_that_stood_still_leads_no_more() -> None:
    """Another may have been elected meanwhile; what waits in the sockets is not believed first (cowsql#99)."""
    leader = settled_leader()
    leader.now_ms += 5_000

    leader.core.stalled(leader.now_ms)

    assert leader.role is Role.FOLLOWER
    assert leader.core.state.leader == NOBODY


def test_a_leader_that_stood_still_answers_no_read_from_before() -> None:
    """known bug 68: not even with acknowledgements that arrived while it slept."""
    leader = settled_leader()
    leader.read(1)
    requests = leader.sent(AppendEntries)

    leader.core.stalled(leader.now_ms + 5_000)
    leader.receive(*map(acknowledge, requests))

    assert [state.index for state in leader.read_states] == [0]


def test_a_follower_that_stood_still_waits_a_whole_timeout() -> None:
    """known bug 20: its leader's heartbeats are in its inbox; a campaign at once would disturb for nothing."""
    follower = follower_of("b", 1)
    follower.now_ms += 5_000

    follower.core.stalled(follower.now_ms)
    follower.core.tick(follower.now_ms)

    assert follower.role is Role.FOLLOWER
    assert follower.core.next_deadline_ms() >= follower.now_ms + MIN_MS


def test_a_candidate_that_stood_still_keeps_its_term() -> None:
    candidate = Replica(pre_vote=False)
    candidate.time_out()

    candidate.core.stalled(candidate.now_ms + 5_000)

    assert (candidate.role, candidate.term) == (Role.CANDIDATE, 1)


# A leader that should not lead


def test_a_leader_without_acknowledgements_steps_down() -> None:
    """CheckQuorum, thesis 6.2: its clients find another leader instead of waiting for it."""
    leader = settled_leader()

    leader.run_ms(MAX_MS)
    assert leader.leads
    leader.run_ms(100)

    assert leader.role is not Role.LEADER


def test_a_leader_with_a_quorum_stays() -> None:
    """One silent follower of two is no reason."""
    leader = settled_leader()

    for _ in range(40):
        leader.receive(*(acknowledge(request) for request in heartbeat(leader) if request.to == "b"))

    assert leader.leads


def test_answers_to_old_requests_do_not_keep_a_leader() -> None:
    """known bug 69's neighbour: contact is dated from when the request was sent."""
    leader = settled_leader()
    old = heartbeat(leader)

    for _ in range(16):
        heartbeat(leader)
    leader.receive(*map(acknowledge, old))
    leader.pass_ms(60)

    assert not leader.leads


def test_a_leader_whose_disk_hangs_steps_down_within_two_election_timeouts() -> None:
    """known bug 38: heartbeats alone would keep it for ever, with nothing committed."""
    leader = settled_leader()
    leader.disk_holds = True
    leader.propose(b"x")
    started_ms = leader.now_ms

    while leader.leads and leader.now_ms < started_ms + 10_000:
        leader.receive(*(acknowledge(request) for request in heartbeat(leader)))

    assert leader.now_ms - started_ms <= 2 * MAX_MS


def test_a_leader_whose_disk_hangs_steps_down_though_reads_keep_it_busy() -> None:
    """known bug 38: read rounds are confirmed without the disk, and must not put off the look at it."""
    leader = settled_leader()
    leader.disk_holds = True
    leader.propose(b"x")
    started_ms = leader.now_ms

    for context in range(1_000):
        if not leader.leads:
            break
        leader.read(context)
        acknowledge_all(leader)
        leader.pass_ms(10)

    assert leader.now_ms - started_ms <= 2 * MAX_MS


def test_a_node_whose_disk_hangs_is_not_elected() -> None:
    """Its requests wait for its own vote, and that waits for the disk."""
    node = Replica()
    node.disk_holds = True

    node.time_out()
    answer(node)
    node.run_ms(3_000)

    assert not node.leads
    assert all(request.pre_vote for request in node.sent(RequestVote))


def test_a_disk_that_is_slow_but_answers_keeps_the_leader() -> None:
    leader = settled_leader()
    leader.disk_holds = True

    for _ in range(20):
        leader.propose(b"x")
        leader.receive(*(acknowledge(request) for request in heartbeat(leader)))
        leader.sync()

    assert leader.leads


def test_a_higher_term_in_any_answer_deposes_a_leader() -> None:
    """Paper 5.1."""
    leader = settled_leader()

    leader.receive(AppendEntriesReply("b", "a", leader.term + 3, 1, False))

    assert leader.role is Role.FOLLOWER
    assert leader.term == 4


def test_a_split_vote_is_followed_by_a_new_round_in_a_later_term() -> None:
    node = Replica(configuration=FIVE, pre_vote=False)
    node.time_out()
    answer(node)

    node.time_out()

    assert node.term == 2
    assert {request.term for request in node.sent(RequestVote)} == {2}


def test_a_candidate_asks_again_whether_it_could_win() -> None:
    """With PreVote a campaign that timed out is followed by a pre-vote: an isolated candidate's term stands still."""
    node = Replica()
    node.time_out()
    answer(node)
    assert node.role is Role.CANDIDATE

    for _ in range(10):
        node.time_out()

    assert (node.role, node.term) == (Role.PRE_CANDIDATE, 1)


def test_elections_are_counted() -> None:
    leader = leader_of()
    acknowledge_all(leader)

    status = leader.core.status()

    assert (status.elections, status.leader_changes, status.leader) == (1, 1, "a")
