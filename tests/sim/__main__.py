"""`python -m tests.sim`: run seeds, one seed with its trace, or the planted bugs."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.campaign import Summary, cores, reproduce_line, run_campaign
from tests.sim.coverage import FAULTS, SITUATIONS, missing, undeclared
from tests.sim.plan import MACHINES, draw_plan
from tests.sim.run import EVENTS_DEFAULT, Outcome, describe, run_seed
from tests.sim.selftest import HEADER, SERIES, report, row, run_selftest

#: From this many seeds on, every fault and situation must have occurred.
SEEDS_FOR_COVERAGE = 2_000


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.selftest:
        return _selftest(arguments)
    if arguments.trace:
        return _trace(arguments)
    return _campaign(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds to run")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--events", type=int, default=EVENTS_DEFAULT, help="events with faults, per seed")
    parser.add_argument("--machine", choices=MACHINES, default="", help="drive this machine in every seed")
    parser.add_argument("--workers", type=int, default=0, help="processes; all cores where not given")
    parser.add_argument("--trace", help="run one seed and write what happened to this file")
    parser.add_argument("--coverage", action="store_true", help="print how often each situation occurred")
    parser.add_argument("--selftest", action="store_true", help="plant bugs and count seeds until caught")
    parser.add_argument("--bug", action="append", default=[], help="with --selftest: only this one")
    parser.add_argument("--series", type=int, default=SERIES, help="with --selftest: hunts for each bug")
    return parser


def _campaign(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    first, count = arguments.seed, arguments.seeds

    def show(outcome: Outcome) -> None:
        if outcome.failure:
            _print_failure(outcome, arguments)

    summary = run_campaign(
        range(first, first + count),
        events=arguments.events,
        machine=arguments.machine,
        workers=arguments.workers,
        on_outcome=show,
    )
    if arguments.coverage:
        _print_coverage(summary)
    print(
        f"{summary.seeds} seeds from {first}: {len(summary.failures)} failed; {summary.events} events, "
        f"{summary.events_per_second:.0f} events/s on one core, {time.monotonic() - began:.0f} s on {cores()} cores"
    )
    lacking = missing(summary.cover) if summary.seeds >= SEEDS_FOR_COVERAGE and not arguments.machine else []
    if lacking:
        print("never occurred: " + "; ".join(lacking))
    return 1 if summary.failures or lacking else 0


def _print_failure(outcome: Outcome, arguments: argparse.Namespace) -> None:
    print(f"seed {outcome.seed} failed in phase {outcome.phase} at event {outcome.events}: {outcome.failure}")
    print("  " + describe(draw_plan(outcome.seed, arguments.events, arguments.machine)))
    for line in outcome.detail.splitlines()[-40:]:
        print("  | " + line[:400])
    print("reproduce: " + reproduce_line(outcome, arguments.events, arguments.machine), flush=True)


def _print_coverage(summary: Summary) -> None:
    for title, names in (("faults", FAULTS), ("situations", SITUATIONS)):
        print(f"{title}:")
        for name in names:
            print(f"  {summary.cover[name]:>9}  {name}")
    for name in undeclared(summary.cover):
        print(f"  {summary.cover[name]:>9}  {name} (not in the list)")


def _trace(arguments: argparse.Namespace) -> int:
    with open(arguments.trace, "w", encoding="utf-8") as file:
        outcome = run_seed(
            arguments.seed,
            events=arguments.events,
            machine=arguments.machine,
            trace=lambda line: file.write(line + "\n"),
        )
        file.write(f"{outcome.phase} {outcome.events} {outcome.failure}\n")
    print(outcome.failure or f"seed {outcome.seed}: clean, {outcome.events} events")
    return 1 if outcome.failure else 0


def _selftest(arguments: argparse.Namespace) -> int:
    catches = run_selftest(arguments.bug, series=arguments.series, workers=arguments.workers)
    return report(HEADER, catches, row)


if __name__ == "__main__":
    sys.exit(main())
