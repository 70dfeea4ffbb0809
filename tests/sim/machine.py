"""A small machine with registers, locks with tokens and queues, for the simulator's own clients.

It implements the protocol in raft/state_machine.py and keeps an idempotency table in its state, so that a retry
is carried out once. Commands are msgpack lists `[idempotency key, op, key, value, ...]`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgpack

from raft.state_machine import ApplyContext

#: Answers kept for retries; old ones go first. Clients give up long before their key is this old.
IDEMPOTENCY_KEYS_MAX = 2000


def encode(idempotency_key: str, op: str, key: str, value: Any = None, ttl_ms: int = 0) -> bytes:
    return msgpack.packb([idempotency_key, op, key, value, ttl_ms])


class SimMachine:
    """State: `registers`, `locks` (key -> [owner, token, deadline]), `queues`, `answers` by idempotency key."""

    def __init__(self) -> None:
        self.registers: dict[str, Any] = {}
        self.locks: dict[str, list] = {}
        self.queues: dict[str, list] = {}
        self.answers: dict[str, Any] = {}
        self.time_ms = 0
        #: Not replicated: whether the last command was a retry.
        self.was_retry = False

    def apply(self, context: ApplyContext, command: bytes) -> Any:
        self.advance(context)
        idempotency_key, op, key, value, ttl_ms = msgpack.unpackb(command)
        self.was_retry = idempotency_key in self.answers
        if self.was_retry:
            return self.answers[idempotency_key]
        answer = _OPERATIONS[op](self, context, key, value, ttl_ms)
        if idempotency_key:
            self.answers[idempotency_key] = answer
            if len(self.answers) > IDEMPOTENCY_KEYS_MAX:
                del self.answers[next(iter(self.answers))]
        return answer

    def advance(self, context: ApplyContext) -> None:
        self.time_ms = context.time_ms
        due = [
            key for key, (_, _, deadline) in self.locks.items() if deadline and deadline <= context.time_ms
        ]
        for key in due:
            del self.locks[key]
            context.events.append(("expired", key))

    def next_due_ms(self) -> int | None:
        deadlines = [deadline for _, _, deadline in self.locks.values() if deadline]
        return min(deadlines) if deadlines else None

    def snapshot(self) -> Iterator[bytes]:
        state = [self.time_ms, self.registers, self.locks, self.queues, self.answers]
        return iter((msgpack.packb(state),))

    def restore(self, chunks: Iterable[bytes]) -> None:
        state = msgpack.unpackb(b"".join(chunks), strict_map_key=False)
        self.time_ms, self.registers, self.locks, self.queues, self.answers = state

    def read(self, key: str) -> Any:
        return self.registers.get(key)

    def _write(self, context: ApplyContext, key: str, value: Any, ttl_ms: int) -> Any:
        self.registers[key] = value
        return None

    def _cas(self, context: ApplyContext, key: str, value: Any, ttl_ms: int) -> bool:
        expected, new = value
        if self.registers.get(key) != expected:
            return False
        self.registers[key] = new
        return True

    def _acquire(self, context: ApplyContext, key: str, owner: str, ttl_ms: int) -> int:
        """The token, the entry's index, so tokens rise; 0 where another owner holds the lock."""
        held = self.locks.get(key)
        if held is not None:
            return held[1] if held[0] == owner else 0
        self.locks[key] = [owner, context.index, context.time_ms + ttl_ms if ttl_ms else 0]
        return context.index

    def _release(self, context: ApplyContext, key: str, owner: str, ttl_ms: int) -> bool:
        held = self.locks.get(key)
        if held is None or held[0] != owner:
            return False
        del self.locks[key]
        return True

    def _enqueue(self, context: ApplyContext, key: str, value: Any, ttl_ms: int) -> None:
        self.queues.setdefault(key, []).append(value)

    def _dequeue(self, context: ApplyContext, key: str, value: Any, ttl_ms: int) -> Any:
        queue = self.queues.get(key)
        return queue.pop(0) if queue else None


_OPERATIONS = {
    "write": SimMachine._write,
    "cas": SimMachine._cas,
    "acquire": SimMachine._acquire,
    "release": SimMachine._release,
    "enqueue": SimMachine._enqueue,
    "dequeue": SimMachine._dequeue,
}
