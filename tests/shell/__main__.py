"""`python -m tests.shell`: run seeds, one seed, less of a seed, or the planted bugs. See docs/testing.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.shell.campaign import FAILURES_MAX, run_alone, run_campaign
from tests.shell.coverage import FAULTS, SEEDS_FOR_COVERAGE, missing
from tests.shell.plan import draw_plan
from tests.shell.run import LeftOut, Outcome
from tests.shell.selftest import HEADER, row, run_selftest
from tests.shell.shrink import shrink
from tests.sim.campaign import cores
from tests.sim.selftest import SEEDS_MAX, SERIES, report


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.shrink:
        return _shrink(arguments.seed)
    if arguments.selftest:
        return _selftest(arguments)
    if arguments.seeds == 1:
        return _one(arguments)
    return _campaign(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.shell", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to run")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--workers", type=int, default=0, help="processes; all cores where not given")
    parser.add_argument("--failures", type=int, default=FAILURES_MAX, help="end early after so many")
    parser.add_argument("--coverage", action="store_true", help="print how often each thing occurred")
    parser.add_argument("--shrink", action="store_true", help="find a smaller run in which this seed fails")
    parser.add_argument("--without-faults", type=_numbers, default=frozenset(), help="numbers, by comma")
    parser.add_argument("--without-clients", type=_numbers, default=frozenset(), help="numbers, by comma")
    parser.add_argument("--selftest", action="store_true", help="plant bugs and count seeds until caught")
    parser.add_argument("--bug", action="append", default=[], help="with --selftest: only this one")
    parser.add_argument("--series", type=int, default=SERIES, help="with --selftest: hunts for each bug")
    parser.add_argument("--hunt", type=int, default=SEEDS_MAX, help="with --selftest: seeds of one hunt at most")
    return parser


def _numbers(text: str) -> frozenset[int]:
    return frozenset(map(int, filter(None, text.split(","))))


def _campaign(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    first, count = arguments.seed, arguments.seeds

    def show(outcome: Outcome) -> None:
        if outcome.failure:
            _print_failure(outcome, LeftOut())

    seeds = range(first, first + count)
    summary = run_campaign(seeds, workers=arguments.workers, failures_max=arguments.failures, on_outcome=show)
    if arguments.coverage:
        _print_coverage(summary.cover)
    print(
        f"{summary.seeds} seeds from {first}: {len(summary.failures)} failed; {summary.events} events in "
        f"{summary.world_seconds:.0f} s of the world, {summary.events_per_second:.0f} events/s on one core, "
        f"{time.monotonic() - began:.0f} s on {cores()} cores"
    )
    lacking = missing(summary.cover) if summary.seeds >= SEEDS_FOR_COVERAGE else []
    if lacking:
        print("never occurred: " + "; ".join(lacking))
    return 1 if summary.failures or lacking else 0


def _one(arguments: argparse.Namespace) -> int:
    left_out = LeftOut(arguments.without_faults, arguments.without_clients)
    outcome, busy_seconds = run_alone(arguments.seed, left_out)
    print(draw_plan(arguments.seed))
    if outcome.failure:
        _print_failure(outcome, left_out)
    if arguments.coverage:
        _print_coverage(outcome.cover)
    print(
        f"seed {outcome.seed}: {'failed' if outcome.failure else 'clean'}; {outcome.events} events in "
        f"{outcome.seconds:.1f} s of the world, {busy_seconds:.2f} s, digest {outcome.digest:08x}"
    )
    return 1 if outcome.failure else 0


def _selftest(arguments: argparse.Namespace) -> int:
    catches = run_selftest(
        arguments.bug, series=arguments.series, seeds_max=arguments.hunt, workers=arguments.workers
    )
    return report(HEADER, catches, row)


def _shrink(seed: int) -> int:
    outcome, left_out = shrink(seed)
    _print_failure(outcome, left_out)
    return 0


def _print_failure(outcome: Outcome, left_out: LeftOut) -> None:
    print(f"seed {outcome.seed} failed in phase {outcome.phase}: {outcome.failure}")
    for line in outcome.story:
        print("  | " + line)
    for line in outcome.detail.splitlines()[-30:]:
        print("  " + line[:300])
    print("run it again: " + reproduce_line(outcome.seed, left_out), flush=True)


def reproduce_line(seed: int, left_out: LeftOut) -> str:
    """The one line that runs a seed again."""
    line = f"python -m tests.shell --seeds 1 --seed {seed}"
    if left_out.faults:
        line += " --without-faults " + ",".join(map(str, sorted(left_out.faults)))
    if left_out.clients:
        line += " --without-clients " + ",".join(map(str, sorted(left_out.clients)))
    return line


def _print_coverage(cover: Counter[str]) -> None:
    for name in sorted({*cover, *FAULTS}):
        print(f"  {cover[name]:>9}  {name}")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set of texts depends on it, and with it a run.
        command = [sys.executable, "-m", "tests.shell", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
