"""What an operation is: one description, from which routes, roles, hints, metric labels and docs are made.

    lock = Operations("lock")

    @lock.answers("lock.release", post("/lock/release"), refuses=WRITE, example={"key": "A", "client_id": "c1"})
    async def release(call: Call, body: ReleaseBody) -> Released | NotHeld | NotKept:
        '''Give a lock back.

        What else there is to be known.
        '''

The rule of the file: what an operation takes and what it answers is said once, by the types of its coroutine. The
first paragraph of the docstring is the sentence that people read, the rest is the longer text. There are three
kinds:

    answers   a coroutine that returns one struct
    events    an async generator of lists of events; an empty list says that nothing happened for a while
    file      an async generator: first a `File`, then its bytes
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Raw, Struct

#: Who may ask: everybody, also without a token; else who has a token of this role or a higher one.
Right = Literal["public", "reader", "client", "admin"]

GET, POST = "GET", "POST"


class Kind(Enum):
    """How an operation answers."""

    ANSWER = "answer"
    EVENTS = "events"
    FILE = "file"


class Path(NamedTuple):
    """How HTTP calls an operation."""

    method: str
    path: str
    #: Other paths of the same operation: the words of the other vocabulary.
    aliases: tuple[str, ...] = ()


def get(path: str) -> Path:
    """Looks and changes nothing; its body is a query."""
    return Path(GET, path)


def post(path: str, *aliases: str) -> Path:
    return Path(POST, path, aliases)


def usual_right(method: str) -> Right:
    """Who may ask where nothing else is said: who may look may GET, and who may change something may POST."""
    return "reader" if method in ("GET", "HEAD") else "client"


class Event(NamedTuple):
    """One thing that happened, told by an operation that goes on."""

    name: str
    data: Struct
    #: Where a client that comes again goes on behind; empty where this is no place.
    position: str = ""


class File(NamedTuple):
    """What the bytes are that follow."""

    name: str
    content_type: str


class Text(NamedTuple):
    """An answer that is no JSON."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of the table."""

    #: `group.verb`, the same wherever it is asked.
    name: str
    #: The group that carries it out; empty: every node does.
    group: str
    at: Path
    right: Right
    kind: Kind
    #: A struct: the fields of a body or of a query.
    body: type[Struct]
    #: Structs that it may answer with. Of events: the data of each, by its name.
    answers: tuple[type, ...]
    events: Mapping[str, type[Struct]]
    #: Reasons of `services.operations.refusals.REFUSALS` with which it may refuse.
    refuses: tuple[str, ...]
    #: A body that is in order.
    example: Mapping[str, Any]
    #: One sentence, and what else there is to be known.
    sentence: str
    text: str
    #: Whether HEAD may be asked instead of GET.
    has_head: bool
    #: Carries it out: takes a `Call` and a body.
    carry_out: Callable[[Any, Any], Any]

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.at.path, *self.at.aliases)


Answering = TypeVar("Answering", bound=Callable[..., Awaitable[Any]])
Going = TypeVar("Going", bound=Callable[..., AsyncIterator[Any]])


class Operations:
    """The operations of one group, in the order of the docs. `group` empty: those that every node has."""

    def __init__(self, group: str = "") -> None:
        self._group = group
        self._rows: dict[str, Operation] = {}

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._rows.values())

    def __getitem__(self, name: str) -> Operation:
        return self._rows[name]

    def answers(
        self, name: str, at: Path, *, example: Mapping[str, Any] = MappingProxyType({}),
        refuses: Iterable[str] = (), right: Right | None = None, has_head: bool = True,
    ) -> Callable[[Answering], Answering]:  # fmt: skip
        """The coroutine below is an operation with one answer. Without `right`, who may look may GET, and who may
        change something may POST."""

        def add(carry_out: Answering) -> Answering:
            self._add(name, at, Kind.ANSWER, carry_out, example, refuses, right, has_head, {})
            return carry_out

        return add

    def events(
        self, name: str, at: Path, *, of: Mapping[str, type[Struct]], example: Mapping[str, Any],
        refuses: Iterable[str] = (),
    ) -> Callable[[Going], Going]:  # fmt: skip
        """The generator below is an operation that goes on. Its body has a field `since`: the position behind which a
        client that comes again goes on."""

        def add(carry_out: Going) -> Going:
            self._add(name, at, Kind.EVENTS, carry_out, example, refuses, None, False, of)
            return carry_out

        return add

    def file(
        self, name: str, at: Path, *, example: Mapping[str, Any], refuses: Iterable[str] = (),
        right: Right | None = None,
    ) -> Callable[[Going], Going]:  # fmt: skip
        """The generator below is an operation that sends a file."""

        def add(carry_out: Going) -> Going:
            self._add(name, at, Kind.FILE, carry_out, example, refuses, right, False, {})
            return carry_out

        return add

    def _add(
        self, name: str, at: Path, kind: Kind, carry_out: Callable[..., Any], example: Mapping[str, Any],
        refuses: Iterable[str], right: Right | None, has_head: bool, events: Mapping[str, type[Struct]],
    ) -> None:  # fmt: skip
        assert name not in self._rows, f"the operation {name} is described twice"
        hints = get_type_hints(carry_out)
        assert kind is not Kind.EVENTS or "since" in hints["body"].__struct_fields__, f"{name} cannot be resumed"
        sentence, _, text = (inspect.getdoc(carry_out) or "").partition("\n\n")
        self._rows[name] = Operation(
            name=name,
            group=self._group,
            at=at,
            right=right or usual_right(at.method),
            kind=kind,
            body=hints["body"],
            answers=_members(hints["return"]) if kind is Kind.ANSWER else (),
            events=MappingProxyType(dict(events)),
            refuses=tuple(dict.fromkeys(refuses)),
            example=dict(example),
            sentence=" ".join(sentence.split()),
            text=text,
            has_head=has_head and at.method == GET,
            carry_out=carry_out,
        )


def _members(annotation: Any) -> tuple[type, ...]:
    """The structs of a union. `Raw` stands for one of the others that was encoded before."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(member for member in members if member is not Raw)
