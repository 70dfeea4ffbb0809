"""Many seeds over all cores, each in a process of its own that is forked from the same one: so a seed gives the same
run whatever ran before it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

from tests.shell.forked import forked
from tests.shell.run import LeftOut, Outcome, run_seed
from tests.sim import campaign

Job = TypeVar("Job")
Result = TypeVar("Result")

#: A campaign ends early once so many seeds have failed.
FAILURES_MAX = 10


@dataclass(slots=True)
class Summary(campaign.Summary):
    """The sum of a campaign."""

    #: Seconds of the worlds.
    world_seconds: float = 0.0

    def add(self, outcome: Outcome, seconds: float) -> None:
        campaign.Summary.add(self, outcome, seconds)
        self.world_seconds += outcome.seconds


def in_processes(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int = 0) -> Iterator[Result]:
    """What `work` makes of each job, as soon as it is there: each in a process that was forked for it."""
    with get_context("fork").Pool(workers or campaign.cores(), maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(work, jobs, 1)


def run_campaign(
    seeds: Iterable[int], *, workers: int = 0, failures_max: int = FAILURES_MAX,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Summary:  # fmt: skip
    summary = Summary()
    for outcome, busy_seconds in in_processes(run_job, ((seed, LeftOut()) for seed in seeds), workers):
        summary.add(outcome, busy_seconds)
        on_outcome(outcome)
        if len(summary.failures) >= failures_max:
            break
    return summary


def run_alone(seed: int, left_out: LeftOut) -> tuple[Outcome, float]:
    """As `run_job`, in a process that is forked for it."""
    return forked(lambda: run_job((seed, left_out)))


def run_job(job: tuple[int, LeftOut]) -> tuple[Outcome, float]:
    """One seed, and the processor seconds that it took."""
    # Its process ends with it: to look for garbage would only cost time, and would end things at odd moments.
    gc.disable()
    began = time.process_time()
    outcome = run_seed(*job)
    return outcome, time.process_time() - began
