"""What the queues answer. Payloads are any JSON, passed through as text."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from services.operations.answers import Answer, NotDone

State = Literal["ready", "in_flight", "delayed", "dead"]


class Enqueued(Answer, kw_only=True):
    """A decimal text."""

    msg_id: str


class EnqueuedMany(Answer, kw_only=True):
    """In the order of the request."""

    msg_ids: list[str]


class Message(Struct):
    msg_id: str
    payload: Raw
    #: Names this delivery.
    receipt: str
    #: How often it has been delivered, this time included.
    delivery: int
    queue: str


class Delivered(Answer, kw_only=True):
    """One message; `receipt` names this delivery, which is the `delivery`-th of the message."""

    msg_id: str
    payload: Raw
    receipt: str
    delivery: int
    queue: str


class DeliveredMany(Answer, kw_only=True):
    """With `max` over 1: each as one message."""

    messages: list[Message]


class Empty(NotDone, kw_only=True):
    """Nothing there."""

    reason: Literal["empty"] = "empty"


class NothingDelivered(Empty, kw_only=True):
    """Nothing there: `msg_id` and `payload` are null, or with `max` over 1 `messages` is empty."""

    msg_id: str | UnsetType | None = UNSET
    payload: Raw | UnsetType | None = UNSET
    messages: list[Message] | UnsetType = UNSET


class Popped(Answer, kw_only=True):
    """The payload, and whose it was."""

    item: Raw
    msg_id: str
    delivery: int
    queue: str


class Acknowledged(Answer, kw_only=True):
    """It is gone for good."""


class NotCurrent(NotDone, kw_only=True):
    """A receipt of an earlier delivery: `stale_receipt`; unknown or done: `not_in_flight`."""

    reason: Literal["stale_receipt", "not_in_flight"]


class Result(Struct):
    msg_id: str
    ok: bool
    reason: Literal["stale_receipt", "not_in_flight"] | UnsetType = UNSET


class AcknowledgedMany(Answer, kw_only=True):
    """In the order of the request."""

    results: list[Result]


class NotAllCurrent(NotDone, kw_only=True):
    """Some of the messages could not be acknowledged, the first of them for this `reason`; `results` has each."""

    reason: Literal["stale_receipt", "not_in_flight"]
    results: list[Result]


class GivenBack(Answer, kw_only=True):
    """Where it is now; `expired`: nowhere, since it is past its time to live."""

    state: Literal["ready", "in_flight", "delayed", "dead", "expired"]


class Extended(Answer, kw_only=True):
    expires_in_s: float


class Rejected(Answer, kw_only=True):
    """It is a dead letter."""


class Configured(Answer, kw_only=True):
    """It holds from now on."""


class Moved(Answer, kw_only=True):
    """So many dead letters are back in the queue."""

    moved: int


class Purged(Answer, kw_only=True):
    """So many messages were dropped."""

    purged: int


class Deleted(Answer, kw_only=True):
    """`deleted` is false where there was no such queue."""

    deleted: bool
    purged: int


class InFlight(NotDone, kw_only=True):
    """Messages are with consumers, and `force` was not given."""

    reason: Literal["in_flight"]
    in_flight: int


class Settings(Struct):
    """In the words and units of `/queue/config`."""

    visibility: float
    max_deliveries: int
    max_messages: int
    max_bytes: int
    message_ttl: float | None
    paused: bool
    max_dead: int
    max_dead_bytes: int
    dead_ttl: float | None


class QueueState(Struct, kw_only=True):
    """Counts by state, bytes, counters since the queue came into being, settings."""

    queue: str
    ready: int
    in_flight: int
    delayed: int
    dead: int
    bytes: int
    dead_bytes: int
    enqueued_total: int
    delivered_total: int
    redelivered_total: int
    acknowledged_total: int
    expired_total: int
    dead_lettered_total: int
    dead_dropped_total: int
    purged_total: int
    settings: Settings


class Stats(QueueState, kw_only=True):
    """A queue that nobody ever used is empty."""

    ok: bool = True
    exists: bool


class Listed(Answer, kw_only=True):
    """Queues by name; `next` is the `after` of the next page, null at the end."""

    queues: list[QueueState]
    next: str | None


class PeekedMessage(Struct):
    msg_id: str
    payload: Raw
    priority: int
    deliveries: int
    age_s: float
    due_in_s: float | None
    expires_in_s: float | None


class Peeked(Answer, kw_only=True):
    """Ready ones in the order of delivery, the others by id."""

    queue: str
    state: State
    messages: list[PeekedMessage]


def with_raw_payloads(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**message, "payload": Raw(message["payload"])} for message in messages]


def deliveries_of(
    messages: list[dict[str, Any]], *, many: bool, **more: Any
) -> Delivered | DeliveredMany | NothingDelivered:
    """The answer to a deq that was given these."""
    if many:
        if not messages:
            return NothingDelivered(messages=[], **more)
        return DeliveredMany(messages=msgspec.convert(with_raw_payloads(messages), list[Message]), **more)
    if not messages:
        return NothingDelivered(msg_id=None, payload=None, **more)
    return msgspec.convert({**with_raw_payloads(messages[:1])[0], **more}, Delivered)
