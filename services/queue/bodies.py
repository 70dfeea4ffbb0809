"""The requests of the queue service as structs, and the commands that they become.

The rule: both vocabularies are read by the same structs. Fields of the other vocabulary that mean nothing here
(`payload` in a pop, `queue` in an ack: a message id is unique in the group) are allowed and not looked at. Times
in requests are seconds; they become whole milliseconds, rounded up, so that a short time never becomes none.
"""

from math import ceil
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct, field

from common.api_error import ApiError, bad_request, check_name
from services.queue.replicated.commands import Ack, AckBatch, Enqueue, EnqueueBatch, Purge
from services.queue.replicated.limits import (
    BATCH_MAX,
    BYTES_PER_QUEUE_MAX,
    DELAY_MS_MAX,
    DELIVERIES_MAX_MAX,
    LIST_MAX,
    MESSAGES_PER_QUEUE_MAX,
    PEEK_MAX,
    PRIORITY_MAX,
    VISIBILITY_MS_MAX,
    WAIT_MS_MAX,
)
from services.queue.replicated.messages import DEAD, DELAYED, READY
from services.queue.replicated.queries import STATES

QUEUE_DEFAULT = "default"

#: No id that this service gave is longer, and a number of so many digits fits into 64 bits.
MSG_ID_DIGITS_MAX = 18

Delay = Annotated[float, Meta(ge=0, le=DELAY_MS_MAX / 1000)]
Ttl = Annotated[float, Meta(gt=0, le=DELAY_MS_MAX / 1000)]
Visibility = Annotated[float, Meta(gt=0, le=VISIBILITY_MS_MAX / 1000)]
Wait = Annotated[float, Meta(ge=0, le=WAIT_MS_MAX / 1000)]
Priority = Annotated[int, Meta(ge=0, le=PRIORITY_MAX)]
MsgId = Annotated[str, Meta(min_length=1, max_length=64)]
Receipt = Annotated[str, Meta(min_length=1, max_length=64)]



class EnqBody(Struct, forbid_unknown_fields=True):
    """The payload that a consumer sees is `{"key", "value"}`."""

    value: Raw
    key: str | None = None
    queue: str = QUEUE_DEFAULT
    delay: Delay = 0
    priority: Annotated[Priority, Meta(description="0 to 9, higher first")] = 0
    ttl: Ttl | None = None


class PushBody(Struct, forbid_unknown_fields=True):
    """The payload is delivered as it is."""

    queue: str
    payload: Raw
    delay: Delay = 0
    priority: Annotated[Priority, Meta(description="0 to 9, higher first")] = 0
    ttl: Ttl | None = None


class EnqItem(Struct, forbid_unknown_fields=True):
    """One message of a batch, in either vocabulary: `value` with an optional `key`, or `payload`."""

    value: Raw = field(default_factory=Raw)
    payload: Raw = field(default_factory=Raw)
    key: str | None = None
    queue: str | None = None
    delay: Delay = 0
    priority: Annotated[Priority, Meta(description="0 to 9, higher first")] = 0
    ttl: Ttl | None = None


class EnqBatchBody(Struct, forbid_unknown_fields=True):
    messages: Annotated[
        list[EnqItem], Meta(min_length=1, max_length=BATCH_MAX, description="up to 1,000, each as in a push or enq")
    ]
    queue: Annotated[str, Meta(description="for the messages that name none")] = QUEUE_DEFAULT


class DeqBody(Struct, forbid_unknown_fields=True):
    queue: str = QUEUE_DEFAULT
    max: Annotated[int, Meta(ge=1, le=BATCH_MAX)] = 1
    wait: Wait = 0
    visibility: Annotated[Visibility | None, Meta(description="none: as the queue is configured")] = None
    payload: Raw = field(default_factory=Raw)


class PopBody(Struct, forbid_unknown_fields=True):
    queue: str
    wait: Wait = 0
    payload: Raw = field(default_factory=Raw)


