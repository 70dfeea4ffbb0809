"""Every combination of one-way links between three nodes (known bug 15: partial partitions, endless elections)."""

from itertools import combinations, permutations

from raft.core.types import Configuration
from tests.core.replica import Replica
from tests.scenarios.cluster import Cluster

LINKS = list(permutations("abc", 2))
MATRICES = [cut for size in range(len(LINKS) + 1) for cut in combinations(LINKS, size)]


def test_no_combination_of_broken_links_makes_elections_endless() -> None:
    """All 2^6: while links are broken few terms pass; once they are whole there is one leader who can write."""
    assert len(MATRICES) == 64

    for cut in MATRICES:
        cluster = Cluster(Configuration(("a", "b", "c")))
        cluster.at("a", Replica.time_out)
        cluster.settle(lambda _: True)
        cluster.cuts = set(cut)
        cluster.run(2_500)
        terms = max(cluster.nodes[id].term for id in "abc")

        cluster.cuts = set()
        cluster.run(1_200)

        leaders = [id for id in "abc" if cluster.nodes[id].leads]
        assert len(leaders) == 1, cut
        cluster.at(leaders[0], lambda node: node.propose(b"x"))
        cluster.run(200)
        assert [cluster.nodes[id].commands for id in "abc"] == [[b"x"]] * 3, cut
        assert terms <= 3, (cut, terms)


def test_who_can_talk_both_ways_to_a_majority_can_lead() -> None:
    """Availability: where some node has a two-way link to another and both agree, writes go on."""
    for cut in MATRICES:
        whole = [pair for pair in combinations("abc", 2) if not {pair, pair[::-1]} & set(cut)]
        if len(whole) < 2:
            continue
        cluster = Cluster(Configuration(("a", "b", "c")))
        cluster.cuts = set(cut)

        cluster.run(6_000)

        assert [id for id in "abc" if cluster.nodes[id].leads], cut
