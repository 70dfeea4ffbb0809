"""Many seeds over all cores, each in a process of its own that is forked from the same one: so a seed gives the same
run whatever ran before it."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TypeVar

from tests.shell.run import LeftOut, Outcome, run_seed

Job = TypeVar("Job")
Result = TypeVar("Result")

#: A campaign ends early once so many seeds have failed.
FAILURES_MAX = 10


@dataclass(slots=True)
class Summary:
    """The sum of a campaign."""

    seeds: int = 0
    events: int = 0
    #: Processor seconds of the runs.
    busy_seconds: float = 0.0
    #: Seconds of the worlds.
    world_seconds: float = 0.0
    failures: list[Outcome] = field(default_factory=list)
    cover: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, busy_seconds: float) -> None:
        self.seeds += 1
        self.events += outcome.events
        self.busy_seconds += busy_seconds
        self.world_seconds += outcome.seconds
        self.cover.update(outcome.cover)
        if outcome.failure:
            self.failures.append(outcome)

    @property
    def events_per_second(self) -> float:
        """On one core."""
        return self.events / self.busy_seconds if self.busy_seconds else 0.0


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int = 0) -> Iterator[Result]:
    """What `work` makes of each job, as soon as it is there: each in a process that was forked for it."""
    with get_context("fork").Pool(workers or cores(), maxtasksperchild=1) as pool:
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


def run_job(job: tuple[int, LeftOut]) -> tuple[Outcome, float]:
    """One seed, and the processor seconds that it took."""
    # Its process ends with it: to look for garbage would only cost time, and would end things at odd moments.
    gc.disable()
    began = time.process_time()
    outcome = run_seed(*job)
    return outcome, time.process_time() - began
