"""Thesis, sections 4.3 and 4.4: arbitrary changes, and how a system uses membership changes.

Section 4.3 describes joint consensus and recommends the single-server changes of 4.1 instead; what an arbitrary
change needs is done in steps of one server.
"""

from raft.core.types import Configuration
from tests.core.replica import THREE
from tests.paper.groups import elected, leaders, propose


def test_any_configuration_is_reached_in_steps_of_one_server() -> None:
    """Thesis 4.3: three servers are replaced by three others, one addition and one removal at a time."""
    cluster = elected()
    propose(cluster, "a", b"before")
    steps = [("add", "d"), ("remove", "b"), ("add", "e"), ("remove", "c"), ("add", "f"), ("remove", "a")]

    for kind, server in steps:
        if kind == "add":
            cluster.add(server, Configuration())
        leader = leaders(cluster)[0][0]
        current = cluster.nodes[leader].core.configuration
        if kind == "add":
            wanted = Configuration(current.voters, (server,))
        else:
            wanted = Configuration(tuple(voter for voter in current.voters if voter != server))
        cluster.at(leader, lambda node, wanted=wanted: node.configure(wanted))
        cluster.run(2_000)

    leader = leaders(cluster)[-1][0]
    assert cluster.nodes[leader].core.configuration.voters == ("d", "e", "f")
    assert cluster.nodes[leader].commands == [b"before"]


def test_a_failed_server_is_replaced_by_adding_first_and_removing_then() -> None:
    """Thesis 4.4: adding first keeps the group able to lose one more while the change goes on."""
    cluster = elected()
    cluster.crash("c")
    cluster.add("d", Configuration())

    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "c"), ("d",))))
    cluster.run(1_000)
    cluster.at("a", lambda node: node.configure(Configuration(("a", "b", "d"))))
    cluster.run(1_000)

    assert {cluster.nodes[id].core.configuration for id in "abd"} == {Configuration(("a", "b", "d"))}
    cluster.crash("b")
    propose(cluster, "a", b"x")
    assert cluster.nodes["a"].commands == [b"x"]


def test_a_group_grows_from_its_first_configuration() -> None:
    """Thesis 4.4: a group is made with one server, and the others are added by changes like any."""
    cluster = elected(Configuration(("a",)))

    for number, server in enumerate("bc"):
        cluster.add(server, Configuration())
        voters = ("a", "b")[: number + 1]
        wanted = Configuration(voters, (server,))
        cluster.at("a", lambda node, wanted=wanted: node.configure(wanted))
        cluster.run(1_000)

    assert {cluster.nodes[id].core.configuration for id in "abc"} == {THREE}
