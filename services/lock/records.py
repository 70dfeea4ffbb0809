"""What the lock machine remembers: holds, waiters, and the lock that ties those of one key together.

`Hold` and `Waiter` are immutable and make up the whole replicated state; a change replaces the record. That is
what makes a snapshot cheap: a shallow copy of two tables is a point-in-time copy. `Lock` is a mutable index
over them, rebuilt on restore. The order of the fields is the order in a snapshot: new ones go to the end with
a default.
"""

from typing import NamedTuple

EXCLUSIVE = "exclusive"
SHARED = "shared"


class Hold(NamedTuple):
    """One owner's grant of one key."""

    #: Fencing token: unique per grant, above every token given before it, whatever the key.
    token: int
    key: str
    owner: str
    exclusive: bool
    #: Node through which the owner asked.
    node: str
    #: Cluster time at which the hold ends, milliseconds; None: held until released.
    expires_ms: int | None
    #: Id of the waiting request that was granted, as long as nobody else knows of the hold; else "".
    waiter: str = ""

    @property
    def mode(self) -> str:
        return EXCLUSIVE if self.exclusive else SHARED


class Waiter(NamedTuple):
    """One request that stands in line for one key."""

    id: str
    key: str
    owner: str
    exclusive: bool
    #: Counted from the grant, not from the request.
    ttl_ms: int | None
    #: Cluster time from which on it must not be granted any more, milliseconds.
    deadline_ms: int
    node: str
    boot: str
    #: Log index of the request: rises along every line.
    arrived_index: int

    @property
    def mode(self) -> str:
        return EXCLUSIVE if self.exclusive else SHARED


class Lock:
    """One held key. A key that nobody holds has no `Lock`, so `first` is None only inside one machine step."""

    __slots__ = ("first", "more", "queue")

    def __init__(self) -> None:
        #: The holder with the lowest token.
        self.first: Hold | None = None
        #: Further shared holders by owner, in the order of their tokens; most locks never need the dict.
        self.more: dict[str, Hold] | None = None
        #: Requests in line by waiter id, first come first.
        self.queue: dict[str, Waiter] | None = None

    def hold_of(self, owner: str) -> Hold | None:
        if self.first is not None and self.first.owner == owner:
            return self.first
        return self.more.get(owner) if self.more else None

    def holds(self) -> list[Hold]:
        """All holders, lowest token first."""
        if self.first is None:
            return []
        return [self.first, *self.more.values()] if self.more else [self.first]

    def add(self, hold: Hold) -> None:
        if self.first is None:
            self.first = hold
            return
        assert not hold.exclusive and not self.first.exclusive, "an exclusive hold tolerates no other"
        assert self.hold_of(hold.owner) is None, "an owner holds a key once"
        if self.more is None:
            self.more = {}
        self.more[hold.owner] = hold

    def replace(self, hold: Hold) -> None:
        """Put a newer record of the same grant in the old one's place."""
        if self.first.token == hold.token:
            self.first = hold
        else:
            self.more[hold.owner] = hold

    def remove(self, hold: Hold) -> None:
        if self.first.token != hold.token:
            del self.more[hold.owner]
        elif self.more:
            owner = next(iter(self.more))
            self.first = self.more.pop(owner)
        else:
            self.first = None
        if not self.more:
            self.more = None

    @property
    def holder_count(self) -> int:
        return 1 + (len(self.more) if self.more else 0)

    @property
    def queue_length(self) -> int:
        return len(self.queue) if self.queue else 0
