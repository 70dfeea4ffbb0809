"""The leader's account: which answers wait, and for whom."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from common.metrics import Metrics
from raft.state_machine import ApplyContext
from services.cache.node import invalidations
from services.cache.node.invalidations import Invalidations
from services.cache.replicated import store
from services.cache.replicated.commands import Delete, Fill, FillMany, Invalidate, Put, PutMany
from services.cache.replicated.line import Answered
from services.cache.replicated.machine import ANSWER_TOPIC, CacheMachine
from services.cache.replicated.store import TRANSITION_TOPIC
from tests.services.cache.tools import Log


class Leader:
    """A leader's machine and account; the test says how far each node has applied, and who is dead."""

    def __init__(self) -> None:
        self.listeners: dict[str, Callable[[Any], None]] = {}
        self.applied = {"node1": 0, "node2": 0, "node3": 0}
        self.lapsed: set[str] = set()
        self.waits = Metrics().cache_invalidation_wait_seconds.labels()
        self.account = Invalidations(self, self.waits)
        self.account.begin()
        self.log = Log(CacheMachine())

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        self.listeners[topic] = callback
        return lambda: None

    def now_ms(self) -> int:
        return 1000

    def apply(self, command: Any) -> int:
        """Apply at the leader; returns the entry's index."""
        self.log.apply(command)
        for topic, body in self.log.events:
            if topic in self.listeners:
                self.listeners[topic](body)
        return self.log.index

    def held(self) -> tuple[int, ...]:
        return self.account.waiting(self.is_done)[0]

    def wanted(self) -> frozenset[str]:
        return self.account.waiting(self.is_done)[1]

    def is_done(self, node: str, index: int) -> bool:
        return node in self.lapsed or self.applied[node] >= index


@pytest.fixture
def leader() -> Leader:
    return Leader()


def test_a_write_of_an_unheld_line_waits_for_nobody(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))

    assert (leader.held(), leader.wanted()) == ((), frozenset())


def test_a_write_waits_for_every_earlier_holder(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))
    leader.apply(Fill("k", "node2"))

    put = leader.apply(Put("k", b"2", "node3"))

    assert (leader.held(), leader.wanted()) == ((put,), {"node1", "node2"})
    leader.applied["node1"] = put
    assert leader.held() == (put,)
    leader.lapsed.add("node2")
    assert leader.held() == ()


def test_the_owner_that_writes_again_is_not_held_but_others_readers_are(leader: Leader) -> None:
    """Goal: its node holds the answer back until its own apply; a fill elsewhere must not show the new value while
    it still serves the old one."""
    leader.apply(Put("k", b"1", "node2"))

    leader.apply(Put("k", b"2", "node2"))
    fill = leader.apply(Fill("k", "node3"))

    assert leader.held() == (fill,)
    leader.applied["node2"] = 2
    assert leader.held() == ()


def test_a_fill_of_a_line_without_pendings_waits_for_nobody(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))
    leader.apply(Fill("k", "node2"))

    assert leader.held() == ()


def test_an_answer_does_not_wait_for_what_later_writes_replace(leader: Leader) -> None:
    """Goal: writers at several nodes would otherwise hold the first one's answer without end."""
    leader.apply(Put("k", b"1", "node1"))
    first = leader.apply(Put("k", b"2", "node2"))
    second = leader.apply(Put("k", b"3", "node3"))

    leader.applied["node1"] = first

    assert leader.held() == (second,)


def test_a_node_may_owe_several_applies_of_one_key(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))
    first = leader.apply(Put("k", b"2", "node2"))
    leader.apply(Put("k", b"3", "node1"))
    third = leader.apply(Put("k", b"4", "node3"))

    leader.applied = {"node1": first, "node2": third, "node3": third}

    assert leader.held() == (third,)
    assert leader.account.pending("k") == ("node1",)


@pytest.mark.parametrize("command", [Delete("k"), PutMany((("k", b"2", None, None),), "node3")])
def test_removals_and_writes_of_many_wait_too(leader: Leader, command: Any) -> None:
    leader.apply(Put("k", b"1", "node1"))

    index = leader.apply(command)

    assert leader.held() == (index,)


def test_a_read_of_an_absence_waits_for_the_removal(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))
    delete = leader.apply(Delete("k"))

    fill = leader.apply(FillMany(("other", "k"), "node3"))

    assert leader.held() == (delete, fill)
    leader.applied["node1"] = delete
    assert leader.held() == ()


def test_a_refusal_that_tells_the_version_waits_for_it_to_be_the_only_one(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))
    leader.apply(Put("k", b"2", "node2"))

    refused = leader.apply(Put("k", b"3", "node3", None, 7))

    assert leader.held() == (2, refused)


