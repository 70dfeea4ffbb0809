"""The simulator as part of the tests: seeds, the proof that faults occurred in them, and the proof that it finds
bugs."""

import os
import re
from pathlib import Path

from tests.sim.campaign import run_campaign
from tests.sim.coverage import FAULTS, undeclared
from tests.sim.invariants import load_invariants
from tests.sim.planted import load_bugs, planted
from tests.sim.run import run_seed
from tests.sim.selftest import SEEDS_MAX

SEEDS = int(os.environ.get("SIM_SEEDS", "300"))
#: Events with faults per seed, so that all of it takes well under three minutes on two cores.
EVENTS = 2_500
#: Caught within a handful of seeds: a whole table takes `make sim-selftest`.
QUICK_BUGS = (
    "entries_acknowledged_before_fsync",
    "term_leaves_before_it_is_durable",
    "earlier_term_committed_by_counting",
    "vote_for_any_log",
    "compacted_follower_is_sent_nothing",
    "new_leader_starts_time_anew",
    "two_changes_at_once",
    "wiped_node_returns_under_its_old_name",
)


def test_every_seed_keeps_every_promise_and_every_kind_of_fault_occurs():
    """Safety under faults, then a healed majority serves, then all converge; see tests/sim/run.py."""
    summary = run_campaign(range(1, 1 + SEEDS), events=EVENTS)

    failed = [f"--seed {one.seed} --events {EVENTS}: {one.phase}: {one.failure}" for one in summary.failures]
    assert [] == failed
    assert SEEDS == summary.seeds
    if SEEDS >= 300:
        assert [] == [name for name in FAULTS if not summary.cover[name]]
    assert [] == undeclared(summary.cover)


def test_planted_bugs_are_caught():
    """The simulator bites: known bug classes, one line each, are found within a few seeds."""
    bugs = load_bugs()

    missed = [name for name in QUICK_BUGS if not _is_caught(bugs[name])]

    assert [] == missed


def _is_caught(bug) -> bool:
    with planted(bug):
        return any(run_seed(seed, events=EVENTS, situations=False).failure for seed in range(1, 41))


def test_there_are_enough_invariants_and_planted_bugs():
    """Each invariant is one file with a section; each planted change still applies to the source."""
    assert len(load_invariants()) >= 20
    assert len(load_bugs()) >= 40


def test_every_planted_bug_stands_in_the_table():
    """What docs/testing.md claims to have hunted is what there is to hunt, each bug once."""
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text("utf-8")

    rows = re.findall(r"^\| ([a-z0-9_]+) \| (?:#|-)[^|]*\| \d+ \| (\d+) \| [^|]+ \|$", page, re.MULTILINE)

    assert list(load_bugs()) == [name for name, _ in rows]
    assert max(int(worst) for _, worst in rows) <= SEEDS_MAX
