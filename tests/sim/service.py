"""Wraps the machine that a seed drives: joined snapshots, and one way to make it."""

from collections.abc import Callable
from typing import Any

from raft.state_machine import ApplyContext, StateMachine


class Service:
    """A state machine as the simulated driver uses it."""

    __slots__ = ("advance", "apply", "machine", "next_due_ms")

    def __init__(self, make: Callable[[], StateMachine]) -> None:
        self.machine = make()
        self.apply: Callable[[ApplyContext, bytes], Any] = self.machine.apply
        self.advance: Callable[[ApplyContext], None] = self.machine.advance
        self.next_due_ms: Callable[[], int | None] = self.machine.next_due_ms

    def snapshot(self) -> tuple[bytes, ...]:
        return tuple(self.machine.snapshot())

    def restore(self, data: tuple[bytes, ...]) -> None:
        self.machine.restore(data)
