"""Bugs of the coherence protocol, planted one by one into the real code while simulated clusters run.

    python -m tests.sim.cache_planted [--seeds 300] [--series 3]        (`make sim-cache-selftest`)

prints a table: the bug, and the seeds until it was caught in each series. A bug that is not caught fails the run.
Each breaks a rule of `docs/coherence.md`.
"""

import argparse
import sys

from tests.sim.cache_cluster import World
from tests.sim.planted import Bug, planted

SEEDS_MAX = 300
#: Seeds of one series begin so far behind those of the one before.
SERIES_STEP = 100_000

BUGS = (
    Bug(
        "no lease check",
        (68,),
        "raft.core.leases:is_valid",
        "if now_ms < raft.leases.valid_until_ms:",
        "if True:",
    ),
    Bug(
        "lease counted from receipt",
        (69,),
        "raft.core.replication:on_append_entries",
        "raft.leases.on_append_entries(message)",
        "raft.leases._replied_ms.update({n: raft.now_ms for n in raft.leases._replied_ms if n == message.lease[0]})\n"
        "    raft.leases.on_append_entries(message)",
    ),
    Bug(
        "lease not bounded by the leader's own",
        (70,),
        "raft.core.leases:on_answer",
        "election.quorum_contact_ms(raft) + lease_ms, ",
        "raft.now_ms + lease_ms, ",
    ),
    Bug(
        "lapsed lease given anew too early",
        (),
        "raft.core.lease_records:Leases.needed_index",
        "max(self._commit_marks[1][0], self._barriers.get(node, 0))",
        "0",
    ),
    Bug(
        "lease given before the no-op is applied",
        (),
        "raft.core.leases:on_answer",
        "raft.term_start_index, raft.leases.needed_index(node), raft.configurations.index_at(commit_index)",
        "raft.leases.needed_index(node), 0",
    ),
    Bug(
        "no wait after an election",
        (70,),
        "raft.core.lease_records:Leases.on_elected",
        "self._earlier_until_ms = now_ms + longest_ms",
        "self._earlier_until_ms = 0",
    ),
    Bug(
        "invalidation not awaited",
        (),
        "services.cache.node.invalidations:Invalidations.on_answer",
        "self._leading and self._waits(answer)",
        "self._leading and not answer.writer and self._waits(answer)",
    ),
    Bug(
        "fill that does not wait",
        (),
        "services.cache.node.invalidations:Invalidations.on_answer",
        "self._leading and self._waits(answer)",
        "self._leading and answer.writer and self._waits(answer)",
    ),
    Bug(
        "writer's own node not awaited",
        (),
        "services.cache.node.invalidations:Invalidations.on_transition",
        "in transition.before.holders])",
        "in transition.before.holders if transition.after.state_of(node) != 'M'])",
    ),
    Bug(
        "writer's early read",
        (),
        "services.cache.node.coherence:Coherence.on_transition",
        "self._held.drop(transition.key)",
        "self._held.drop(transition.key); after == 'M' and self.grant(transition.key, transition.version_after)",
    ),
    Bug(
        "absence shown at once",
        (),
        "services.cache.node.coherence:Coherence.is_surely_absent",
        "return self._all_removed_ms <= known_since_ms and self._removed.get(key, known_since_ms) <= known_since_ms",
        "return True",
    ),
    Bug(
        "invalidation by tag not awaited",
        (),
        "services.cache.node.invalidations:Invalidations.on_invalidated",
        "nodes = sorted({*invalidated.holders, *self._owed})",
        "nodes = []",
    ),
    Bug(
        "no allowance for drift",
        (),
        "raft.core.leases:on_answer",
        "drift_ms = duration_ms * raft.config.lease_drift_percent // 100 + 1",
        "drift_ms = 0",
    ),
    Bug(
        "new leader waits by its own setting",
        (),
        "raft.core.leases:_longest_ms",
        "max(raft.config.lease_ms, agreed.lease_ms)",
        "raft.config.lease_ms",
    ),
)


def seeds_until_caught(bug: Bug, seeds: int, first: int = 0) -> int | None:
    """How many seeds it took; None where none of them did. A seed that fails without the bug, too, is an error of
    the code and not a catch."""
    for number in range(seeds):
        with planted(bug):
            caught = not World(first + number).run().linearizable
        if caught:
            assert World(first + number).run().linearizable, f"seed {first + number} fails as it is"
            return number + 1
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.cache_planted")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    parser.add_argument("--series", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a name")
    options = parser.parse_args()
    missed = 0
    for bug in BUGS:
        if options.only not in bug.name:
            continue
        found = [
            seeds_until_caught(bug, options.seeds, SERIES_STEP * (1 + series))
            for series in range(options.series)
        ]
        missed += found.count(None)
        print(f"{bug.name:44}", *(f"{'-' if seeds is None else seeds:>6}" for seeds in found), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
