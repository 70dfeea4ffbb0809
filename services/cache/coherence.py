"""What a node may answer from its own memory now: the one place where that is decided.

The rule of this file: a route never looks at the directory to decide whether a read is a hit; it asks
`may_serve` and answers with exactly the line that it returns, with no await in between.

As it stands the caller first confirms with a ReadIndex round that this node's machine is fresh; then being
listed in the directory is all that a hit needs, and a read is linearizable because the round is. Leases and
grants, which make that round unnecessary, are further conditions in `may_serve` and further notes taken in
`on_transition`; nobody else need know.
"""

from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

from common.metrics import Metrics
from services.cache.directory import STATES, I
from services.cache.line import Line, Transition
from services.cache.machine import TRANSITION_TOPIC, CacheMachine


class Node(Protocol):
    """The part of `raft.node.RaftNode` that coherence needs."""

    id: str

    def subscribe(self, topic: str, callback: Callable[[Transition], None]) -> Callable[[], None]: ...

    def cluster_time_ms(self) -> int: ...


class Coherence:
    """One node's view of the lines that it holds."""

    def __init__(self, node: Node, machine: CacheMachine, metrics: Metrics) -> None:
        self.node_id = node.id
        self._node = node
        self._machine = machine
        count = metrics.cache_transitions_total
        #: `(from, to)` -> counter, bound once.
        self._counters = {(a, b): count.labels(a, b) for a in STATES for b in STATES if a != b}
        metrics.cache_lines.watch(self._lines_by_state)
        node.subscribe(TRANSITION_TOPIC, self.on_transition)

    def may_serve(self, key: str) -> Line | None:
        """The line of `key` where this node may answer a read from it at this moment, else None. A line whose
        expiry has come by this node's estimate of cluster time is left to a fill, which decides by the log's
        own time."""
        line = self._machine.line(key)
        if line is None or line.directory.state_of(self.node_id) == I:
            return None
        if line.expires_at is not None and line.expires_at <= self._node.cluster_time_ms():
            return None
        return line

    def on_transition(self, transition: Transition) -> None:
        """An entry that changed a line was applied on this node."""
        before = transition.before.state_of(self.node_id)
        after = transition.after.state_of(self.node_id)
        if before != after:
            self._counters[before, after].add()

    def _lines_by_state(self) -> list[tuple[tuple[str], int]]:
        return [((state,), count) for state, count in self._machine.census(self.node_id).items()]


_coherences: WeakKeyDictionary[CacheMachine, Coherence] = WeakKeyDictionary()


def coherence_of(node: Node, machine: CacheMachine, metrics: Metrics) -> Coherence:
    """The coherence of this machine, which is this node's only one; made at the first call. Call it once when
    the node starts so that no transition goes uncounted."""
    found = _coherences.get(machine)
    if found is None:
        found = _coherences[machine] = Coherence(node, machine, metrics)
    return found
