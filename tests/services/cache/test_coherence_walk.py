"""The real machine, account and grants of three nodes on random walks, against an oracle that looks at the whole log.

Only Raft and leases are imagined: entries are committed in one order, each node applies them when the walk says so,
and a lease lapses and comes back by its rules. A local hit is wrong where somebody has been answered by an entry that
stands behind a later change of that key; an invalidation is an answer about every key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from common.metrics import Metrics
from raft.state_machine import ApplyContext
from services.cache.node import invalidations
from services.cache.node.coherence import Coherence
from services.cache.node.invalidations import Invalidations
from services.cache.replicated import store
from services.cache.replicated.commands import Delete, Fill, Incr, Invalidate, Put
from services.cache.replicated.machine import CacheMachine
from services.cache.replicated.tags import Tags
from tests.services.cache.tools import NODES

KEYS = ("a", "b", "c")
TAGS = ("t", "u")
WALKS = 120
STEPS = 120


@dataclass(frozen=True)
class Again:
    """A write that is sent again with its `Idempotency-Key`, perhaps to another node: it gets its first answer."""

    first: Put | Incr
    answer: dict[str, Any]

    @property
    def key(self) -> str:
        return self.first.key


class Replica:
    """One node: its machine and grants, how far it has applied, and whether it may serve."""

    def __init__(self, id: str, walk: "Walk") -> None:
        self.id = id
        self.walk = walk
        self.inner = CacheMachine()
        self.applied = 0
        self.lease = True
        self.listeners: list[tuple[str, Callable[[Any], None]]] = []
        self.coherence = Coherence(self, Metrics())

    @property
    def machine(self) -> "Replica":
        return self

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.listeners.append((topic, callback))
        return lambda: None

    def now_ms(self) -> int:
        return 0

    def cluster_time_ms(self) -> int:
        return 1000

    def removal_unknown_ms(self) -> int:
        return 1

    def may_serve_locally(self) -> bool:
        return self.lease

    def apply_next(self) -> dict[str, Any]:
        self.applied += 1
        command = self.walk.log[self.applied - 1]
        context = ApplyContext(self.applied, 1000)
        answer: dict[str, Any] = {}
        if command is None:
            self.inner.advance(context)
        elif isinstance(command, Again):
            self.inner.advance(context)
            answer = self.inner.repeat(context, command.first, command.answer)
        else:
            answer = self.inner.apply(context, command)
        for topic, body in context.events:
            for wanted, callback in self.listeners:
                if wanted == topic:
                    callback(body)
        return answer

    def restore(self, other: "Replica") -> None:
        """A snapshot of `other` stands for everything up to there."""
        self.inner = CacheMachine()
        self.inner.restore(list(other.inner.snapshot()))
        self.applied = other.applied
        self.coherence.on_restored()


class Walk:
    """One walk. The first node leads, and applies what it appends at once."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.log: list[Any] = []
        self.nodes = {id: Replica(id, self) for id in NODES}
        self.leader = self.nodes[NODES[0]]
        self.account = Invalidations(self.leader, Metrics().cache_invalidation_wait_seconds.labels())
        self.account.begin()
        #: What each node must have applied before it is given a lease again.
        self.barriers = dict.fromkeys(NODES, 0)
        #: Operations without an answer: index -> (node, command, answer of the leader's apply).
        self.under_way: dict[int, tuple[str, Any, dict[str, Any]]] = {}
        #: Indexes at which a key changed, and the tags that it carries now.
        self.changes: dict[str, list[int]] = {key: [] for key in KEYS}
        self.tags: dict[str, tuple[str, ...]] = {}
        #: Up to which index somebody has been told of a key.
        self.told = dict.fromkeys(KEYS, 0)
        self.hits = 0
        #: Writes that have been carried out.
        self.written: list[Again] = []

    def run(self) -> str:
        """What was wrong, or nothing."""
        for _ in range(STEPS):
            self._step()
            self._answer()
            wrong = self._look()
            if wrong:
                return wrong
        return ""

    def _step(self) -> None:
        chance = self.chance
        node = self.nodes[chance.choice(NODES)]
        what = chance.random()
        if what < 0.35:
            self._append(node.id, self._command(node.id))
        elif what < 0.4:
            self._append(node.id, None)
        elif what < 0.8:
            if node.applied < len(self.log):
                node.apply_next()
        elif what < 0.85 and node is not self.leader:
            node.lease = False
        elif what < 0.95:
            node.lease = node.lease or node.applied >= self.barriers[node.id]
        elif node.applied < self.leader.applied:
            node.restore(self.leader)

    def _command(self, node: str) -> Any:
        chance, key = self.chance, self.chance.choice(KEYS)
        tags = tuple(tag for tag in TAGS if chance.random() < 0.5)
        return chance.choice(
            [
                Put(key, b"1", node, tags=tags),
                Incr(key, 1, node),
                Fill(key, node),
                Fill(key, node),
                Fill(key, node),
                Delete(key),
                Invalidate(chance.choice(TAGS)),
                chance.choice(self.written[-5:] or [Fill(key, node)]),
            ]
        )

    def _append(self, node: str, command: Any) -> None:
        self.log.append(command)
        index = len(self.log)
        while self.leader.applied < index:
            answer = self.leader.apply_next()
        if isinstance(command, Put | Incr):
            self.changes[command.key].append(index)
            self.tags[command.key] = command.tags if isinstance(command, Put) else self.tags.get(command.key, ())
            self.written.append(Again(command, answer))
        gone = [command.key] if isinstance(command, Delete) else []
        if isinstance(command, Invalidate):
            gone = [key for key, tags in self.tags.items() if command.tag in tags]
        for key in gone:
            if self.tags.pop(key, None) is not None:
                self.changes[key].append(index)
        if command is not None:
            self.under_way[index] = (node, command, answer)

    def _is_done(self, node: str, index: int) -> bool:
        replica = self.nodes[node]
        if replica.applied >= index:
            return True
        if replica.lease:
            return False
        self.barriers[node] = max(self.barriers[node], index)
        return True

    def _answer(self) -> None:
        """Give the answers that may be given."""
        held, _ = self.account.waiting(self._is_done)
        for index, (node, command, answer) in tuple(self.under_way.items()):
            replica = self.nodes[node]
            if index in held or replica.applied < index:
                continue
            del self.under_way[index]
            # A repeated answer says what was so at its first, and nothing of what came after.
            shown = answer["version"] if isinstance(command, Again) else index
            for key in KEYS if isinstance(command, Invalidate) else (command.key,):
                self.told[key] = max(self.told[key], shown)
            if "version" in answer:
                replica.coherence.grant(command.key, answer["version"])

    def _look(self) -> str:
        """Read every key from every node's memory."""
        for key in KEYS:
            for node in self.nodes.values():
                line = node.coherence.may_serve(key)
                if line is None:
                    continue
                self.hits += 1
                overtaken = [each for each in self.changes[key] if line.version < each <= self.told[key]]
                if overtaken:
                    return f"{node.id} serves version {line.version} of {key}, changed at {overtaken}"
                self.told[key] = max(self.told[key], line.version)
        return ""


