"""A group of one voter: it elects itself, waits for its own disk, and grows (known bugs 4 and 17)."""

from raft.core.messages import AppendEntries
from raft.core.types import Configuration, Role
from tests.core.replica import Replica, acknowledge_all, append

ALONE = Configuration(("a",))


def alone(**options) -> Replica:
    node = Replica(configuration=ALONE, **options)
    node.time_out()
    return node


def test_it_elects_itself_without_a_message() -> None:
    """known bug 17 (openraft 86e2ccd0)."""
    node = alone()

    assert node.leads
    assert (node.term, node.sent()) == (1, [])


def test_it_elects_itself_without_pre_vote_too() -> None:
    assert alone(pre_vote=False).leads


def test_it_does_not_campaign_again_while_it_leads() -> None:
    """known bug 17 (openraft 558e1b94)."""
    node = alone()

    node.run_ms(10_000)

    assert (node.leads, node.term, node.core.state.elections) == (True, 1, 1)


def test_it_does_not_campaign_twice_while_its_vote_is_being_written() -> None:
    """known bug 17: the disk takes a while; the term does not grow with every tick meanwhile."""
    node = Replica(configuration=ALONE)
    node.disk_holds = True
    node.time_out()

    for _ in range(20):
        node.pass_ms(10)
    node.sync()

    assert (node.leads, node.term) == (True, 1)


def test_a_write_commits_only_once_its_disk_has_it() -> None:
    """known bug 4 (etcd#14370)."""
    node = alone()
    node.disk_holds = True

    node.propose(b"x")
    assert node.commands == []
    node.sync()

    assert node.commands == [b"x"]


def test_what_it_answered_survives_a_crash() -> None:
    node = alone()
    node.propose(b"x")

    node.restart()
    node.time_out()

    assert node.commands == [b"x"]
    assert node.term == 2


def test_a_restart_leads_again_in_a_later_term() -> None:
    """known bug 18's neighbour: all of a group of one is down and comes back."""
    node = alone()

    for term in (2, 3):
        node.restart()
        node.time_out()
        assert (node.leads, node.term) == (True, term)


def test_after_a_stall_it_leads_again() -> None:
    node = alone()

    node.core.stalled(node.now_ms + 1_000)
    node.drain()
    assert node.role is Role.FOLLOWER
    node.time_out()

    assert (node.leads, node.term) == (True, 2)


def test_a_second_server_joins_it() -> None:
    """Learner first, voter when it has caught up; from then on both are needed."""
    node = alone()
    joining = Replica("b", configuration=Configuration())
    node.configure(Configuration(("a",), ("b",)))

    for _ in range(20):
        for message in node.sent(AppendEntries):
            for reply in joining.receive(message).sent():
                node.receive(reply)
        node.pass_ms(50)

    assert node.core.configuration.voters == ("a", "b")
    assert joining.core.configuration.voters == ("a", "b")
    node.sent()
    before = node.core.log.commit_index
    node.propose(b"x")
    assert node.core.log.commit_index == before
    acknowledge_all(node)
    assert node.commands == [b"x"]


def test_it_follows_whoever_leads_in_a_later_term() -> None:
    """Its own configuration may be old."""
    node = alone()

    node.receive(append("b", 7))

    assert (node.role, node.term, node.core.state.leader) == (Role.FOLLOWER, 7, "b")