class AckItem(Struct, forbid_unknown_fields=True):
    msg_id: MsgId
    receipt: Receipt | None = None


Ids = Annotated[
    list[MsgId | AckItem],
    Meta(min_length=1, max_length=BATCH_MAX, description="ids, or `msg_id` with `receipt`; up to 1,000"),
]


class AckBody(Struct, forbid_unknown_fields=True):
    """One message, or `messages`: ids, or objects with `msg_id` and perhaps `receipt`."""

    msg_id: MsgId | None = None
    receipt: Receipt | None = None
    messages: Ids | None = None
    queue: str | None = None


class AckBatchBody(Struct, forbid_unknown_fields=True):
    messages: Ids
    queue: str | None = None


class NackBody(Struct, forbid_unknown_fields=True):
    msg_id: MsgId
    receipt: Receipt | None = None
    delay: Delay = 0
    queue: str | None = None


class ExtendBody(Struct, forbid_unknown_fields=True):
    msg_id: MsgId
    receipt: Receipt | None = None
    visibility: Annotated[Visibility | None, Meta(description="none: as the queue is configured")] = None
    queue: str | None = None


class RejectBody(Struct, forbid_unknown_fields=True):
    msg_id: MsgId
    receipt: Receipt | None = None
    queue: str | None = None


class ConfigBody(Struct, forbid_unknown_fields=True):
    """What is left out stays as it is; `message_ttl` and `dead_ttl` 0 take the time to live away."""

    queue: str = QUEUE_DEFAULT
    visibility: Visibility | None = None
    max_deliveries: Annotated[int, Meta(ge=0, le=DELIVERIES_MAX_MAX)] | None = None
    max_messages: Annotated[int, Meta(ge=1, le=MESSAGES_PER_QUEUE_MAX)] | None = None
    max_bytes: Annotated[int, Meta(ge=1, le=BYTES_PER_QUEUE_MAX)] | None = None
    message_ttl: Delay | None = None
    paused: bool | None = None
    max_dead: Annotated[int, Meta(ge=0, le=MESSAGES_PER_QUEUE_MAX)] | None = None
    max_dead_bytes: Annotated[int, Meta(ge=0, le=BYTES_PER_QUEUE_MAX)] | None = None
    dead_ttl: Delay | None = None


class PurgeBody(Struct, forbid_unknown_fields=True):
    """All that is not with consumers, or what is in one state."""

    queue: str
    state: Annotated[str | None, Meta(description="`ready`, `in_flight`, `delayed` or `dead`")] = None


class DeleteBody(Struct, forbid_unknown_fields=True):
    queue: str
    force: Annotated[bool, Meta(description="also where messages are with consumers")] = False


class QueueBody(Struct, forbid_unknown_fields=True):
    queue: str = QUEUE_DEFAULT


class StatsQuery(Struct, forbid_unknown_fields=True):
    queue: str = QUEUE_DEFAULT


class ListQuery(Struct, forbid_unknown_fields=True):
    prefix: str = ""
    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = 100


class PeekQuery(Struct, forbid_unknown_fields=True):
    queue: str = QUEUE_DEFAULT
    state: Annotated[str, Meta(description="`ready`, `in_flight`, `delayed` or `dead`")] = "ready"
    limit: Annotated[int, Meta(ge=1, le=PEEK_MAX)] = 10


def milliseconds(seconds: float | None) -> int:
    """Rounded up; 0 for None."""
    return ceil(seconds * 1000) if seconds else 0


def enqueue_of(body: EnqBody, *, name_bytes_max: int, value_bytes_max: int) -> Enqueue:
    """Raises ApiError 400 naming the field, 413."""
    check_name(body.queue, "queue", name_bytes_max)
    payload = keyed_payload(body.key, body.value, name_bytes_max, value_bytes_max)
    return Enqueue(body.queue, payload, body.priority, milliseconds(body.delay), milliseconds(body.ttl))


