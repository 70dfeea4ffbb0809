"""Many seeds over all cores: what they found together."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.sim.run import EVENTS_DEFAULT, Outcome, run_seed

#: Seeds that a worker is handed at once.
CHUNK = 4


@dataclass(slots=True)
class Summary:
    """The sum of a campaign."""

    seeds: int = 0
    events: int = 0
    #: CPU seconds of the workers in runs.
    busy_seconds: float = 0.0
    failures: list[Outcome] = field(default_factory=list)
    cover: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, seconds: float) -> None:
        self.seeds += 1
        self.events += outcome.events
        self.busy_seconds += seconds
        self.cover.update(outcome.cover)
        if outcome.failure:
            self.failures.append(outcome)

    @property
    def events_per_second(self) -> float:
        """On one core."""
        return self.events / self.busy_seconds if self.busy_seconds else 0.0


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reproduce_line(outcome: Outcome, events: int, machine: str) -> str:
    """The one line that runs a seed again."""
    line = f"python -m tests.sim --seeds 1 --seed {outcome.seed}"
    if events != EVENTS_DEFAULT:
        line += f" --events {events}"
    return line + (f" --machine {machine}" if machine else "")


def run_campaign(
    seeds: range,
    *,
    events: int = EVENTS_DEFAULT,
    machine: str = "",
    workers: int = 0,
    failures_max: int = 10,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Summary:
    """Run `seeds` on all cores; ends early once `failures_max` seeds failed."""
    summary = Summary()
    for outcome, seconds in _outcomes(seeds, events, machine, workers or cores()):
        summary.add(outcome, seconds)
        on_outcome(outcome)
        if len(summary.failures) >= failures_max:
            break
    return summary


def _outcomes(seeds: range, events: int, machine: str, workers: int) -> Iterator[tuple[Outcome, float]]:
    jobs = ((seed, events, machine) for seed in seeds)
    if workers == 1 or len(seeds) == 1:
        yield from map(_run_job, jobs)
        return
    with get_context("fork").Pool(workers) as pool:
        yield from pool.imap_unordered(_run_job, jobs, CHUNK)


def _run_job(job: tuple[int, int, str]) -> tuple[Outcome, float]:
    seed, events, machine = job
    began = time.process_time()
    outcome = run_seed(seed, events=events, machine=machine)
    return outcome, time.process_time() - began
