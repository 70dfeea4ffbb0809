"""Ten bugs of the coherence protocol, one line each, planted into the real code while a simulated cluster runs.

    python -m tests.sim.cache_planted [--seeds 60]     a table: bug, the first seed that catches it
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from raft.core import election, leases
from raft.core.leases import Leases
from services.cache.invalidations import Invalidations
from services.cache.line import Transition
from tests.sim.cache_cluster import Node, World

Patches = list[tuple[Any, str, Any]]


def grants(*, bounded: bool = True, behind_no_op: bool = True) -> Callable:
    """`leases.on_answer` without one of its conditions."""

    def on_answer(raft: Any, node: str, reply: int) -> None:
        lease_ms, progress = raft.config.lease_ms, raft.progress[node]
        needed = raft.term_start_index if behind_no_op else 0
        if progress.applied_index < max(needed, raft.leases.needed_index(node) if behind_no_op else 0):
            return
        received_ms = raft.now_ms + 1
        left_ms = election.quorum_contact_ms(raft) + lease_ms - received_ms if bounded else lease_ms
        duration_ms = min(lease_ms, left_ms)
        if duration_ms > 0:
            drift_ms = duration_ms * raft.config.lease_drift_percent // 100 + 1
            raft.leases.note_grant(node, reply, duration_ms, received_ms + duration_ms + drift_ms)

    return on_answer


def no_lease_check() -> Patches:
    return [(leases, "is_valid", lambda raft, now_ms: True)]


def counted_from_receipt() -> Patches:
    real = Leases.on_append_entries

    def on_append_entries(self: Leases, message: Any) -> None:
        if message.lease[0] in self._replied_ms:
            self._replied_ms[message.lease[0]] = NOW[self]()
        real(self, message)

    return [(Leases, "on_append_entries", on_append_entries)]


def not_bounded_by_q() -> Patches:
    return [(leases, "on_answer", grants(bounded=False))]


def given_anew_too_early() -> Patches:
    return [(Leases, "needed_index", lambda self, node: 0)]


def given_before_the_no_op() -> Patches:
    return [(leases, "on_answer", grants(behind_no_op=False))]


def no_wait_after_an_election() -> Patches:
    real = Leases.on_elected

    def on_elected(self: Leases, now_ms: int, longest_ms: int) -> None:
        real(self, now_ms, longest_ms)
        self._earlier_until_ms = 0

    return [(Leases, "on_elected", on_elected)]


def invalidation_not_awaited() -> Patches:
    real = Invalidations._waits
    return [(Invalidations, "_waits", lambda self, answer: not answer.writer and real(self, answer))]


def fill_that_does_not_wait() -> Patches:
    real = Invalidations._waits
    return [(Invalidations, "_waits", lambda self, answer: bool(answer.writer) and real(self, answer))]


def writers_own_node_not_awaited() -> Patches:
    real = Invalidations.on_transition

    def on_transition(self: Invalidations, transition: Transition) -> None:
        real(self, transition)
        for node, state in transition.after.holders:
            indexes = self._pending.get(transition.key, {}).get(node)
            if transition.cause == "write" and state == "M" and indexes and indexes[-1] == transition.index:
                self._owed[node].pop()
                self._settle_last(node, transition.key)

    def settle_last(self: Invalidations, node: str, key: str) -> None:
        indexes = self._pending[key][node]
        indexes.pop()
        if not indexes:
            del self._pending[key][node]
            if not self._pending[key]:
                del self._pending[key]
        if not self._owed[node]:
            del self._owed[node]

    return [(Invalidations, "on_transition", on_transition), (Invalidations, "_settle_last", settle_last)]


def writers_early_read() -> Patches:
    real = Node.start

    def start(self: Node) -> None:
        real(self)
        self.subscribe(
            "cache.line",
            lambda transition: transition.cause == "write"
            and transition.after.state_of(self.id) == "M"
            and self.coherence.grant(transition.key, transition.version_after),
        )

    return [(Node, "start", start)]


BUGS: dict[str, Callable[[], Patches]] = {
    "no lease check": no_lease_check,
    "lease counted from receipt": counted_from_receipt,
    "lease not bounded by the leader's own": not_bounded_by_q,
    "lapsed lease given anew too early": given_anew_too_early,
    "lease given before the no-op is applied": given_before_the_no_op,
    "no wait after an election": no_wait_after_an_election,
    "invalidation not awaited": invalidation_not_awaited,
    "fill that does not wait": fill_that_does_not_wait,
    "writer's own node not awaited": writers_own_node_not_awaited,
    "writer's early read": writers_early_read,
}

#: The clock of each node's leases, for the bug that reads it.
NOW: dict[Leases, Callable[[], int]] = {}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The bug is in the code as long as this lasts."""
    patches = [patch.object(owner, attribute, value, create=True) for owner, attribute, value in BUGS[name]()]
    begin = Node.start

    def start(self: Node) -> None:
        begin(self)
        NOW[self.core.leases] = self.now_ms

    for each in patches:
        each.start()
    begin = Node.start
    clock = patch.object(Node, "start", start)
    clock.start()
    try:
        yield
    finally:
        clock.stop()
        for each in reversed(patches):
            each.stop()
        NOW.clear()


def seeds_until_caught(name: str, seeds: int, first: int = 0) -> int | None:
    """How many seeds it took; None where none of them did."""
    for number in range(seeds):
        with planted(name):
            if not World(first + number).run().linearizable:
                return number + 1
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.cache_planted")
    parser.add_argument("--seeds", type=int, default=60)
    options = parser.parse_args()
    missed = 0
    for name in BUGS:
        caught = seeds_until_caught(name, options.seeds)
        missed += caught is None
        print(f"{name:42} {'not caught' if caught is None else caught}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
