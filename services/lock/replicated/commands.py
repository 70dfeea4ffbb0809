"""What can be said to the lock machine: one dataclass per log entry.

`OP` and the order of the fields are on disk: an OP is never renamed or given a second meaning, and a new field
goes to the end with a default. Times are whole milliseconds of cluster time spans. Names were checked by the
route before they came here.
"""

from dataclasses import dataclass
from typing import Any, ClassVar


# Not `frozen`: built for every write on every node, and three times as slow so. Nobody assigns its fields.
@dataclass(slots=True, unsafe_hash=True)
class Acquire:
    """Take `key` for `owner`, exclusively or shared, and wait in line for it if `wait_ms` says so."""

    OP: ClassVar[str] = "acquire"

    key: str
    owner: str
    #: False asks for the shared mode.
    exclusive: bool = True
    #: Milliseconds from the grant on after which the hold ends by itself; None: held until released.
    ttl_ms: int | None = None
    #: How long the request may stand in line, milliseconds; 0 answers at once.
    wait_ms: int = 0
    #: Unique id under which the late answer is announced; "" where `wait_ms` is 0.
    waiter: str = ""
    #: Node through which the client asked, and that node's boot id.
    node: str = ""
    boot: str = ""


# Not `frozen`: built for every write on every node, and three times as slow so. Nobody assigns its fields.
@dataclass(slots=True, unsafe_hash=True)
class Release:
    """Give back what `owner` holds of `key`; with `token`, only that very hold."""

    OP: ClassVar[str] = "release"
    ADDED: ClassVar[dict[str, Any]] = {"token": None}

    key: str
    owner: str
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """Let the hold of `owner` on `key` end `ttl_ms` from now; with `token`, only that very hold."""

    OP: ClassVar[str] = "renew"
    ADDED: ClassVar[dict[str, Any]] = {"token": None}

    key: str
    owner: str
    ttl_ms: int
    token: int | None = None


@dataclass(frozen=True, slots=True)
class ForceRelease:
    """Take `key` away from `owner`, or from everybody who holds it where `owner` is None."""

    OP: ClassVar[str] = "force_release"

    key: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class CancelWait:
    """The client behind a waiting `Acquire` has gone: leave the line, and give back what that very request was
    granted in the meantime, where nobody else knows of it."""

    OP: ClassVar[str] = "cancel_wait"

    key: str
    owner: str
    waiter: str


@dataclass(frozen=True, slots=True)
class CancelWaits:
    """Many clients have gone: each of `waits` is the fields of a `CancelWait` in its order."""

    OP: ClassVar[str] = "cancel_waits"

    waits: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class DropWaiters:
    """End waits that came through earlier lives of `node`: its clients' connections died with them. At most
    `DROPPED_PER_ENTRY_MAX` requests go; the answer says whether there are more."""

    OP: ClassVar[str] = "drop_waiters"

    node: str
    #: Boot id whose waiters stay; "" drops all of that node's.
    boot_kept: str = ""
