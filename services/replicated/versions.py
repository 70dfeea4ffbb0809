"""Which kinds of entries this release knows, and which of them may be proposed in a group (`raft.versions`).

A node stops at an entry that it does not know: it must not guess. So that nodes of two releases can run beside each
other, what is new waits until all members of the group know it. The rule of the file:

- `KNOWN` rises by one with each release that adds a kind of command, or a field to one. A command that is new says
  `SINCE`, the version that it came with. A field that is new says so in `FIELDS_SINCE`, by its name, stands at the
  end and in `ADDED`: while it holds its default it is not written, and every node can read the command.
- What a command does never changes. What is to be done in another way is another command.
- A number is never used for two things: once a release has it, the next thing has the next number.
- Commands go to the log through `services.replicated.proposing`, which looks at all this.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from common.wire import pack, unpack
from raft.core.types import Entry, EntryKind
from raft.state_machine import FIRST_VERSION

#: What this release knows.
#:
#:     1   all commands of the releases before there were versions, and `RaiseVersion`, which raises to 2 or more
#:     2   `beside` of the cache's `Fill`
KNOWN = 2


class UnknownCommand(ValueError):
    """The log holds a command that this version does not know: the node must not guess and stops."""


class UnknownVersion(UnknownCommand):
    """The group's version is above what this release knows: commands may follow that it does not know."""

    def __init__(self, where: str, version: int, known: int) -> None:
        super().__init__(
            f"{where} version {version} of the group's log, and this release knows version {known}: it takes a newer "
            "release"
        )


@dataclass(frozen=True, slots=True)
class RaiseVersion:
    """From here on the log may hold what came with this version, and with those before it. All members said that they
    know it. A version that is reached already changes nothing."""

    OP: ClassVar[str] = "raise_version"
    version: int


#: How the bytes of such an entry begin.
_RAISING = pack([RaiseVersion.OP, (), None, None])[: 1 + len(pack(RaiseVersion.OP))]


class _Newest(dict[type[Any], int]):
    def __missing__(self, cls: type[Any]) -> int:
        fields: dict[str, int] = getattr(cls, "FIELDS_SINCE", {})
        version = self[cls] = max(getattr(cls, "SINCE", FIRST_VERSION), *fields.values(), FIRST_VERSION)
        return version


#: The version that a class of commands, or the last of its fields, came with.
newest = _Newest()


def since(command: Any) -> int:
    """The version that a command came with, all that its fields say included."""
    version: int = getattr(command, "SINCE", FIRST_VERSION)
    for name, added in getattr(command, "FIELDS_SINCE", {}).items():
        if getattr(command, name) != command.ADDED[name]:
            version = max(version, added)
    return version


def check_entries(entries: Iterable[Entry], known: int) -> None:
    """Check that nothing in a log raises the version beyond what is known, before the first entry is carried out.

    Raises:
        UnknownVersion: an entry does. Whether or not it is committed: whoever wrote it here knew more.
    """
    for entry in entries:
        if entry.kind is EntryKind.COMMAND and entry.data.startswith(_RAISING):
            version = unpack(entry.data)[1][0]
            if version > known:
                raise UnknownVersion(f"entry {entry.index} begins", version, known)
