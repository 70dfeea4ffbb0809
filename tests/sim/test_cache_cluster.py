"""Leases and the cache service, simulated: the real code is clean, and planted bugs are caught."""

import pytest

from tests.sim.cache_cluster import World
from tests.sim.cache_planted import BUGS, seeds_until_caught
from tests.sim.planted import Bug, compile_bug

SEEDS = range(10)
#: Bugs that a handful of seeds finds; `make sim-cache-selftest` takes its time for all of them.
QUICK = (
    "no lease check",
    "lease counted from receipt",
    "no wait after an election",
    "invalidation not awaited",
    "fill that does not wait",
    "writer's early read",
)


def test_every_history_is_linearizable_and_the_faults_were_there() -> None:
    """Some seeds of `make sim-cache`; together they bring every fault, installed snapshots and hits from memory."""
    worlds = [World(seed) for seed in SEEDS]

    verdicts = [world.run() for world in worlds]

    assert [verdict.offending for verdict in verdicts] == [[]] * len(worlds)
    assert all(verdict.linearizable for verdict in verdicts)
    assert sum(world.counts["local hits"] for world in worlds) > 200
    assert sum(world.counts["snapshots installed on holders"] for world in worlds) > 0
    assert sum(world.counts["absent by ReadIndex"] for world in worlds) > 0
    assert sum(world.counts["turns that left entries"] for world in worlds) > 0
    done = {what for world in worlds for what in world.nemesis.done}
    assert done == {
        "crash", "freeze", "pause", "cut", "transfer", "leader cut off", "lease outlasted", "lag", "mute", "unheard"
    }  # fmt: skip


def test_a_seed_gives_one_history() -> None:
    """A failure can be lived through again."""
    first, second = World(7), World(7)

    first.run()
    second.run()

    assert first.operations == second.operations


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.name in QUICK], ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    """The simulation bites."""
    assert seeds_until_caught(bug, 10) is not None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_still_be_planted(bug: Bug) -> None:
    """The table names source that is there."""
    assert compile_bug(bug)
