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
    #: Id of the place in line that was granted, as long as only its own requests know of the hold; else "".
    waiter: str = ""
    #: Ids of these requests, but for those whose clients have gone. The hold goes with the last.
    unheard: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        return EXCLUSIVE if self.exclusive else SHARED

    def has_ended(self, time_ms: int) -> bool:
        """Whether it has ended by that time, swept or not."""
        return self.expires_ms is not None and self.expires_ms <= time_ms


class Listener(NamedTuple):
    """One request that waits in a place; an owner that asks again while it waits joins its own place."""

    #: Id under which the decision is announced.
    id: str
    exclusive: bool
    #: Cluster time from which on it must not be granted any more, milliseconds.
    deadline_ms: int
    #: Node that the request waits at, and that node's boot id.
    node: str
    boot: str


class Waiter(NamedTuple):
    """One owner's place in the line for one key. It stands as long as a request waits in it."""

    #: That of its first request.
    id: str
    key: str
    owner: str
    #: Whether one of its requests wants the exclusive mode: all are then granted it.
    exclusive: bool
    #: Counted from the grant, not from the request.
    ttl_ms: int | None
    #: When the first of its requests has to be told, cluster time in milliseconds.
    deadline_ms: int
    #: Of its newest request.
    node: str
    boot: str
    #: Log index of its first request: rises along every line.
    arrived_index: int
    #: Its requests, first come first; never none.
    listeners: tuple[Listener, ...] = ()

    @property
    def mode(self) -> str:
        return EXCLUSIVE if self.exclusive else SHARED

    def at(self, time_ms: int) -> "Waiter | None":
        """The place without the requests whose time is over by then; None where none is left."""
        if self.deadline_ms > time_ms:
            return self
        left = tuple(listener for listener in self.listeners if listener.deadline_ms > time_ms)
        return self.with_listeners(left) if left else None

    def with_listeners(self, listeners: tuple[Listener, ...]) -> "Waiter":
        """The same place with other requests in it."""
        return self._replace(
            exclusive=any(listener.exclusive for listener in listeners),
            deadline_ms=min(listener.deadline_ms for listener in listeners),
            node=listeners[-1].node,
            boot=listeners[-1].boot,
            listeners=listeners,
        )


class Lock:
    """One held key. A key that nobody holds has no `Lock`, so `first` is None only inside one machine step."""

    __slots__ = ("first", "more", "queue")

    def __init__(self) -> None:
        #: The holder with the lowest token.
        self.first: Hold | None = None
        #: Further shared holders by owner, in the order of their tokens; None where there are none, as in most.
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
        more = self.more
        if more is not None and hold.owner in more:
            more[hold.owner] = hold
            return
        first = self.first
        assert first is not None and first.token == hold.token, "only a hold of this key is replaced"
        self.first = hold

    def remove(self, hold: Hold) -> None:
        first, more = self.first, self.more
        if more is None:
            assert first is not None and first.token == hold.token, "only a hold of this key is removed"
            self.first = None
            return
        if first is None or first.token != hold.token:
            del more[hold.owner]
        else:
            owner = next(iter(more))
            self.first = more.pop(owner)
        if not more:
            self.more = None

    @property
    def holder_count(self) -> int:
        return 1 + (len(self.more) if self.more else 0)

    @property
    def queue_length(self) -> int:
        return len(self.queue) if self.queue else 0
