"""The next release, to be put beside today's: its lock machine has a command that today's does not know."""

from dataclasses import dataclass
from typing import Any, ClassVar

from raft.state_machine import ApplyContext
from services.lock.replicated.commands import Acquire
from services.lock.replicated.machine import LockMachine
from services.replicated.machine import ReplicatedMachine
from services.replicated.versions import KNOWN

NEXT = KNOWN + 1


@dataclass(frozen=True, slots=True)
class Take:
    """Take a lock for good. Only the next release knows how."""

    OP: ClassVar[str] = "take"
    SINCE: ClassVar[int] = NEXT

    key: str
    owner: str = "taker"


@dataclass(frozen=True, slots=True)
class Note:
    """A command of today's, as the next release knows it: with another field."""

    OP: ClassVar[str] = "note"
    ADDED: ClassVar[dict[str, Any]] = {"more": 0, "most": None}
    FIELDS_SINCE: ClassVar[dict[str, int]] = {"more": NEXT, "most": NEXT + 1}

    text: str
    more: int = 0
    most: str | None = None


@dataclass(frozen=True, slots=True)
class EarlierNote:
    """The same as today's release knows it."""

    OP: ClassVar[str] = "note"

    text: str


class NextLockMachine(LockMachine):
    """What is taken is acquired."""

    COMMANDS = (*LockMachine.COMMANDS, Take)

    def apply(self, context: ApplyContext, command: Any) -> dict[str, Any]:
        return super().apply(context, _asked(command))

    def advance(self, context: ApplyContext, command: Any = None) -> None:
        super().advance(context, _asked(command))

    def repeat(self, context: ApplyContext, command: Any, kept: dict[str, Any]) -> dict[str, Any] | None:
        return super().repeat(context, _asked(command), kept)


def _asked(command: Any) -> Any:
    return Acquire(command.key, command.owner) if type(command) is Take else command


def todays() -> ReplicatedMachine:
    return ReplicatedMachine(LockMachine)


def nexts() -> ReplicatedMachine:
    return ReplicatedMachine(NextLockMachine, NEXT)
