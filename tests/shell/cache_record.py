"""What clients of the cache were told: the nouns that `caches` and `watchers` write down and `cache_judge` reads.

All times are microseconds of true time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

#: What a client wanted of one key:
#:
#:     read      to know the value
#:     write     to put its value there whatever is there
#:     swap      to put its value, or nothing, in the place of what it expects
#:     fill      to put its value there under a lease
#:     remove    that nothing is there
#:     incr      to add one
Kind = Literal["read", "write", "swap", "fill", "remove", "incr"]

#: What came of it:
#:
#:     unknown     it may have been done, or may be yet
#:     done        it was, at one moment between the asking and the answer
#:     refused     it was looked at, at one such moment, and not done: something else was there
#:     not done    it never is
Fate = Literal["unknown", "done", "refused", "not done"]

#: After so many uses a key goes by another name, so that each one's history is short.
USES_MAX = 40


@dataclass(slots=True)
class Deed:
    """One thing that a client wanted of one key, and what it was told."""

    client: str
    kind: Kind
    key: str
    asked_us: int
    #: What it writes, or was told that it read; None: nothing is there.
    value: str | int | None = None
    #: Of a swap: what has to be there.
    expects: str | int | None = None
    #: Of a fill.
    lease: int = 0
    ttl_s: float | None = None
    fate: Fate = "unknown"
    told_us: int | None = None
    #: Of what it wrote or read, or of what was there where it was refused. 0: nothing.
    version: int = 0
    #: Of a removal: whether something was there; None where that was not told.
    found: bool | None = None
    #: The node said that it may be out of date.
    is_stale: bool = False

    @property
    def writes(self) -> bool:
        return self.kind not in ("read", "remove") and not (self.kind == "swap" and self.value is None)

    def may_come_before(self, at_us: int) -> bool:
        """Whether it may have been done, or looked at, by then."""
        return self.fate != "not done" and self.asked_us <= at_us

    def may_come_after(self, at_us: int) -> bool:
        """Whether it may have been done, or looked at, later than that."""
        return self.fate != "not done" and (self.told_us is None or self.told_us >= at_us)


@dataclass(slots=True)
class Lease:
    """A lease to fill a key that a client was told of."""

    key: str
    client: str
    token: int
    asked_us: int
    told_us: int
    #: For so long it runs, at least, from when it was taken.
    length_s: float
    #: It was taken by this very request, so not before that was asked; else by any at that node.
    is_own: bool = True


@dataclass(slots=True)
class Notice:
    """One event that a watcher was told."""

    #: `ready`, `gap`, `end`, the cause of a change, or `lost` where the watcher goes on from nowhere.
    name: str
    at_us: int
    #: Index and number.
    position: tuple[int, int] = (0, 0)
    key: str = ""
    version: int = 0
    previous_version: int = 0
    reason: str = ""


@dataclass(slots=True)
class Watch:
    """What one watcher was told, over all its connections."""

    name: str
    prefix: str
    told: list[Notice] = field(default_factory=list)
    #: By key: the version that it was told last, 0: nothing is there. Since the last gap only.
    last: dict[str, int] = field(default_factory=dict)
    #: It is connected, and the node has said so.
    is_current: bool = False


class Record:
    """Of one run."""

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        self.leases: list[Lease] = []
        self.watches: list[Watch] = []
        #: How often each was used, without its generation.
        self._uses: Counter[str] = Counter()

    def key(self, name: str) -> str:
        """What a key is called at present; this is one use of it."""
        self._uses[name] += 1
        return f"{name}.{self._uses[name] // USES_MAX}"

    def keys(self, prefix: str) -> list[str]:
        """All names that keys which begin so have had."""
        return [
            f"{name}.{generation}"
            for name, uses in self._uses.items()
            if name.startswith(prefix)
            for generation in range(uses // USES_MAX + 1)
        ]
