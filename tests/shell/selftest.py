"""Does the simulation find bugs? This plants each bug and counts the seeds until it is caught."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from statistics import median

from tests.shell.forked import forked
from tests.shell.planted import Planted, load_planted
from tests.shell.run import run_seed
from tests.shell.shrink import kind_of
from tests.sim.planted import compile_bug, planted
from tests.sim.selftest import SEEDS_MAX, SERIES, Catch, first_caught, gathered, seeds_of


def hunt(name: str, series: int, seeds_max: int = SEEDS_MAX) -> tuple[str, int, str]:
    """Seeds of `series` until the bug was caught, and by what; see `first_caught`."""
    bug = load_planted()[name]

    def failure_of(seed: int, is_planted: bool) -> str:
        return forked(lambda: _failure_of(seed, bug, is_planted=is_planted))

    return name, *first_caught(seeds_of(series, seeds_max), failure_of)


def _failure_of(seed: int, bug: Planted, *, is_planted: bool) -> str:
    gc.disable()
    with ExitStack() as stack:
        for each in bug.bugs if is_planted else ():
            stack.enter_context(planted(each))
        outcome = run_seed(seed, group=bug.group)
    return outcome.failure and (kind_of(outcome) or "?")


def _hunt_job(job: tuple[str, int, int]) -> tuple[str, int, str]:
    return hunt(*job)


def run_selftest(
    names: Iterable[str] = (), *, series: int = SERIES, seeds_max: int = SEEDS_MAX, workers: int = 0
) -> Iterator[Catch]:
    """Each bug as soon as all its series ended."""
    bugs = load_planted()
    chosen = list(names) or list(bugs)
    for name in chosen:
        for each in bugs[name].bugs:
            compile_bug(each)
    catches = {name: Catch(bugs[name]) for name in chosen}
    jobs = [(name, number, seeds_max) for name in chosen for number in range(series)]
    return gathered(catches, _hunt_job, jobs, series=series, workers=workers, jobs_per_process=5)


HEADER = "| bug | what goes wrong | seeds until caught: median | worst | caught by |\n|---|---|---|---|---|"


def row(catch: Catch) -> str:
    by = max(catch.by, key=catch.by.count)
    worst = str(max(catch.seeds)) if catch.caught else "missed"
    return f"| {catch.bug.name} | {catch.bug.does} | {median(catch.seeds):.0f} | {worst} | {by} |"
