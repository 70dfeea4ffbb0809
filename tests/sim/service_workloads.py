"""What clients ask the machines of the three services, wrapped as a route wraps it.

Keys whose first letter is that of a model (`l`, `q`, `r`) get operations that the linearizability checker knows, and
go into the history. Everything else (waiting, visibility, sessions of several keys) uses other keys; there, all
replicas and all answers must be equal.
"""

from __future__ import annotations

from random import Random
from typing import Any

from services.cache.replicated import commands as cache
from services.cache.replicated.machine import CacheMachine
from services.lock.replicated import commands as lock
from services.lock.replicated.machine import LockMachine
from services.queue.replicated import commands as queue
from services.queue.replicated.machine import QueueMachine
from services.replicated.envelope import encode_command
from services.replicated.limits import SetLimits
from services.replicated.machine import ReplicatedMachine
from tests.sim.plan import Plan

Drawn = tuple[str, str, Any, bytes | None]
_NODES = ("n1", "n2", "n3")


class ServiceWorkload:
    """Base: numbers commands, gives each an idempotency key, and knows the two shapes of a draw."""

    #: First letter of the keys that the checker judges.
    judged = ""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._drawn = 0

    def draw(self, random: Random, process: int) -> Drawn:
        self._drawn += 1
        if random.random() * 1000 < self._plan.read_permille:
            return "read", f"{self.judged}{random.randrange(self._plan.key_count)}", None, None
        if random.random() < 0.5:
            return self._judged(random, process, f"{self.judged}{random.randrange(self._plan.key_count)}")
        return self._other(random, process, f"x{random.randrange(self._plan.key_count)}")

    def _judged(self, random: Random, process: int, key: str) -> Drawn:
        raise NotImplementedError

    def _other(self, random: Random, process: int, key: str) -> Drawn:
        raise NotImplementedError

    def _probe(self) -> Any:
        raise NotImplementedError

    def draw_write(self) -> tuple[str, str, Any, bytes]:
        self._drawn += 1
        return "write", "probe", None, self._encode(self._probe())

    def _encode(self, command: Any) -> bytes:
        return encode_command(command, idempotency_key=f"k{self._drawn}", fingerprint=b"f")

    def _value(self) -> bytes:
        return b'"%d%s"' % (self._drawn, b"." * self._plan.value_bytes)

    def _ttl_ms(self, random: Random) -> int:
        return random.choice((1, 2, 10)) * self._plan.election_timeout_max_ms

    def result(self, op: str, answer: Any) -> Any:
        return answer

    def read(self, machine: ReplicatedMachine, key: str) -> Any:
        return None


class LockWorkload(ServiceWorkload):
    judged = "l"

    def _judged(self, random: Random, process: int, key: str) -> Drawn:
        owner = f"p{process}"
        if random.random() < 0.5:
            return "acquire", key, None, self._encode(lock.Acquire(key, owner))
        return "release", key, None, self._encode(lock.Release(key, owner))

    def _other(self, random: Random, process: int, key: str) -> Drawn:
        owner, ttl_ms = f"o{random.randrange(5)}", self._ttl_ms(random)
        waiter = f"w{random.randrange(max(1, self._drawn - 5), self._drawn + 1)}"
        node = random.choice(_NODES)
        command = random.choice(
            (
                lock.Acquire(key, owner, random.random() < 0.6, random.choice((None, ttl_ms))),
                lock.Acquire(
                    key, owner, random.random() < 0.6, ttl_ms, ttl_ms, f"w{self._drawn}", node, "b1"
                ),
                lock.Release(key, owner),
                lock.Renew(key, owner, ttl_ms),
                lock.ForceRelease(key),
                lock.CancelWait(key, owner, waiter),
                lock.DropWaiters(node, "b2"),
            )
        )
        return "other", key, None, self._encode(command)

    def _probe(self) -> lock.Acquire:
        return lock.Acquire("probe", "probe", True, 1)

    def result(self, op: str, answer: Any) -> Any:
        return answer.get("token") if op == "acquire" else answer["ok"] if op == "release" else None


class QueueWorkload(ServiceWorkload):
    judged = "q"

    def _judged(self, random: Random, process: int, key: str) -> Drawn:
        if random.random() < 0.6:
            value = self._value()
            return "enqueue", key, value, self._encode(queue.Enqueue(key, value))
        return "dequeue", key, None, self._encode(queue.Pop(key))

    def _other(self, random: Random, process: int, key: str) -> Drawn:
        value, after_ms = self._value(), self._ttl_ms(random)
        id = random.randint(1, max(1, self._drawn))
        command = random.choice(
            (
                queue.Enqueue(key, value, random.randrange(10), random.choice((0, after_ms)), 5 * after_ms),
                queue.EnqueueBatch(((key, value, 3, 0, 0), (key, value, 0, after_ms, 0))),
                queue.Dequeue(key, random.randint(1, 3), after_ms),
                queue.Dequeue(key, 1, after_ms, True),
                queue.Pop(key),
                queue.Ack(id),
                queue.AckBatch(((id, None), (id + 1, None))),
                queue.Nack(id, None, random.choice((0, after_ms))),
                queue.Extend(id, None, after_ms),
                queue.Reject(id),
                queue.Configure(key, after_ms, 2),
                queue.Configure(key, message_ttl_ms=random.choice((0, after_ms)), max_dead=2, dead_ttl_ms=after_ms),
                queue.Redrive(key),
                queue.Purge(key, random.choice(((0, 1, 3), (2,)))),
                queue.Delete(key, random.random() < 0.5),
                SetLimits((("in_flight_per_queue_max", random.choice((None, 1, 3))),)),
            )
        )
        return "other", key, None, self._encode(command)

    def _probe(self) -> queue.Enqueue:
        return queue.Enqueue("probe", b"1")

    def result(self, op: str, answer: Any) -> Any:
        return answer.get("item") if op == "dequeue" else None


class CacheWorkload(ServiceWorkload):
    judged = "r"

    def _judged(self, random: Random, process: int, key: str) -> Drawn:
        node = random.choice(_NODES)
        draw = random.random()
        if draw < 0.6:
            value = self._value()
            return "write", key, value, self._encode(cache.Put(key, value, node))
        if draw < 0.8:
            return "read", key, None, self._encode(cache.Fill(key, node))
        return "write", key, None, self._encode(cache.Delete(key))

    def _other(self, random: Random, process: int, key: str) -> Drawn:
        node, value = random.choice(_NODES), self._value()
        ttl_ms = random.choice((None, self._ttl_ms(random)))
        version = random.choice((None, 0, self._drawn))
        command = random.choice(
            (
                cache.Put(key, value, node, ttl_ms, version),
                cache.PutMany(((key, value, ttl_ms, None), ("y", value, None, version)), node),
                cache.Fill(key, node),
                cache.FillMany((key, "y", "z"), node),
                cache.Delete(key, version),
                cache.Incr("number", random.randint(-5, 5), node, ttl_ms),
            )
        )
        return "other", key, None, self._encode(command)

    def _probe(self) -> cache.Put:
        return cache.Put("probe", b"1", "n1")

    def result(self, op: str, answer: Any) -> Any:
        return answer["val"] if op == "read" else None

    def read(self, machine: ReplicatedMachine, key: str) -> Any:
        line = machine.inner.line(key)
        return None if line is None else line.value


def lock_machine() -> ReplicatedMachine:
    return ReplicatedMachine(LockMachine)


def queue_machine() -> ReplicatedMachine:
    return ReplicatedMachine(QueueMachine)


def cache_machine() -> ReplicatedMachine:
    return ReplicatedMachine(CacheMachine)
