"""Leases and the cache service, simulated: clean as they are, and caught with a bug in them."""

import pytest

from tests.sim.cache_cluster import World
from tests.sim.cache_planted import seeds_until_caught


@pytest.mark.parametrize("seed", range(3))
def test_every_history_is_linearizable_and_holds_local_hits(seed: int) -> None:
    world = World(seed)

    verdict = world.run()

    assert verdict.offending == []
    assert verdict.linearizable
    assert world.hits > 100
    assert len(world.operations) > 500


def test_a_seed_gives_one_history() -> None:
    first, second = World(7), World(7)

    first.run()
    second.run()

    assert first.operations == second.operations


def test_serving_without_a_lease_is_caught() -> None:
    # The whole table: python -m tests.sim.cache_planted
    assert seeds_until_caught("no lease check", 5) is not None
