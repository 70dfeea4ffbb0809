"""Does the simulator find bugs? This plants each bug and counts the seeds until it is caught."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median
from typing import Any

from tests.sim.campaign import cores
from tests.sim.planted import compile_bug, load_bugs, planted
from tests.sim.run import run_seed

SEEDS_MAX = 2_000
SERIES = 5
EVENTS = 2_500


@dataclass(slots=True)
class Catch:
    """One bug's series: seeds until it was caught, and by what."""

    bug: Any
    seeds: list[int] = field(default_factory=list)
    by: list[str] = field(default_factory=list)

    @property
    def caught(self) -> bool:
        return all(self.by)


def first_caught(seeds: range, failure_of: Callable[[int, bool], str]) -> tuple[int, str]:
    """How many of `seeds` it takes until one is caught, and by what; one more than there are where none is.

    Caught is a seed that fails with the bug and not without. `failure_of` is asked `(seed, is_planted)`."""
    for count, seed in enumerate(seeds, 1):
        failure = failure_of(seed, True)
        if failure and not failure_of(seed, False):
            return count, failure
    return len(seeds) + 1, ""


def seeds_of(series: int, seeds_max: int = SEEDS_MAX) -> range:
    """Each series has seeds of its own."""
    first = 1_000_000 * (series + 1) + 1
    return range(first, first + seeds_max)


def gathered(
    catches: Mapping[str, Catch], hunt_job: Callable[[Any], tuple[str, int, str]], jobs: Iterable[Any], *,
    series: int, workers: int, jobs_per_process: int,
) -> Iterator[Catch]:  # fmt: skip
    """Carry out the jobs on all cores; each of `catches` as soon as all its series ended."""
    with get_context("fork").Pool(workers or cores(), maxtasksperchild=jobs_per_process) as pool:
        for name, seeds, by in pool.imap_unordered(hunt_job, jobs):
            catch = catches[name]
            catch.seeds.append(seeds)
            catch.by.append(by)
            if len(catch.seeds) == series:
                yield catch


def report(header: str, catches: Iterable[Catch], row: Callable[[Catch], str]) -> int:
    """Print the table; returns the exit code."""
    began = time.monotonic()
    print(header)
    missed = caught = 0
    for catch in catches:
        print(row(catch), flush=True)
        caught += catch.caught
        missed += not catch.caught
    print(f"{caught} planted bugs caught, {missed} missed, {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


def hunt(name: str, series: int) -> tuple[str, int, str]:
    """Seeds of `series` until the bug was caught, and by what; see `first_caught`."""
    bug = load_bugs()[name]
    machine = "small" if "tests.sim.machine" in bug.where else ""

    def failure_of(seed: int, is_planted: bool) -> str:
        with planted(bug) if is_planted else nullcontext():
            return run_seed(seed, events=EVENTS, machine=machine, situations=False).failure

    return name, *first_caught(seeds_of(series), failure_of)


def _hunt_job(job: tuple[str, int]) -> tuple[str, int, str]:
    return hunt(*job)


def run_selftest(names: Iterable[str] = (), *, series: int = SERIES, workers: int = 0) -> Iterator[Catch]:
    """Each bug as soon as all its series ended."""
    bugs = load_bugs()
    chosen = list(names) or list(bugs)
    for name in chosen:
        compile_bug(bugs[name])
    catches = {name: Catch(bugs[name]) for name in chosen}
    jobs = [(name, number) for name in chosen for number in range(series)]
    return gathered(catches, _hunt_job, jobs, series=series, workers=workers, jobs_per_process=20)


HEADER = "| bug | known as | seeds until caught: median | worst of 5 | caught by |\n|---|---|---|---|---|"


def row(catch: Catch) -> str:
    known = ", ".join(f"#{number}" for number in catch.bug.known) or "-"
    by = max(catch.by, key=catch.by.count).split(":")[0].split(" (")[0]
    worst = str(max(catch.seeds)) if catch.caught else f"not within {SEEDS_MAX}"
    return f"| {catch.bug.name} | {known} | {median(catch.seeds):.0f} | {worst} | {by} |"
