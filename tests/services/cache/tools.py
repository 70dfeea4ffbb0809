"""What the cache's tests share: a log that counts its own entries, and the whole state as one value."""

from typing import Any

from raft.state_machine import ApplyContext
from services.cache.replicated.directory import STATES
from services.cache.replicated.line import Transition
from services.cache.replicated.machine import ANSWER_TOPIC, CacheMachine
from services.cache.replicated.store import (
    INVALIDATED_TOPIC,
    LEASE_ENDED_TOPIC,
    LEASE_TOLD_TOPIC,
    TRANSITION_TOPIC,
)

#: What a get answers about an absent key.
MISS = {"ok": False, "reason": "not_found", "hit": False, "val": None, "state": "I"}
NODES = ("node1", "node2", "node3")
TOPICS = {TRANSITION_TOPIC, ANSWER_TOPIC, INVALIDATED_TOPIC, LEASE_ENDED_TOPIC, LEASE_TOLD_TOPIC}


class Log:
    """Applies commands to one machine as a log would: indexes rise by one, time never falls."""

    def __init__(self, machine: CacheMachine | None = None) -> None:
        self.machine = machine or CacheMachine()
        self.index = 0
        self.time_ms = 1000
        #: Transitions of the last entry.
        self.transitions: list[Transition] = []
        #: All its events.
        self.events: list[tuple[str, Any]] = []

    def _context(self, after_ms: int) -> ApplyContext:
        self.index += 1
        self.time_ms += after_ms
        return ApplyContext(self.index, self.time_ms)

    def _keep(self, context: ApplyContext) -> None:
        self.events = list(context.events)
        assert {topic for topic, _ in context.events} <= TOPICS
        self.transitions = [body for topic, body in context.events if topic == TRANSITION_TOPIC]

    def apply(self, command: Any, after_ms: int = 0) -> dict[str, Any]:
        context = self._context(after_ms)
        answer = self.machine.apply(context, command)
        self._keep(context)
        return answer

    def advance(self, after_ms: int) -> None:
        context = self._context(after_ms)
        self.machine.advance(context)
        self._keep(context)

    def states(self, key: str) -> str:
        """The line's states at the three nodes, such as `MII`; `III` where it is absent."""
        line = self.machine.line(key)
        return "III" if line is None else "".join(line.directory.state_of(node) for node in NODES)


def observable(machine: CacheMachine) -> dict[str, Any]:
    """Everything replicated or observable of a machine, the orders and the deadlines included."""
    deadlines, leases, tags = machine._deadlines, machine._fill_leases, machine._tags
    return {
        "snapshot": list(machine.snapshot()),
        "recency": list(machine._lines),
        "buckets": {time: list(keys) for time, keys in deadlines._buckets.items() if keys},
        "lease buckets": {time: list(keys) for time, keys in leases._deadlines._buckets.items() if keys},
        "leases": (list(leases._leases.values()), dict(leases._invalidated), leases._forgotten_index),
        "tags": {
            (each.tag, each.index): (list(each.keys), each.holders())
            for each in [*tags.live.values(), *tags._dead.values()]
        },
        "due": machine.next_due_ms(),
        "statistics": machine.statistics(),
        "census": {node: {s: n for s, n in machine.census(node).items() if s in STATES} for node in NODES},
        "time": machine._time_ms,
    }


def copy(machine: CacheMachine, **bounds: int) -> CacheMachine:
    """A machine restored from a snapshot of `machine`."""
    restored = CacheMachine(**bounds)
    restored.restore(list(machine.snapshot()))
    return restored
