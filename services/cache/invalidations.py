"""The leader's account of invalidations: whose copies of a key may be out of date, and which answers wait for them.

Each write, deletion, expiry or eviction makes every earlier holder of the line pending, the writer's own node and
the leader's included, until it has applied that entry or its lease has run out. Pendings of one key accumulate
over successive writes. The answer to an entry is held while a key that it names has pendings; a writer's own
node is no reason to hold the writer's answer, because that node gives it only after its own apply. (Leaving the
writer out of the pendings altogether looks harmless and is not: another node's fill could show the new value while
the writer's node still serves the old one.)

Only a leader keeps this account, from the first entry of its leadership on; what went before is covered by the
wait after an election (`raft.core.leases.is_open`).
"""

from collections.abc import Callable
from typing import Protocol

from common.metrics import Histogram
from raft.withheld import IsDone
from services.cache.line import Answered, Transition
from services.cache.machine import ANSWER_TOPIC, TRANSITION_TOPIC

#: Causes of transitions that take the line from its holders.
INVALIDATING = frozenset({"write", "delete", "expire", "evict"})


class Node(Protocol):
    """The part of `raft.node.RaftNode` that hears of entries."""

    def subscribe(self, topic: str, callback: Callable) -> Callable[[], None]: ...

    def now_ms(self) -> int: ...


class Invalidations:
    """Implements `raft.withheld.Withheld` for the cache."""

    def __init__(self, node: Node, wait_seconds: Histogram) -> None:
        self._now_ms = node.now_ms
        self._wait_seconds = wait_seconds
        self._leading = False
        #: key -> node -> index that it must have applied.
        self._pending: dict[str, dict[str, int]] = {}
        #: Held entries, oldest first: index -> (answer, held since).
        self._held: dict[int, tuple[Answered, int]] = {}
        node.subscribe(TRANSITION_TOPIC, self.on_transition)
        node.subscribe(ANSWER_TOPIC, self.on_answer)

    def begin(self) -> None:
        self._pending.clear()
        self._held.clear()
        self._leading = True

    def end(self) -> None:
        self._pending.clear()
        self._held.clear()
        self._leading = False

    def pending(self, key: str) -> tuple[str, ...]:
        """The nodes that invalidations of `key` wait for, as far as this node leads."""
        return tuple(sorted(self._pending.get(key, ())))

    def on_transition(self, transition: Transition) -> None:
        if self._leading and transition.cause in INVALIDATING and transition.before.holders:
            pending = self._pending.setdefault(transition.key, {})
            for node, _ in transition.before.holders:
                pending[node] = transition.index

    def on_answer(self, answer: Answered) -> None:
        if self._leading and self._waits(answer):
            self._held[answer.index] = (answer, self._now_ms())

    def waiting(self, is_done: IsDone) -> tuple[tuple[int, ...], frozenset[str]]:
        if not self._pending:
            return (), frozenset()
        for key in tuple(self._pending):
            left = {node: index for node, index in self._pending[key].items() if not is_done(node, index)}
            if left:
                self._pending[key] = left
            else:
                del self._pending[key]
        for index, (answer, since_ms) in tuple(self._held.items()):
            if not self._waits(answer):
                del self._held[index]
                self._wait_seconds.observe((self._now_ms() - since_ms) / 1000)
        return tuple(self._held), frozenset(node for nodes in self._pending.values() for node in nodes)

    def _waits(self, answer: Answered) -> bool:
        for key in answer.keys:
            pending = self._pending.get(key)
            if pending and (len(pending) > 1 or answer.writer not in pending):
                return True
        return False
