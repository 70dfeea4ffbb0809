"""Histories for the checker's tests: legal ones of any size, and spoiled copies of them.

To make a legal history, the operations of many processes run against plain objects. Each takes effect at one instant
between its call and its return, so the order of these instants proves that the history is legal. An unknown operation
takes effect soon, much later, or never.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.sim.check import Operation


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of history to make."""

    model: str
    operations: int = 10_000
    keys: int = 10
    processes: int = 20
    #: Share of operations whose outcome stays unknown.
    unknown: float = 0.05
    #: Number of distinct values; None: no value is used twice.
    values: int | None = None
    #: Share of writes and cas, or of enqueues.
    changes: float = 0.5
    #: Share of cas among the changes of a register.
    cas: float = 0.3
    #: Mean time that an operation takes, against a mean pause of 1 between the operations of a process.
    span: float = 4.0


@dataclass(slots=True)
class _Plain:
    """One key's object: everything that the three models need."""

    value: Any = None
    holder: int | None = None
    token: int = 0
    items: deque[Any] = field(default_factory=deque)


class _Generator:
    def __init__(self, rng: random.Random, shape: Shape) -> None:
        self._rng = rng
        self._shape = shape
        self._objects = [_Plain() for _ in range(shape.keys)]
        self._fresh = itertools.count(1)
        self._agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self._tie = itertools.count()
        self._called = 0
        #: By process: the key whose lock it means to release next.
        self._held: list[int | None] = [None] * shape.processes
        self.operations: list[Operation] = []

    def run(self) -> list[Operation]:
        for process in range(self._shape.processes):
            self._later(0, 1, lambda now, process=process: self._call(process, now))
        while self._agenda:
            now, _, action = heapq.heappop(self._agenda)
            action(now)
        return sorted(self.operations, key=lambda operation: operation.call)

    def _later(self, now: float, mean: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._agenda, (now + self._rng.expovariate(1 / mean), next(self._tie), action))

    def _call(self, process: int, now: float) -> None:
        if self._called == self._shape.operations:
            return
        self._called += 1
        rng, span = self._rng, self._shape.span / 2
        key = rng.randrange(self._shape.keys)
        op, key, value = self._choose(process, key)
        call = now

        if rng.random() < self._shape.unknown:
            self.operations.append(Operation(process, op, f"k{key}", value, call, None, None))
            if op == "acquire":
                self._held[process] = key
            if rng.random() < 0.6:
                mean = span * rng.choice([1, 1, 50])
                self._later(now, mean, lambda _: self._apply(process, op, key, value))
            self._later(now, span * 4, lambda now: self._call(process, now))
            return

        def take_effect(now: float) -> None:
            # The lock of another is waited for, most of the time.
            if op == "acquire" and self._objects[key].holder not in (None, process) and rng.random() < 0.9:
                self._later(now, span, take_effect)
                return
            ok, result = self._apply(process, op, key, value)
            self._later(now, span, lambda now: answer(now, ok, result))

        def answer(now: float, ok: bool, result: Any) -> None:
            self.operations.append(Operation(process, op, f"k{key}", value, call, now, ok, result))
            if op == "acquire" and ok:
                self._held[process] = key
            elif op == "release":
                self._held[process] = None
            self._later(now, 1, lambda now: self._call(process, now))

        self._later(now, span, take_effect)

    def _choose(self, process: int, key: int) -> tuple[str, int, Any]:
        rng, shape = self._rng, self._shape
        if shape.model == "lock":
            held = self._held[process]
            if held is None:
                return "acquire", key, None
            return ("acquire" if rng.random() < 0.2 else "release"), held, None
        value = next(self._fresh) if shape.values is None else rng.randrange(shape.values)
        if rng.random() >= shape.changes:
            return {"register": "read", "queue": "dequeue"}[shape.model], key, None
        if shape.model == "queue":
            return "enqueue", key, value
        if rng.random() >= shape.cas:
            return "write", key, value
        expected = self._objects[key].value if rng.random() < 0.8 else 0
        return "cas", key, [expected, value]

    def _apply(self, process: int, op: str, key: int, value: Any) -> tuple[bool, Any]:
        """Carries the operation out now; gives `ok` and `result`."""
        plain = self._objects[key]
        if op == "read":
            return True, plain.value
        if op == "write":
            plain.value = value
            return True, None
        if op == "cas":
            swapped = plain.value == value[0]
            plain.value = value[1] if swapped else plain.value
            return True, swapped
        if op == "enqueue":
            plain.items.append(value)
            return True, None
        if op == "dequeue":
            return True, plain.items.popleft() if plain.items else None
        if op == "release":
            held = plain.holder == process
            plain.holder = None if held else plain.holder
            return held, None
        if plain.holder is None:
            plain.holder, plain.token = process, plain.token + self._rng.randint(1, 3)
        return plain.holder == process, plain.token if plain.holder == process else None


def make_history(seed: int, shape: Shape) -> list[Operation]:
    """A history of that shape that is linearizable by construction, by time of call."""
    return _Generator(random.Random(seed), shape).run()


def spoil(seed: int, history: list[Operation], op: str) -> list[Operation]:
    """A copy in which one answered `op` of the second half gives what an earlier one of its key gave."""
    rng = random.Random(seed)
    answered = [o for o in history if o.ok and o.op == op and o.result is not None]
    victim = rng.choice(answered[len(answered) // 2 :])
    earlier = [
        o for o in answered if o.key == victim.key and o.return_ < victim.call and o.result != victim.result
    ]
    stale = rng.choice(earlier[: len(earlier) // 2 + 1])
    return [replace(o, result=stale.result) if o is victim else o for o in history]
