"""Does the simulator find bugs? This plants each bug and counts the seeds until it is caught."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median

from tests.sim.campaign import cores
from tests.sim.planted import Bug, compile_bug, load_bugs, planted
from tests.sim.run import run_seed

SEEDS_MAX = 2_000
SERIES = 5
EVENTS = 2_500


@dataclass(slots=True)
class Catch:
    """One bug's five series: seeds until it was caught, and by what."""

    bug: Bug
    seeds: list[int] = field(default_factory=list)
    by: list[str] = field(default_factory=list)

    @property
    def caught(self) -> bool:
        return max(self.seeds) <= SEEDS_MAX


def hunt(name: str, series: int) -> tuple[str, int, str]:
    """Seeds of `series` until the bug was caught (SEEDS_MAX + 1 where it was not), and by what.

    Caught is a seed that fails with the bug and not without."""
    bug = load_bugs()[name]
    first = 1_000_000 * (series + 1)
    machine = "small" if "tests.sim.machine" in bug.where else ""
    for count in range(1, SEEDS_MAX + 1):
        with planted(bug):
            failure = _failure_of(first + count, machine)
        if failure and not _failure_of(first + count, machine):
            return name, count, failure
    return name, SEEDS_MAX + 1, ""


def _failure_of(seed: int, machine: str) -> str:
    return run_seed(seed, events=EVENTS, machine=machine, situations=False).failure


def _hunt_job(job: tuple[str, int]) -> tuple[str, int, str]:
    return hunt(*job)


def run_selftest(names: Iterable[str] = (), *, series: int = SERIES, workers: int = 0) -> Iterator[Catch]:
    """Each bug as soon as all its series ended."""
    bugs = load_bugs()
    chosen = list(names) or list(bugs)
    catches = {name: Catch(bugs[name]) for name in chosen}
    for name in chosen:
        compile_bug(bugs[name])
    jobs = [(name, number) for name in chosen for number in range(series)]
    with get_context("fork").Pool(workers or cores(), maxtasksperchild=20) as pool:
        for name, seeds, by in pool.imap_unordered(_hunt_job, jobs):
            catch = catches[name]
            catch.seeds.append(seeds)
            catch.by.append(by)
            if len(catch.seeds) == series:
                yield catch


HEADER = "| bug | known as | seeds until caught: median | worst of 5 | caught by |\n|---|---|---|---|---|"


def row(catch: Catch) -> str:
    known = ", ".join(f"#{number}" for number in catch.bug.known) or "-"
    by = max(catch.by, key=catch.by.count).split(":")[0].split(" (")[0]
    worst = str(max(catch.seeds)) if catch.caught else f"not within {SEEDS_MAX}"
    return f"| {catch.bug.name} | {known} | {median(catch.seeds):.0f} | {worst} | {by} |"
