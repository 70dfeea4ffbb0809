"""The smallest service: it counts. For tests of what stands around every command."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from raft.state_machine import ApplyContext
from services.replicated.limits import Limits


@dataclass(frozen=True, slots=True)
class Add:
    OP: ClassVar[str] = "add"
    by: int


class Counter:
    """Adds up; twice the same command counts twice unless something stands before it."""

    COMMANDS = (Add,)

    def __init__(self) -> None:
        self.limits = Limits(())
        self.total = 0

    def apply(self, context: ApplyContext, command: Add) -> dict[str, Any]:
        self.total += command.by
        return {"ok": True, "total": self.total}

    def kept(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer

    def repeat(self, context: ApplyContext, command: Add, kept: dict[str, Any]) -> dict[str, Any]:
        """The command was carried out before: only its answer counts."""
        return kept

    def advance(self, context: ApplyContext, command: Add | None = None) -> None:
        """Nothing here ever falls due."""

    def next_due_ms(self) -> int | None:
        return None

    def used(self) -> dict[str, int]:
        return {}

    def snapshot(self) -> Iterator[list]:
        return iter([["total", self.total]])

    def restore(self, records: Iterable[list]) -> None:
        self.total = next(iter(records))[1]