def first_wrong() -> str:
    for seed in range(WALKS):
        wrong = Walk(seed).run()
        if wrong:
            return f"{wrong} (seed {seed})"
    return ""


@pytest.fixture(params=[0, 1, 1000], ids=lambda each: f"sweeps {each}")
def swept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many lines an entry sweeps away."""
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", request.param)


@pytest.mark.usefixtures("swept")
def test_no_walk_shows_what_an_answer_has_overtaken() -> None:
    walks = [Walk(seed) for seed in range(WALKS)]

    assert [walk.run() for walk in walks] == [""] * WALKS
    assert sum(walk.hits for walk in walks) > 10 * WALKS
    assert sum(len(walk.account._held) + len(walk.under_way) for walk in walks) > 0
    assert sum(isinstance(command, Again) for walk in walks for command in walk.log) > WALKS


@pytest.mark.usefixtures("swept")
def test_an_invalidation_that_waits_for_nobody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Invalidations, "on_invalidated", lambda self, invalidated: None)

    assert first_wrong()


@pytest.mark.usefixtures("swept")
def test_an_invalidation_that_waits_only_for_what_it_removed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a line that had been replaced just before may be served still."""

    def on_invalidated(self: Invalidations, invalidated: Any) -> None:
        self._owe(invalidated.index, invalidations.tag_key(invalidated.tag), invalidated.holders)

    monkeypatch.setattr(Invalidations, "on_invalidated", on_invalidated)

    assert first_wrong()


@pytest.mark.usefixtures("swept")
def test_lines_that_go_by_their_tag_must_be_awaited_key_by_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a fill may show the absence before the invalidation itself is answered."""
    monkeypatch.setattr(invalidations, "INVALIDATING", invalidations.INVALIDATING - {"invalidate"})

    assert first_wrong()


@pytest.mark.usefixtures("swept")
def test_a_repeated_answer_that_is_not_held_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a repeated answer lets its node serve the version, and it may be a node that never held the line: so it
    must wait, like the first, for whoever may serve something older."""
    monkeypatch.setattr(CacheMachine, "repeat", lambda self, context, command, kept: kept)

    assert first_wrong()


@pytest.mark.parametrize("sweeps", [0, 1])
def test_a_node_that_serves_lines_until_they_are_swept_is_caught(
    monkeypatch: pytest.MonkeyPatch, sweeps: int
) -> None:
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", sweeps)
    monkeypatch.setattr(Tags, "is_dead", lambda self, line: False)

    assert first_wrong()
