"""What clients of queues asked and were told, in microseconds of true time.

The rule of the file: nothing in it is a guess. `asked_us` is when the first try was sent that may have had an effect;
`told_us` is when the answer came. What nobody was told is kept as what it is: somebody asked, and it may have been
done, then or later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Sent:
    """One message that a producer asked to put in, once or with one key, so that at most one can come of it."""

    name: str
    queue: str
    #: As consumers must see it.
    payload: Any
    priority: int
    delay_s: float
    ttl_s: float | None
    asked_us: int
    told_us: int | None = None
    msg_id: str | None = None
    #: The producer was told that it was certainly not done.
    not_done: bool = False


@dataclass(slots=True)
class Delivery:
    """One delivery that a consumer was told of."""

    name: str
    msg_id: str
    queue: str
    receipt: int
    #: How often the message has been delivered by now.
    number: int
    visibility_s: float
    asked_us: int
    told_us: int


@dataclass(slots=True)
class Popped:
    """A message that a consumer got with a pop."""

    name: str
    msg_id: str
    queue: str
    number: int
    asked_us: int
    told_us: int


@dataclass(slots=True)
class Ending:
    """A consumer said something about a delivery: `ack`, `nack`, `reject`, or that it takes longer, `extend`."""

    kind: str
    msg_id: str
    receipt: int
    asked_us: int
    told_us: int | None = None
    #: None: the consumer was told nothing.
    ok: bool | None = None
    #: Where a nack was told that the message is.
    state: str = ""
    #: Of an extend.
    visibility_s: float = 0.0
    #: Of a nack.
    delay_s: float = 0.0


@dataclass(slots=True)
class ToldAgain:
    """A delivery that stood in the answer to a request that was sent more than once."""

    msg_id: str
    receipt: int
    #: When the try was sent that was answered so.
    asked_us: int


@dataclass(slots=True)
class Look:
    """A consumer was told that nothing is there."""

    queue: str
    asked_us: int
    told_us: int


@dataclass(slots=True)
class Untold:
    """A deq or pop of which nobody knows what came of it, if anything, or when."""

    kind: str
    queue: str
    asked_us: int


@dataclass(slots=True)
class Redrive:
    queue: str
    asked_us: int
    told_us: int | None = None


@dataclass(slots=True)
class Peeked:
    """A message was shown to somebody who only looked."""

    name: str
    msg_id: str
    asked_us: int


@dataclass(slots=True)
class Record:
    """All of one run."""

    #: By name.
    sent: dict[str, Sent] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    pops: list[Popped] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    told_again: list[ToldAgain] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    untold: list[Untold] = field(default_factory=list)
    redrives: list[Redrive] = field(default_factory=list)
    peeked: list[Peeked] = field(default_factory=list)
    #: `max_deliveries` of a queue, and since when that is known to hold.
    configured: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: Whether the queues were emptied in the end, and what their stats said then.
    is_drained: bool = False
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