def push_of(body: PushBody, *, name_bytes_max: int, value_bytes_max: int) -> Enqueue:
    """Raises ApiError 400 naming the field, 413."""
    check_name(body.queue, "queue", name_bytes_max)
    payload = plain_payload(body.payload, "payload", value_bytes_max)
    return Enqueue(body.queue, payload, body.priority, milliseconds(body.delay), milliseconds(body.ttl))


def enqueue_batch_of(body: EnqBatchBody, *, name_bytes_max: int, value_bytes_max: int) -> EnqueueBatch:
    """Raises ApiError 400 naming the field, 413."""
    messages = []
    for number, item in enumerate(body.messages):
        queue = body.queue if item.queue is None else item.queue
        check_name(queue, f"messages[{number}].queue" if item.queue is not None else "queue", name_bytes_max)
        if bool(memoryview(item.value)) == bool(memoryview(item.payload)):
            raise bad_request(f"The field `messages[{number}]` must hold `value` or `payload`, and only one of them.")
        if memoryview(item.value):
            payload = keyed_payload(item.key, item.value, name_bytes_max, value_bytes_max)
        else:
            payload = plain_payload(item.payload, "payload", value_bytes_max)
        messages.append((queue, payload, item.priority, milliseconds(item.delay), milliseconds(item.ttl)))
    return EnqueueBatch(tuple(messages))


def ack_of(body: AckBody) -> Ack | AckBatch:
    """Raises ApiError 400 unless exactly one of `msg_id` and `messages` is there."""
    if (body.msg_id is None) == (body.messages is None):
        raise bad_request("The body must hold `msg_id` or `messages`, and only one of them.")
    if body.msg_id is not None:
        return Ack(message_id_of(body.msg_id), body.receipt)
    assert body.messages is not None
    if body.receipt is not None:
        raise bad_request("The field `receipt` stands in each of `messages`, beside its `msg_id`.")
    return ack_batch_of(body.messages)


def ack_batch_of(messages: list[str | AckItem]) -> AckBatch:
    items = [AckItem(item) if isinstance(item, str) else item for item in messages]
    return AckBatch(tuple((message_id_of(item.msg_id), item.receipt) for item in items))


def message_id_of(text: str) -> int:
    """The machine's number for a message id; 0, which no message has, for a text that this service never gave."""
    if text.isascii() and text.isdigit() and len(text) <= MSG_ID_DIGITS_MAX and text[0] != "0":
        return int(text)
    return 0


def keyed_payload(key: str | None, value: Raw, name_bytes_max: int, value_bytes_max: int) -> bytes:
    """The JSON object `{"key", "value"}`, put together from its parts."""
    checked = plain_payload(value, "value", value_bytes_max)
    if key is None:
        return b'{"key":null,"value":%b}' % checked
    return b'{"key":%b,"value":%b}' % (msgspec.json.encode(check_name(key, "key", name_bytes_max)), checked)


def plain_payload(value: Raw, field: str, value_bytes_max: int) -> bytes:
    """The JSON text of `value`. Raises ApiError 413 where it is too long."""
    payload = bytes(value)
    if len(payload) > value_bytes_max:
        raise ApiError(
            413,
            "too_large",
            f"The field `{field}` has {len(payload)} bytes of JSON; at most {value_bytes_max} are allowed.",
        )
    return payload


def purge_of(body: PurgeBody, *, name_bytes_max: int) -> Purge:
    """Without a state, what is with consumers stays there, as in RabbitMQ. Raises ApiError 400 naming the field."""
    check_name(body.queue, "queue", name_bytes_max)
    if body.state is None:
        return Purge(body.queue, (READY, DELAYED, DEAD))
    return Purge(body.queue, (STATES.index(check_state(body.state, "field")),))


def check_state(state: str, noun: str = "parameter") -> str:
    """Raises ApiError 400 where there is no such state."""
    if state not in STATES:
        raise bad_request(f"The {noun} `state` must be one of {', '.join(f'`{name}`' for name in STATES)}.")
    return state
