"""What clients ask each kind of machine."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from tests.sim import service_workloads
from tests.sim.machine import SimMachine, encode
from tests.sim.plan import Plan


class Workload(Protocol):
    """Draws operations, and reads the machine as a route would."""

    def draw(self, random: Random, process: int) -> tuple[str, str, Any, bytes | None]:
        """(op, key, value, command); command None: a read."""

    def draw_write(self) -> tuple[str, str, Any, bytes]:
        """A write to a key that nobody else uses."""

    def result(self, op: str, answer: Any) -> Any:
        """What the history notes as the operation's result."""

    def read(self, machine: Any, key: str) -> Any: ...


class SmallWorkload:
    """Registers, locks and queues of the simulator's own machine."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._drawn = 0

    def draw(self, random: Random, process: int) -> tuple[str, str, Any, bytes | None]:
        plan = self._plan
        self._drawn += 1
        number = random.randrange(plan.key_count)
        if random.random() * 1000 < plan.read_permille:
            return "read", f"r{number}", None, None
        op = random.choice(("write", "write", "cas", "acquire", "release", "enqueue", "dequeue"))
        ttl_ms = 0
        if op in ("write", "enqueue"):
            value: Any = f"{self._drawn}" + "." * plan.value_bytes
        elif op == "cas":
            value = [f"{random.randint(1, self._drawn)}" + "." * plan.value_bytes, f"{self._drawn}"]
        elif op in ("acquire", "release"):
            value = f"p{process}"
            ttl_ms = random.choice((0, 0, plan.election_timeout_max_ms))
        else:
            value = None
        key = {"write": "r", "cas": "r", "acquire": "l", "release": "l"}.get(op, "q") + str(number)
        return op, key, value, encode(f"k{self._drawn}", op, key, value, ttl_ms)

    def draw_write(self) -> tuple[str, str, Any, bytes]:
        self._drawn += 1
        value = f"{self._drawn}" + "." * self._plan.value_bytes
        return "write", "probe", value, encode(f"k{self._drawn}", "write", "probe", value)

    def result(self, op: str, answer: Any) -> Any:
        return answer

    def read(self, machine: SimMachine, key: str) -> Any:
        return machine.read(key)


def machine_and_workload(plan: Plan) -> tuple[Callable[[], Any], Workload]:
    """What a plan's nodes run and its clients do."""
    if plan.machine == "lock":
        return service_workloads.lock_machine, service_workloads.LockWorkload(plan)
    if plan.machine == "queue":
        return service_workloads.queue_machine, service_workloads.QueueWorkload(plan)
    if plan.machine == "cache":
        return service_workloads.cache_machine, service_workloads.CacheWorkload(plan)
    return SimMachine, SmallWorkload(plan)
