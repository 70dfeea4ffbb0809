"""What can be said to the replicated queues. Pure data: the meaning is in `machine`.

Every command is on disk under its `OP` with its fields in this order: a field is only ever added at the end and
with a default, and an `OP` is never reused. Times are milliseconds, message ids are the machine's whole
numbers (HTTP shows them as decimal strings), payloads are the JSON text as bytes and are never looked into.

A field that is added stands in `ADDED`, too, so that an `Idempotency-Key` from before the upgrade still fits its
request.

A receipt names one delivery of one message. Where it is optional, None means "whichever delivery is current".
"""

from dataclasses import dataclass
from typing import Any, ClassVar


# Not `frozen`: built for every such write on every node, and three times as slow so. Nobody assigns its fields.
@dataclass(slots=True, unsafe_hash=True)
class Enqueue:
    """Put one message into a queue, which comes into being if need be."""

    OP: ClassVar[str] = "enq"
    queue: str
    payload: bytes
    #: 0 to 9, higher first.
    priority: int = 0
    #: Not delivered before this has passed; 0 is at once.
    delay_ms: int = 0
    #: Dropped if not delivered for good by then; 0 is the queue's own `message_ttl`.
    ttl_ms: int = 0


@dataclass(frozen=True, slots=True)
class EnqueueBatch:
    """Put many messages in, all or none."""

    OP: ClassVar[str] = "enq_batch"
    #: Each is the fields of an `Enqueue` in its order.
    messages: tuple[tuple[str, bytes, int, int, int], ...]


# Not `frozen`: built for every such write on every node, and three times as slow so. Nobody assigns its fields.
@dataclass(slots=True, unsafe_hash=True)
class Dequeue:
    """Deliver up to `max` messages; each is hidden until acknowledged, returned or `visibility_ms` later."""

    OP: ClassVar[str] = "deq"
    queue: str
    max: int = 1
    #: 0 is the queue's own.
    visibility_ms: int = 0
    #: The consumer waits where nothing is there: the answer is then `{"waiting": True}`, which is no outcome yet.
    waits: bool = False


# Not `frozen`: built for every such write on every node, and three times as slow so. Nobody assigns its fields.
@dataclass(slots=True, unsafe_hash=True)
class Pop:
    """Deliver one message and acknowledge it in the same step."""

    OP: ClassVar[str] = "pop"
    queue: str
    #: As in `Dequeue`.
    waits: bool = False


# Not `frozen`: built for every such write on every node, and three times as slow so. Nobody assigns its fields.
@dataclass(slots=True, unsafe_hash=True)
class Ack:
    """The consumer is done: the message is gone for good."""

    OP: ClassVar[str] = "ack"
    msg_id: int
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class AckBatch:
    """Acknowledge many messages, each on its own merits."""

    OP: ClassVar[str] = "ack_batch"
    #: `(msg_id, receipt)` each.
    messages: tuple[tuple[int, str | None], ...]


@dataclass(frozen=True, slots=True)
class Nack:
    """The consumer gives a message back; it returns to the front, after `delay_ms`."""

    OP: ClassVar[str] = "nack"
    msg_id: int
    receipt: str | None = None
    delay_ms: int = 0
    #: True where the delivery never reached a consumer: it then does not count towards `max_deliveries`.
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Deliveries that never reached their consumers: as many `Nack` with `unseen`."""

    OP: ClassVar[str] = "give_back"
    #: `(msg_id, receipt)` each.
    deliveries: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Extend:
    """The consumer needs longer: the message stays hidden until `visibility_ms` from now."""

    OP: ClassVar[str] = "extend"
    msg_id: int
    receipt: str | None = None
    visibility_ms: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """The consumer can do nothing with it: to the dead letters at once."""

    OP: ClassVar[str] = "reject"
    msg_id: int
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class Configure:
    """Change settings of one queue, which comes into being if need be; None leaves a setting as it is."""

    OP: ClassVar[str] = "config"
    ADDED: ClassVar[dict[str, Any]] = {"max_dead": None, "max_dead_bytes": None, "dead_ttl_ms": None}
    queue: str
    visibility_ms: int | None = None
    max_deliveries: int | None = None
    max_messages: int | None = None
    max_bytes: int | None = None
    message_ttl_ms: int | None = None
    paused: bool | None = None
    max_dead: int | None = None
    max_dead_bytes: int | None = None
    dead_ttl_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Redrive:
    """Put dead letters, at most `SWEEP_PER_ENTRY_MAX`, back into their queue as if they were new."""

    OP: ClassVar[str] = "redrive"
    queue: str
    #: Only messages with a lower id; 0 is all there are now.
    before_id: int = 0


@dataclass(frozen=True, slots=True)
class Purge:
    """Drop what a queue holds in some states, at most `SWEEP_PER_ENTRY_MAX` messages."""

    OP: ClassVar[str] = "purge"
    queue: str
    #: Numbers of `State`.
    states: tuple[int, ...]
    #: Only messages with a lower id; 0 is all there are now.
    before_id: int = 0
    #: Messages up to this id were looked at by the entries before.
    after_id: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Drop all that a queue holds, as a purge does, and with the last of it the queue: settings and counters."""

    OP: ClassVar[str] = "delete"
    queue: str
    #: Also where messages are with consumers.
    force: bool = False
    #: As in `Purge`.
    before_id: int = 0
    after_id: int = 0
