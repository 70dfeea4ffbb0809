"""What a node may answer from its own memory now: the one place where that is decided (docs/coherence.md).

A node answers key k from memory with no message at all, and the answer is linearizable, where

1. its directory lists it as a holder of the line, as far as it has applied the log;
2. it was granted exactly this version, by the released answer to its own write or fill;
3. its read lease is valid by its clock, looked at after the value was picked up.

The rule of this file: a route never looks at the directory to decide whether a read is a hit; it asks
`may_serve` and answers with exactly the line that it returns, with no await in between. How many grants there may
be, and which go first, is `services.cache.node.held`'s.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from common.config import Settings
from common.metrics import Metrics
from services.cache.node.held import KEPT_ANSWER_BYTES_MAX, HeldLine, HeldLines
from services.cache.node.policies import make_held_lines
from services.cache.replicated.directory import STATES, I
from services.cache.replicated.line import Line, Transition
from services.cache.replicated.machine import TRANSITION_TOPIC, CacheMachine

#: Keys that were removed lately and are remembered one by one; with more, every absence counts as recent for as long
#: as those that were forgotten would.
REMOVED_MAX = 100_000
#: Removals that one call forgets because they are no longer recent.
FORGOTTEN_PER_CALL_MAX = 100


class Node(Protocol):
    """The part of `raft.node.RaftNode` that coherence needs."""

    id: str
    machine: Any

    def subscribe(self, topic: str, callback: Callable[[Transition], None]) -> Callable[[], None]: ...

    def cluster_time_ms(self) -> int: ...

    def now_ms(self) -> int: ...

    def may_serve_locally(self) -> bool: ...

    def removal_unknown_ms(self) -> int: ...


class Coherence:
    """One node's view of the lines that it holds.

    Args:
        held: the table of lines; None: one of the default bounds.
    """

    def __init__(self, node: Node, metrics: Metrics, *, held: HeldLines | None = None) -> None:
        self.node_id = node.id
        self._node = node
        self._held = make_held_lines(Settings()) if held is None else held
        #: Keys that an entry removed -> when this node applied it, by its clock, oldest first. Not the entry's own
        #: time: the commit may come long after the leader stamped it.
        self._removed: OrderedDict[str, int] = OrderedDict()
        #: What went before is not known here one by one: it counts as removed at that time.
        self._all_removed_ms = node.now_ms()
        count = metrics.cache_transitions_total
        #: `(from, to)` -> counter, bound once.
        self._counters = {(a, b): count.labels(a, b) for a in STATES for b in STATES if a != b}
        metrics.cache_lines.watch(self._lines_by_state)
        node.subscribe(TRANSITION_TOPIC, self.on_transition)

    @property
    def machine(self) -> CacheMachine:
        """The replicated machine; another object after a snapshot was installed."""
        machine: CacheMachine = self._node.machine.inner
        return machine

    def may_serve(self, key: str) -> Line | None:
        """The line of `key` where this node may answer a read from it at this moment, else None."""
        granted = self.hit(key)
        return None if granted is None else granted.line

    def hit(self, key: str) -> HeldLine | None:
        """As `may_serve`, with the answers that are kept beside the line."""
        granted = self._held.find(key)
        if granted is None:
            return None
        line = self._node.machine.inner.line(key)
        if line is not granted.line or line is None:
            # Rows are never changed in place: the same one is in the same state.
            if line is None or line.version != granted.version or line.directory.state_of(self.node_id) == I:
                return None
            granted.line = line
            granted.get_answer = granted.read_answer = b""
        if line.expires_at is not None and line.expires_at <= self._node.cluster_time_ms():
            # By this node's estimate; a fill decides by the log's own time.
            return None
        if not self._node.may_serve_locally():
            return None
        self._held.touch(key)
        return granted

    def grant(self, key: str, version: int) -> None:
        """The answer to this node's own write or fill of `key` was released: it may serve this version."""
        line = self.machine.line(key)
        if line is None or line.version != version:
            return
        size = line.counted_bytes + 2 * min(len(line.value), KEPT_ANSWER_BYTES_MAX)
        self._held.put(key, HeldLine(version, size))

    def is_surely_absent(self, key: str) -> bool:
        """After a ReadIndex: whether the absence of `key` may be answered without a log entry. A key that went
        lately may still be served by a holder that has not heard of it; a fill waits for that."""
        if self.machine.has(key):
            return False
        known_since_ms = self._node.now_ms() - self._node.removal_unknown_ms()
        for _ in range(min(FORGOTTEN_PER_CALL_MAX, len(self._removed))):
            oldest = next(iter(self._removed))
            if self._removed[oldest] > known_since_ms:
                break
            del self._removed[oldest]
        return self._all_removed_ms <= known_since_ms and self._removed.get(key, known_since_ms) <= known_since_ms

    def on_transition(self, transition: Transition) -> None:
        """An entry that changed a line was applied on this node."""
        before = transition.before.state_of(self.node_id)
        after = transition.after.state_of(self.node_id)
        if before != after:
            self._counters[before, after].add()
        if after == I or transition.version_after != transition.version_before:
            self._held.drop(transition.key)
        if not transition.version_after:
            self._removed[transition.key] = self._node.now_ms()
            self._removed.move_to_end(transition.key)
            if len(self._removed) > REMOVED_MAX:
                _, removed_ms = self._removed.popitem(last=False)
                self._all_removed_ms = max(self._all_removed_ms, removed_ms)

    def on_restored(self) -> None:
        """A snapshot replaced the machine: what was removed on the way is not known one by one."""
        self._all_removed_ms = self._node.now_ms()

    def _lines_by_state(self) -> list[tuple[tuple[str], int]]:
        return [((state,), count) for state, count in self.machine.census(self.node_id).items()]
