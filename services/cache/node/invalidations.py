"""The leader's account of invalidations: whose copies of a key may be out of date, and which answers wait for them.

Each write, deletion, expiry or eviction makes every earlier holder of the line pending, the writer's own node and
the leader's included, until it has applied that entry or its lease has run out. Pendings of one key accumulate
over successive writes. The answer to an entry is held while a key that it names has pendings of this entry or an
earlier one; a writer's own node is no reason to hold the writer's answer, because that node gives it only after
its own apply. (Leaving the writer out of the pendings altogether looks harmless and is not: another node's fill
could show the new value while the writer's node still serves the old one.)

An invalidated tag is awaited under a name of its own: for all that held any line of it, and for all that owe an
apply already. From their apply of that one entry on they show none of the lines, swept or not. What the answer to a
later entry waits for is found by the keys that it names: the first that meets such a line removes it, which makes its
holders pending once more.

Every held answer is filed under one of those that it waits for, and looked at again when that one is done: under load
with a node that has stopped, many thousand are held for one key, and all of them looked at with each step took
seconds. A pair of key and node that is done for an answer never holds it again: what is owed later is owed to others.

Only a leader keeps this account, from the first entry of its leadership on; what went before is covered by the
wait after an election (`raft.core.leases.is_open`).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, Protocol

from common.metrics import Histogram
from raft.withheld import IsDone
from services.cache.replicated.line import Answered, Invalidated, Transition
from services.cache.replicated.machine import ANSWER_TOPIC, tag_key
from services.cache.replicated.store import INVALIDATED_TOPIC, TRANSITION_TOPIC

#: Causes of transitions that take the line from its holders.
INVALIDATING = frozenset({"write", "delete", "expire", "evict", "invalidate"})
#: Applies that are ticked off in one turn.
SETTLED_PER_TURN_MAX = 10_000

#: A key, and a node that may serve what was replaced of it.
Blocker = tuple[str, str]


class Node(Protocol):
    """The part of `raft.node.RaftNode` that hears of entries."""

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]: ...

    def now_ms(self) -> int: ...


class Invalidations:
    """Implements `raft.withheld.Withheld` for the cache."""

    def __init__(self, node: Node, wait_seconds: Histogram) -> None:
        self._now_ms = node.now_ms
        self._wait_seconds = wait_seconds
        self._leading = False
        #: node -> `(index that it must have applied, key)`, oldest first.
        self._owed: dict[str, deque[tuple[int, str]]] = {}
        #: key -> node -> the indexes of `_owed`, oldest first.
        self._pending: dict[str, dict[str, deque[int]]] = {}
        #: Held entries, oldest first: index -> (what else it may wait for, held since).
        self._held: dict[int, tuple[Iterator[Blocker], int]] = {}
        #: Heaps of the held entries that are filed under each.
        self._held_by: dict[Blocker, list[int]] = {}
        node.subscribe(TRANSITION_TOPIC, self.on_transition)
        node.subscribe(INVALIDATED_TOPIC, self.on_invalidated)
        node.subscribe(ANSWER_TOPIC, self.on_answer)

    def begin(self) -> None:
        self._clear()
        self._leading = True

    def end(self) -> None:
        self._clear()
        self._leading = False

    @property
    def is_leading(self) -> bool:
        return self._leading

    def pending(self, key: str) -> tuple[str, ...]:
        """The nodes that invalidations of `key` wait for, as far as this node leads."""
        return tuple(sorted(self._pending.get(key, ())))

    def on_transition(self, transition: Transition) -> None:
        if transition.cause in INVALIDATING:
            self._owe(transition.index, transition.key, [node for node, _ in transition.before.holders])

    def on_invalidated(self, invalidated: Invalidated) -> None:
        # Whoever owes the apply of an earlier entry may still serve a line of the tag that this entry did not find
        # any more, because it had just been replaced or removed. Which lines those were nobody remembers.
        nodes = sorted({*invalidated.holders, *self._owed})
        self._owe(invalidated.index, tag_key(invalidated.tag), nodes)

    def _owe(self, index: int, key: str, holders: Sequence[str]) -> None:
        """The holders may serve what the entry at `index` replaced of `key`."""
        if not self._leading or not holders:
            return
        pending = self._pending.setdefault(key, {})
        for node in holders:
            pending.setdefault(node, deque()).append(index)
            self._owed.setdefault(node, deque()).append((index, key))

    def on_answer(self, answer: Answered) -> None:
        if self._leading and self._waits(answer):
            self._hold(answer)

    def waiting(self, is_done: IsDone) -> tuple[tuple[int, ...], frozenset[str]]:
        if not self._owed:
            return (), frozenset()
        left = SETTLED_PER_TURN_MAX
        for node in tuple(self._owed):
            owed = self._owed[node]
            while left and owed and is_done(node, owed[0][0]):
                index, key = owed.popleft()
                self._settle(node, index, key)
                left -= 1
            if not owed:
                del self._owed[node]
        return tuple(self._held), frozenset(self._owed)

    def _settle(self, node: str, index: int, key: str) -> None:
        """`node` serves nothing of `key` any more that the entry at `index` replaced."""
        indexes = self._pending[key][node]
        assert indexes.popleft() == index
        next_index = indexes[0] if indexes else None
        if next_index is None:
            del self._pending[key][node]
            if not self._pending[key]:
                del self._pending[key]
        filed = self._held_by.get((key, node))
        if filed is None:
            return
        while filed and (next_index is None or filed[0] < next_index):
            self._file(heappop(filed))
        if not filed:
            del self._held_by[key, node]

    def _hold(self, answer: Answered) -> None:
        self._held[answer.index] = (self._blockers(answer), self._now_ms())
        self._file(answer.index)

    def _file(self, index: int) -> None:
        """File a held entry under the next that it waits for, or let it go."""
        blockers, since_ms = self._held[index]
        blocker = next(blockers, None)
        if blocker is not None:
            heappush(self._held_by.setdefault(blocker, []), index)
            return
        del self._held[index]
        self._wait_seconds.observe((self._now_ms() - since_ms) / 1000)

    def _waits(self, answer: Answered) -> bool:
        return bool(self._pending) and next(self._blockers(answer), None) is not None

    def _blockers(self, answer: Answered) -> Iterator[Blocker]:
        """Each key and node of which the node may serve what was replaced up to that entry, as that stands when it is
        asked for. What later ones replace is theirs to wait for: else writes of one key by several nodes would hold
        the first one's answer without end."""
        for key in answer.keys:
            for node in tuple(self._pending.get(key, ())):
                indexes = self._pending.get(key, {}).get(node)
                if indexes and node != answer.writer and indexes[0] <= answer.index:
                    yield key, node

    def _clear(self) -> None:
        for table in (self._owed, self._pending, self._held, self._held_by):
            table.clear()
