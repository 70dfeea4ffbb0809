"""How much a leader sends ahead of the answers, and how it notices that something was lost (etcd's flow control)."""

from raft.core.messages import AppendEntries
from tests.core.replica import Replica, append, settled_leader


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
