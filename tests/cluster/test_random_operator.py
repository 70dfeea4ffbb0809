"""A few rounds of random commands, the same for every run: the rules of `tests/chaos/operator/judge.py` hold."""

from pathlib import Path

import pytest

from tests.chaos.operator.__main__ import run

pytestmark = pytest.mark.cluster

#: Seeds and their rounds, chosen so that together they see most of the disasters in less than a minute.
SEEDS = ((11, 2), (12, 2))


@pytest.mark.parametrize(("seed", "rounds"), SEEDS)
def test_what_commands_say_is_so_and_no_acknowledged_write_is_gone(seed: int, rounds: int, tmp_path: Path) -> None:
    """Each round is a disaster, some commands and a healing; the number of rounds bounds it, not the time."""
    world = run(seed, tmp_path, rounds_max=rounds)

    assert world.counts["healings"] == rounds + 1
    assert all(world.clients.acknowledged().values()), "no client wrote anything"