def test_an_expiry_makes_its_holders_pending(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1", 5))
    leader.log.time_ms += 10

    fill = leader.apply(Fill("k", "node2"))

    assert leader.held() == (fill,)


def tagged(key: str, node: str) -> Put:
    return Put(key, b"1", node, tags=("t",))


def test_an_invalidation_waits_for_every_holder_of_any_line_of_the_tag(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: those of lines that are swept by later entries too."""
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", 1)
    leader.apply(tagged("a", "node1"))
    leader.apply(tagged("b", "node2"))
    leader.apply(tagged("c", "node3"))
    leader.apply(Put("d", b"1", "node3"))

    invalidation = leader.apply(Invalidate("t"))

    assert (leader.held(), leader.wanted()) == ((invalidation,), {"node1", "node2", "node3"})
    leader.applied = {"node1": invalidation, "node2": invalidation, "node3": invalidation - 1}
    assert leader.held() == (invalidation,)
    leader.lapsed.add("node3")
    assert leader.held() == ()


def test_a_holder_of_other_lines_is_no_reason_to_hold_an_invalidation(leader: Leader) -> None:
    leader.apply(tagged("a", "node1"))
    leader.apply(Put("d", b"1", "node3"))

    leader.apply(Invalidate("t"))

    assert leader.wanted() == {"node1"}


@pytest.mark.parametrize("gone", [Put("k", b"2", "node2"), Delete("k")])
def test_an_invalidation_waits_for_holders_of_lines_that_had_just_gone(leader: Leader, gone: Any) -> None:
    """Goal: node1 serves the tagged line still; whoever hears of the invalidation must not read it there after."""
    leader.apply(tagged("k", "node1"))
    first = leader.apply(gone)

    invalidation = leader.apply(Invalidate("t"))

    assert leader.held() == (first, invalidation)
    leader.applied["node1"] = invalidation
    assert leader.held() == ()


def test_a_second_invalidation_waits_for_what_the_first_removed(leader: Leader) -> None:
    leader.apply(tagged("k", "node1"))
    first = leader.apply(Invalidate("t"))

    second = leader.apply(Invalidate("t"))

    assert leader.held() == (first, second)
    leader.applied["node1"] = second
    assert leader.held() == ()


def test_a_repeated_invalidation_is_held_like_its_first(leader: Leader) -> None:
    leader.apply(tagged("k", "node1"))
    leader.apply(Invalidate("t"))
    context = ApplyContext(leader.log.index + 1, leader.log.time_ms)
    leader.log.machine.repeat(context, Invalidate("t"), {"ok": True, "invalidated": 1})
    for topic, body in context.events:
        leader.listeners[topic](body)

    assert leader.held() == (2, 3)


def test_a_reader_of_an_unswept_line_waits_for_its_holders(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the absence that an invalidation made is shown only once nobody serves the line."""
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", 0)
    leader.apply(tagged("a", "node1"))
    invalidation = leader.apply(Invalidate("t"))

    fill = leader.apply(Fill("a", "node2"))

    assert leader.held() == (invalidation, fill)
    leader.applied["node1"] = fill
    assert leader.held() == ()


def test_other_lines_are_not_waited_for(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))
    leader.apply(Put("k", b"2", "node2"))

    leader.apply(Put("other", b"2", "node2"))
    leader.apply(Fill("other", "node3"))

    assert leader.held() == (2,)


def test_a_node_that_does_not_lead_keeps_no_account_and_starts_anew(leader: Leader) -> None:
    leader.apply(Put("k", b"1", "node1"))
    leader.apply(Put("k", b"2", "node2"))

    leader.account.end()

    assert (leader.held(), leader.wanted()) == ((), frozenset())
    leader.apply(Put("k", b"3", "node3"))
    assert leader.held() == ()
    leader.account.begin()
    assert leader.held() == ()


class CountedKey(str):
    """A key that counts how often it is looked up."""

    looks = 0

    def __hash__(self) -> int:
        CountedKey.looks += 1
        return str.__hash__(self)


def test_what_is_held_for_a_node_that_has_stopped_is_looked_at_once(leader: Leader) -> None:
    """3,000 writes of one key while one holder applies nothing, until its lease ends: each step looks
    at what it sets free and not at all that is held."""
    key = CountedKey("k")
    leader.apply(Put(key, b"1", "node3"))
    writes = 3_000
    CountedKey.looks = 0

    for number in range(writes):
        node = f"node{1 + number % 2}"
        index = leader.apply(Put(key, b"1", node))
        leader.apply(Fill(key, "node3"))
        leader.applied["node1"] = leader.applied["node2"] = index
        leader.account.waiting(leader.is_done)
    held = len(leader.held())
    leader.lapsed.add("node3")

    assert held > writes
    assert leader.held() == ()
    assert CountedKey.looks < 100 * writes


def test_a_turn_ticks_off_a_bounded_number_of_applies(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invalidations, "SETTLED_PER_TURN_MAX", 3)
    leader.apply(PutMany(tuple((key, b"1", None, None) for key in "abcdefgh"), "node1"))
    deletes = [leader.apply(Delete(key)) for key in "abcdefgh"]
    leader.lapsed.add("node1")

    held = [leader.held() for _ in range(4)]

    assert held == [tuple(deletes[3:]), tuple(deletes[6:]), (), ()]


@pytest.mark.parametrize("seed", range(30))
def test_the_account_agrees_with_a_list_of_all_that_is_owed(seed: int) -> None:
    """The twin looks through everything each time."""
    choose = random.Random(seed)
    leader = Leader()
    owed: list[tuple[str, int, str]] = []
    answers: list[Answered] = []
    nodes = tuple(leader.applied)

    for _ in range(150):
        key, node = choose.choice("abc"), choose.choice(nodes)
        put, fill = Put(key, b"1", node), Fill(key, node)
        many = PutMany((("a", b"1", None, None), ("b", b"2", None, None)), node)
        leader.apply(choose.choice([put, put, fill, fill, Delete(key), FillMany(("a", "b", "c"), node), many]))
        for topic, body in leader.log.events:
            if topic == ANSWER_TOPIC:
                answers.append(body)
            elif topic == TRANSITION_TOPIC and body.cause in invalidations.INVALIDATING:
                owed += [(holder, body.index, body.key) for holder, _ in body.before.holders]
        for applying in nodes:
            if choose.random() < 0.2:
                leader.applied[applying] = choose.randrange(leader.applied[applying], leader.log.index + 1)
        owed = [each for each in owed if not leader.is_done(each[0], each[1])]
        answers = [
            answer
            for answer in answers
            if any(
                index <= answer.index and key in answer.keys and holder != answer.writer
                for holder, index, key in owed
            )
        ]

        assert leader.held() == tuple(answer.index for answer in answers)
        assert leader.wanted() == {holder for holder, _, _ in owed}
