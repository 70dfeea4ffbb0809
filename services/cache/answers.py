"""What the cache answers. Values are any JSON, passed through as text."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from common.json import encode
from services.cache.node.changes import GapReason
from services.cache.node.coherence import Coherence
from services.cache.node.held import KEPT_ANSWER_BYTES_MAX, HeldLine
from services.cache.replicated.directory import State
from services.cache.replicated.line import Line
from services.operations.answers import Answer, NotDone

#: Where a value was found: in this node's memory, by way of the log, or in what this node has applied (`stale_ok`).
Source = Literal["local", "fill", "replica"]


class Written(Answer, kw_only=True):
    """This node holds it in state M."""

    version: int
    state: State


class Counted(Answer, kw_only=True):
    """`value` is the sum; the line keeps its tags."""

    value: int
    version: int
    state: State


class Deleted(Answer, kw_only=True):
    """`deleted` is false where there was nothing."""

    deleted: bool


class Invalidated(Answer, kw_only=True):
    """So many lines went."""

    invalidated: int


class Hit(Answer, kw_only=True):
    """`state` is what this node holds of it."""

    hit: bool
    val: Raw
    state: State
    version: int
    source: Source
    stale: bool | UnsetType = UNSET


class NotFound(NotDone, kw_only=True):
    """Absent. Of a read with `wait` or `lease_ttl`: the `lease` to fill it, or `filling`: somebody else has it."""

    reason: Literal["not_found"] = "not_found"
    stale: bool | UnsetType = UNSET
    lease: int | UnsetType = UNSET
    lease_expires_in_s: float | UnsetType = UNSET
    filling: bool | UnsetType = UNSET
    retry_in_s: float | UnsetType = UNSET


class NoLine(NotDone, kw_only=True):
    """There is no such line."""

    reason: Literal["not_found"] = "not_found"


class Miss(NotFound, kw_only=True):
    """Absent, as by a read; `hit` is false, `val` null and `state` `I`."""

    hit: bool = False
    val: None = None
    state: Literal["I"] = "I"


class Value(Struct):
    state: State
    value: Raw
    version: int


class Read(Answer, kw_only=True):
    """`value` is what was found, with its state at this node."""

    value: Value
    stale: bool | UnsetType = UNSET


class Item(Struct):
    key: str
    hit: bool
    val: Raw
    state: State
    version: int | UnsetType = UNSET
    source: Source | UnsetType = UNSET


class Items(Answer, kw_only=True):
    """Each as by a get, in the order of the request."""

    items: list[Item]


class Row(Struct, kw_only=True):
    """One line."""

    key: str
    version: int
    bytes: int
    states: dict[str, State]
    tags: list[str]
    pending: list[str] | None
    expires_in_s: float | None


class LineShown(Row, kw_only=True):
    """A line as the directory knows it: `states` by node; `pending`: nodes that invalidations of it wait for, null
    where no leader can tell."""

    ok: bool = True


class Listed(Answer, kw_only=True):
    """Each as by `/cache/line`, in the order of their keys; `next` is the `after` of the next page, null at the
    end."""

    lines: list[Row]
    next: str | None


class Ready(Struct):
    """From behind `position` on changes are told."""

    position: str
    node: str


class Changed(Struct):
    """A line changed; who is not named among the states has none of it."""

    key: str
    version: int
    previous_version: int
    states: dict[str, State]
    previous_states: dict[str, State]


class Missed(Struct):
    """Changes are missing here: read anew what matters."""

    reason: GapReason
    position: str


class End(Struct):
    """The node stops: ask another."""

    reason: Literal["stopping"] = "stopping"


_NULL = Raw(b"null")


def hit_of(coherence: Coherence, line: Line) -> dict[str, Any]:
    """What is found where this node serves the line itself, with `val` as raw JSON."""
    state = line.directory.state_of(coherence.node_id)
    return {"hit": True, "val": Raw(line.value), "state": state, "version": line.version, "source": "local"}


def get_answer_of(found: dict[str, Any]) -> Hit | Miss:
    """What was found, in the words of a get."""
    return msgspec.convert(found, Hit) if found["hit"] else msgspec.convert(found, Miss)


def item_of(key: str, found: dict[str, Any]) -> Item:
    """What was found of one of many keys."""
    return msgspec.convert({"key": key, **found} if found["hit"] else {"key": key, **found, "val": _NULL}, Item)


def read_answer_of(found: dict[str, Any]) -> Read | NotFound:
    """What was found, in the words of a read."""
    if not found["hit"]:
        return msgspec.convert(found, NotFound)
    value = Value(found["state"], found["val"], found["version"])
    return Read(value=value, stale=found.get("stale", UNSET))


def encoded_get(coherence: Coherence, held: HeldLine) -> bytes:
    """What a get answers to a hit, kept beside the line."""
    if held.get_answer:
        return held.get_answer
    answered = encode(get_answer_of(hit_of(coherence, _line_of(held))))
    if len(answered) <= KEPT_ANSWER_BYTES_MAX:
        held.get_answer = answered
    return answered


def encoded_read(coherence: Coherence, held: HeldLine) -> bytes:
    """What a read answers to a hit, kept beside the line."""
    if held.read_answer:
        return held.read_answer
    answered = encode(read_answer_of(hit_of(coherence, _line_of(held))))
    if len(answered) <= KEPT_ANSWER_BYTES_MAX:
        held.read_answer = answered
    return answered


def _line_of(held: HeldLine) -> Line:
    assert held.line is not None, "a hit has its line"
    return held.line
