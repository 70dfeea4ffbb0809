"""What a node knows of removals: how long a key's absence may be unknown to another node that serves it."""

from common.metrics import Metrics
from services.cache.node import coherence
from services.cache.node.coherence import Coherence
from services.cache.replicated.commands import Delete, Put
from services.cache.replicated.machine import CacheMachine
from services.cache.replicated.store import TRANSITION_TOPIC
from services.replicated.machine import ReplicatedMachine
from tests.services.cache.tools import Log

RECENT_MS = 1_000


class Node:
    """A node whose clock the test moves."""

    id = "node1"

    def __init__(self) -> None:
        self.machine = ReplicatedMachine(CacheMachine)
        self.log = Log(self.machine.inner)
        self.time_ms = 0
        self.coherence = Coherence(self, Metrics())
        self.time_ms = 10_000

    def subscribe(self, topic, callback):
        assert topic == TRANSITION_TOPIC
        self.callback = callback

    def cluster_time_ms(self) -> int:
        return self.time_ms

    def now_ms(self) -> int:
        return self.time_ms

    def removal_unknown_ms(self) -> int:
        return RECENT_MS

    def may_serve_locally(self) -> bool:
        return True

    def remove(self, *keys: str) -> None:
        for key in keys:
            self.log.apply(Put(key, b"1", "node1"))
            self.log.apply(Delete(key))
            for transition in self.log.transitions:
                self.callback(transition)


def test_a_removal_is_recent_for_its_time() -> None:
    node = Node()
    node.remove("k")

    node.time_ms += RECENT_MS - 1
    early = node.coherence.is_surely_absent("k"), node.coherence.is_surely_absent("never there")
    node.time_ms += 1

    assert early == (False, True)
    assert node.coherence.is_surely_absent("k")


def test_one_look_forgets_a_bounded_number_of_removals(monkeypatch) -> None:
    """What is not forgotten yet counts by its time all the same."""
    monkeypatch.setattr(coherence, "FORGOTTEN_PER_CALL_MAX", 2)
    node = Node()
    node.remove("a", "b", "c", "d", "e")
    node.time_ms += RECENT_MS

    left = []
    for key in "edc":
        assert node.coherence.is_surely_absent(key)
        left.append(len(node.coherence._removed))

    assert left == [3, 1, 0]


def test_a_removal_that_was_forgotten_for_want_of_room_makes_every_absence_recent(monkeypatch) -> None:
    """For as long as it would be itself, and one at a time: the table is never emptied in one go."""
    monkeypatch.setattr(coherence, "REMOVED_MAX", 3)
    node = Node()
    node.remove("a")
    node.time_ms += 400
    node.remove("b", "c", "d")

    kept = list(node.coherence._removed)
    node.time_ms += RECENT_MS - 401
    early = node.coherence.is_surely_absent("a"), node.coherence.is_surely_absent("never there")
    node.time_ms += 1

    assert kept == ["b", "c", "d"]
    assert early == (False, False)
    assert [node.coherence.is_surely_absent(key) for key in ("a", "never there", "d")] == [True, True, False]
