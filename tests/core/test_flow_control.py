"""How much a leader sends ahead of the answers, and how it notices that something was lost (etcd's flow control)."""

from raft.core.messages import AppendEntries
from tests.core.replica import (
    Replica,
    acknowledge,
    acknowledge_all,
    append,
    heartbeat,
    leader_of,
    refuse,
    settled_leader,
)


def test_messages_do_not_multiply_under_a_steady_load() -> None:
    """The answer to a question about lost messages must not bring the next question: a load of one proposal in
    four milliseconds over a network of three milliseconds needs as many messages later as at first."""
    leader = settled_leader()
    followers = {peer: Replica(peer) for peer in "bc"}
    for follower in followers.values():
        follower.receive(append("a", leader.term, new=[leader.core.log.entry(1)], to=follower.id)).sent()
    on_the_way: list[tuple[int, AppendEntries]] = []
    sent_per_window = [0] * 5

    for half_ms in range(2_000):
        arrived = [message for due, message in on_the_way if due <= half_ms]
        on_the_way = [(due, message) for due, message in on_the_way if due > half_ms]
        for message in arrived:
            (leader if message.to == "a" else followers[message.to]).receive(message)
        if half_ms % 8 == 0:
            leader.propose(b"x")
        leader.pass_ms(half_ms % 2)
        for message in leader.sent() + followers["b"].sent() + followers["c"].sent():
            on_the_way.append((half_ms + 6, message))
            sent_per_window[half_ms // 400] += isinstance(message, AppendEntries)

    assert sent_per_window[-1] <= sent_per_window[1] * 1.2, sent_per_window


def test_a_leader_sends_no_more_than_the_window_allows() -> None:
    """known bug 36 (etcd#14624): a slow follower must not fill memory and network."""
    leader = settled_leader(inflight_messages_max=3, append_entries_max=1)

    for number in range(10):
        leader.propose(b"%d" % number)

    assert len(leader.sent(AppendEntries, "b")) == 3
    assert leader.core.progress["b"].inflight_messages == 3


def test_a_window_in_bytes_is_overrun_by_one_message_at_most() -> None:
    """known bug 36: the bound is looked at before each message, whose own size is bounded."""
    leader = settled_leader(inflight_bytes_max=100, append_bytes_max=60)

    for _ in range(10):
        leader.propose(b"x" * 40)

    sent = sum(len(e.data) for request in leader.sent(AppendEntries, "b") for e in request.entries)
    assert 100 <= sent <= 160


def test_acknowledgements_open_the_window_again() -> None:
    leader = settled_leader(inflight_messages_max=2, append_entries_max=1)
    for number in range(4):
        leader.propose(b"%d" % number)
    requests = leader.sent(AppendEntries, "b")
    assert [request.entries[0].index for request in requests] == [2, 3]

    leader.receive(acknowledge(requests[0]))

    assert [e.index for request in leader.sent(AppendEntries, "b") for e in request.entries] == [4]


def test_a_follower_that_is_probed_gets_one_message_at_a_time() -> None:
    """etcd's probe_and_replicate: where the logs meet is unknown, so sending ahead would be guessing."""
    leader = leader_of()
    leader.sent()

    for _ in range(5):
        leader.propose(b"x")

    assert leader.sent(AppendEntries) == []


def test_a_lost_probe_is_sent_again_when_a_heartbeat_is_answered() -> None:
    """etcd's heartbeat_resp_recovers_from_probing."""
    leader = leader_of()
    leader.sent()

    beat = next(request for request in heartbeat(leader) if request.to == "b")
    leader.receive(acknowledge(beat))

    probe = leader.one_sent(AppendEntries, "b")
    assert (probe.prev_log_index, len(probe.entries)) == (0, 1)


def test_lost_entries_are_noticed_by_a_heartbeats_answer() -> None:
    """known bug 37, etcd's replicate_pause: a full window of lost messages makes no sound."""
    leader = settled_leader(inflight_messages_max=2, append_entries_max=1)
    for _ in range(3):
        leader.propose(b"x")
    leader.sent()

    beat = next(request for request in heartbeat(leader) if request.to == "b")
    leader.receive(acknowledge(beat))
    question = leader.one_sent(AppendEntries, "b")
    assert (question.prev_log_index, question.entries) == (3, ())
    leader.receive(refuse(question, 1, 1))

    assert [e.index for e in leader.one_sent(AppendEntries, "b").entries] == [2]


def test_entries_that_only_lost_their_answer_are_not_sent_again() -> None:
    """The question is answered with the whole match: nothing is resent."""
    leader = settled_leader(inflight_messages_max=2, append_entries_max=1)
    for _ in range(2):
        leader.propose(b"x")
    leader.sent()

    beat = next(request for request in heartbeat(leader) if request.to == "b")
    leader.receive(acknowledge(beat))
    leader.receive(acknowledge(leader.one_sent(AppendEntries, "b")))

    assert [request.entries for request in leader.sent(AppendEntries, "b")] in ([], [()])
    assert leader.core.progress["b"].match_index == 3


def test_a_stalled_follower_catches_up_without_a_restart() -> None:
    """known bug 37 (hashicorp#612): its disk stands still for a minute of writes."""
    leader = settled_leader(inflight_messages_max=4, append_entries_max=2, uncommitted_bytes_max=1 << 20)
    slow = Replica("b")
    slow.receive(append("a", leader.term, new=[leader.core.log.entry(1)], to="b")).sent()
    slow.disk_holds = True

    def exchange() -> None:
        for request in leader.sent(AppendEntries):
            if request.to == "c":
                leader.receive(acknowledge(request))
            else:
                leader.receive(*slow.receive(request).sent())
        leader.receive(*slow.sent())

    for _ in range(300):
        leader.propose(b"x")
        leader.pass_ms(200)
        exchange()
    assert leader.core.progress["b"].match_index == 1
    assert slow.core.log.last_index <= 10
    slow.disk_holds = False
    slow.sync()
    for _ in range(200):
        leader.pass_ms(50)
        exchange()

    assert slow.core.log.last_index == leader.core.log.last_index == 301
    assert slow.core.log.commit_index == 301


def test_heartbeats_go_on_while_the_window_is_full() -> None:
    """known bug 44's neighbour: a slow follower must not take its leader for dead."""
    leader = settled_leader(inflight_messages_max=1, append_entries_max=1)
    leader.propose(b"x")
    leader.propose(b"y")

    assert {request.to for request in heartbeat(leader)} == {"b", "c"}


def test_one_slow_follower_does_not_slow_the_others() -> None:
    """Paper 5.3: a minority of slow servers need not impact the system."""
    leader = settled_leader(inflight_messages_max=1, append_entries_max=1)

    for number in range(5):
        leader.propose(b"%d" % number)
        acknowledge_all(leader, "b")

    assert leader.core.log.commit_index == 6
    assert leader.core.progress["c"].match_index == 1


def test_a_commit_that_nobody_waits_for_is_told_a_little_later() -> None:
    """Under load it rides on the next entries; a message of its own would double the messages of a write."""
    leader = settled_leader(commit_notice_ms=5)
    leader.propose(b"x")
    leader.receive(*map(acknowledge, leader.sent(AppendEntries)))
    assert leader.sent(AppendEntries) == []

    leader.pass_ms(leader.core.next_deadline_ms() - leader.now_ms)

    assert {(notice.to, notice.leader_commit) for notice in leader.sent(AppendEntries)} == {
        ("b", 2),
        ("c", 2),
    }
    assert leader.now_ms <= 1_800 + 5 + leader.core.config.heartbeat_ms


def test_a_follower_whose_clients_wait_for_a_commit_is_told_at_once() -> None:
    """It forwarded the command: its answer depends on it."""
    leader = settled_leader(commit_notice_ms=5)
    leader.core.propose((b"x",), leader.now_ms, asker="b")
    leader.drain()

    leader.receive(*map(acknowledge, leader.sent(AppendEntries)))

    assert [notice.to for notice in leader.sent(AppendEntries)] == ["b"]


def test_a_notice_that_is_owed_to_a_lost_peer_does_not_keep_the_leader_awake() -> None:
    """Nothing is sent to it but probes: a deadline in the past would wake the node without end."""
    leader = settled_leader(commit_notice_ms=5)
    leader.propose(b"x")
    x = leader.sent(AppendEntries)
    leader.propose(b"y")
    leader.receive(*map(acknowledge, x))

    leader.core.peer_lost("b", leader.now_ms)
    for _ in range(3):
        leader.drain()
        leader.receive(*(acknowledge(request) for request in leader.sent(AppendEntries) if request.to == "c"))
        leader.pass_ms(10)

    assert leader.core.next_deadline_ms() > leader.now_ms
