"""Random `mufakat` commands against a local cluster while clients write, with a check after every command.

    python -m tests.chaos.operator [--seconds 600] [--seed n]            (`make chaos-operator SECONDS=n SEED=n`)

It heals the cluster, causes one disaster (`disasters.py`), then does some of what operators do (`actions.py`), and
heals again. `judge.py` has the rules. It prints the seed and a table. The exit code is 0 if no rule was broken and,
in a run of 300 s or more, every action was tried. OPERATOR_TALKS=1 prints each step.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.operator.actions import ACTIONS, Action
from tests.chaos.operator.disasters import DISASTERS, MORE_ACTIONS, make_small_disk
from tests.chaos.operator.healing import heal
from tests.chaos.operator.judge import check_command, check_world
from tests.chaos.operator.world import TOPOLOGY, Fault, World, chance_of, wait

#: From so many seconds on, every action must have been tried.
ALL_TRIED_SECONDS_MIN = 300.0
#: The system lets go of a killed process's files a moment later.
UNMOUNT_SECONDS_MAX = 10.0
#: Actions between a disaster and the healing.
ACTIONS_MIN, ACTIONS_MAX = 2, 5


def run(seed: int, folder: Path, *, seconds: float = float("inf"), rounds_max: int = sys.maxsize) -> World:
    """One run, over after so many seconds or rounds, whichever comes first; a round ends with a healing.

    Raises:
        Fault: a rule was broken.
    """
    world = World(folder, seed, check_command)
    world.small_disk = make_small_disk(folder / "small")
    try:
        if world.small_disk is not None:
            data = world.data_dir(world.founders[-1])
            data.parent.mkdir(parents=True)
            (world.small_disk / "data").mkdir()
            data.symlink_to(world.small_disk / "data")
        _live(world, time.monotonic() + seconds, rounds_max)
    finally:
        world.kill_everything()
        if world.small_disk is not None:
            wait(lambda: _unmount(world.small_disk), UNMOUNT_SECONDS_MAX)
    return world


def _unmount(folder: Path | None) -> bool:
    return subprocess.run(["umount", str(folder)], check=False, stderr=subprocess.DEVNULL).returncode == 0


def _live(world: World, until: float, rounds_max: int) -> None:
    with world.clients:
        heal(world)
        for round_number in range(rounds_max):
            chance = chance_of(world.seed, round_number)
            first = [each for each in ACTIONS if each.needs_whole]
            if chance.random() < 0.85:
                _do(world, chance, [*DISASTERS, *first])
            rest = [each for each in (*ACTIONS, *MORE_ACTIONS) if not each.needs_whole]
            for _ in range(chance.randint(ACTIONS_MIN, ACTIONS_MAX)):
                _do(world, chance, rest)
            heal(world)
            if time.monotonic() > until:
                return


def _do(world: World, chance: random.Random, choice: list[Action]) -> None:
    # What was done seldom comes first, so that a run of some minutes sees everything.
    weights = [each.weight / (1 + world.counts[each.name]) for each in choice]
    action = chance.choices(choice, weights)[0]
    world.is_whole = False
    world.note(f"--- {action.name}")
    if action.do(world, chance) is not False:
        world.counts[action.name] += 1
    check_world(world)


def table(world: World) -> str:
    """What was done, how often."""
    names = [action.name for action in (*ACTIONS, *DISASTERS, *MORE_ACTIONS)]
    rows = [f"  {world.counts[name]:5}  {name}" for name in names]
    written = {kind: len(keys) for kind, keys in world.clients.acknowledged().items()}
    told = ", ".join(f"{count} of {kind}" for kind, count in written.items())
    return "\n".join(
        (
            f"Actions and faults of seed {world.seed}:",
            *rows,
            f"{world.counts['healings']} healings, {sum(world.commands.values())} commands. Acknowledged writes: "
            f"{told}; unknown: {world.clients.unknown}. Small disk: {'yes' if world.small_disk else 'no'}.",
        )
    )


def never_tried(world: World) -> list[str]:
    """The actions of which there was none in this run."""
    names = [action.name for action in (*ACTIONS, *DISASTERS, *MORE_ACTIONS)]
    return [name for name in names if not world.counts[name] and (world.small_disk or name != "full disk")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.operator")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="mufakat-operator-"))
    print(f"Seed {seed}, {options.seconds:.0f} s, in {folder} ({TOPOLOGY} topology).", flush=True)
    try:
        world = run(seed, folder, seconds=options.seconds)
    except Fault as fault:
        print(f"{fault}\nWhat the nodes wrote is kept in {folder}.")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print(table(world))
    missing = never_tried(world)
    if missing:
        print(f"Never tried: {', '.join(missing)}.")
    return 1 if missing and options.seconds >= ALL_TRIED_SECONDS_MIN else 0


if __name__ == "__main__":
    sys.exit(main())
