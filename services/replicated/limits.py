"""Limits that the replicas of a group share: declared by the code, changed by an entry of the log.

A machine that refuses, evicts or forgets by a limit does so as a function of the log, so every replica must know the
same number at the same place of it. A setting of a node cannot be such a number. The rule of the file:

- A service declares its limits once, as `Limit` rows in its `limits.py`, and hands them to its machine.
- `Limit.default` is *frozen*: it is the number of a group in which nobody ever set the limit, and nothing in the
  log says which number that was. A version that would rather begin with another number needs another limit.
- A name is never reused for something else. A limit that the code does not know any more stays declared.
- `SetLimits` is a command of every group; `ReplicatedMachine` carries it out. What was set is in the snapshots.
- A limit that is lowered below what is there takes nothing away. It refuses what would be new. (The cache evicts, as
  it does at any bound: its lines are copies.)

A limit in bytes counts what a thing costs in memory: its texts by `text_bytes`, its payload, and a named overhead for
the objects and tables around them, which was measured and is frozen like the defaults.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Limit:
    """One number that all replicas of a group share."""

    name: str
    #: In force until the limit is set; frozen.
    default: int
    #: Legal range of what can be set.
    least: int
    most: int
    #: One sentence for people.
    what: str


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Change limits of the group: `(name, number)` each, None for the default again."""

    OP: ClassVar[str] = "set_limits"
    limits: tuple[tuple[str, int | None], ...]


class Limits:
    """The limits of one group's machine."""

    __slots__ = ("_set", "declared", "in_force")

    def __init__(self, declared: Iterable[Limit]) -> None:
        #: By name, in the order of the docs.
        self.declared: dict[str, Limit] = {}
        #: The number that holds now, by name. Changed in place: a machine may keep the dict.
        self.in_force: dict[str, int] = {}
        #: What was set. Replicated.
        self._set: dict[str, int] = {}
        self.declare(declared)

    def declare(self, limits: Iterable[Limit]) -> None:
        """Add limits, before the first entry is applied."""
        for limit in limits:
            assert limit.name not in self.declared, f"the limit {limit.name} is declared twice"
            assert limit.least <= limit.default <= limit.most, limit
            self.declared[limit.name] = limit
            self.in_force[limit.name] = limit.default

    def set(self, changes: Iterable[tuple[str, int | None]]) -> dict[str, int]:
        """Change some; gives the numbers of these in force. The legal range was checked before it was proposed: a
        version with another range must not apply the entry otherwise.

        Raises:
            KeyError: a name that this version does not know; nothing was changed.
        """
        known = [(self.declared[name], value) for name, value in changes]
        for limit, value in known:
            if value is None:
                self._set.pop(limit.name, None)
            else:
                self._set[limit.name] = value
            self.in_force[limit.name] = limit.default if value is None else value
        return {limit.name: self.in_force[limit.name] for limit, _ in known}

    def described(self, used: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """All that is to be known of each, by name; `used` says how much of it is taken, where that is a number."""
        return {
            name: {
                "value": self.in_force[name],
                "default": limit.default,
                "least": limit.least,
                "most": limit.most,
                "used": used.get(name),
                "what": limit.what,
            }
            for name, limit in self.declared.items()
        }

    # Snapshots

    def row(self) -> list[list[Any]]:
        """`[name, number]` of what was set, by name."""
        return [[name, self._set[name]] for name in sorted(self._set)]

    def restore(self, row: Iterable[list[Any]]) -> None:
        """Raises ValueError where a newer version set a limit that this one cannot keep."""
        try:
            self.set((name, number) for name, number in row)
        except KeyError as error:
            raise ValueError(f"the snapshot holds a limit that this version does not know: {error}") from error


def text_bytes(text: str) -> int:
    """What the characters of a text take at most. A single one beyond ASCII may make each take four bytes. Not
    `sys.getsizeof`: replicas may run different Pythons."""
    return len(text) if text.isascii() else 4 * len(text)
