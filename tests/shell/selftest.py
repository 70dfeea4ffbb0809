"""Does the simulation find bugs? This plants each bug and counts the seeds until it is caught."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median

from tests.shell.campaign import cores
from tests.shell.forked import forked
from tests.shell.planted import Planted, load_planted
from tests.shell.run import run_seed
from tests.shell.shrink import kind_of
from tests.sim.planted import planted

SEEDS_MAX = 2_000
SERIES = 5


@dataclass(slots=True)
class Catch:
    """One bug's series: seeds until it was caught, and by what."""

    bug: Planted
    seeds: list[int] = field(default_factory=list)
    by: list[str] = field(default_factory=list)

    @property
    def caught(self) -> bool:
        return all(self.by)


def hunt(name: str, series: int, seeds_max: int = SEEDS_MAX) -> tuple[str, int, str]:
    """Seeds of `series` until the bug was caught (`seeds_max` + 1 where it was not), and by what.

    Caught is a seed that fails with the bug and not without."""
    bug = load_planted()[name]
    first = 1_000_000 * (series + 1)
    for count in range(1, seeds_max + 1):
        seed = first + count
        failure = forked(lambda seed=seed: _failure_of(seed, bug, is_planted=True))
        if failure and not forked(lambda seed=seed: _failure_of(seed, bug, is_planted=False)):
            return name, count, failure
    return name, seeds_max + 1, ""


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
    catches = {name: Catch(bugs[name]) for name in chosen}
    for name in chosen:
        for each in bugs[name].bugs:
            # It still fits the source.
            with planted(each):
                pass
    jobs = [(name, number, seeds_max) for name in chosen for number in range(series)]
    with get_context("fork").Pool(workers or cores(), maxtasksperchild=5) as pool:
        for name, seeds, by in pool.imap_unordered(_hunt_job, jobs):
            catch = catches[name]
            catch.seeds.append(seeds)
            catch.by.append(by)
            if len(catch.seeds) == series:
                yield catch


HEADER = "| bug | what goes wrong | seeds until caught: median | worst | caught by |\n|---|---|---|---|---|"


def row(catch: Catch) -> str:
    by = max(catch.by, key=catch.by.count)
    worst = str(max(catch.seeds)) if catch.caught else "missed"
    return f"| {catch.bug.name} | {catch.bug.does} | {median(catch.seeds):.0f} | {worst} | {by} |"
