"""Helpers that drive a `QueueMachine` the way a log does."""

from typing import Any

from raft.state_machine import ApplyContext
from services.queue.replicated.machine import QueueMachine


class Driver:
    """A machine, its log position and its cluster time."""

    def __init__(self, machine: QueueMachine | None = None, time_ms: int = 1_000_000) -> None:
        self.machine = machine or QueueMachine()
        self.index = 0
        self.time_ms = time_ms
        #: Every event so far.
        self.events: list[tuple[str, Any]] = []

    def __call__(self, command: Any) -> dict[str, Any]:
        """Apply one command now."""
        context = self._context()
        answer = self.machine.apply(context, command)
        self.events += context.events
        return answer

    def wait(self, passed_ms: int) -> None:
        """Let cluster time go on by as much, as an ADVANCE entry does."""
        self.time_ms += passed_ms
        context = self._context()
        self.machine.advance(context)
        self.events += context.events

    def restored(self) -> "Driver":
        """A driver of a machine made from this one's snapshot."""
        machine = QueueMachine()
        machine.restore(list(self.machine.snapshot()))
        twin = Driver(machine, self.time_ms)
        twin.index = self.index
        return twin

    def state(self) -> list[Any]:
        """All replicated state."""
        return list(self.machine.snapshot())

    def _context(self) -> ApplyContext:
        self.index += 1
        return ApplyContext(self.index, self.time_ms)
