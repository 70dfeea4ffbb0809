"""The protocol that a service's machine implements, and what `apply` may know.

`apply` is a pure function of the log: it never reads a clock, a random number, the environment or the order of
a set. Time is the entry's cluster time. What it wants told to the clients of *this* node (a waiter was
granted, a queue has a message) it appends to `context.events`; every node of the group applies every entry, so
the node that a client waits at hears of it without a message.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from raft.core.types import Index

#: The version of the log (`raft.versions`) that every node knows, also one that says nothing: that of a group which
#: nobody ever raised.
FIRST_VERSION = 1


@dataclass(slots=True)
class ApplyContext:
    """What an entry brings along besides its bytes."""

    #: Position of the entry in the log; a machine uses it as a version or a fencing token.
    index: Index
    #: Cluster time of the entry, milliseconds; never falls from one entry to the next.
    time_ms: int
    #: `(topic, body)` pairs for this node's listeners, in order. Replicated state must not depend on them.
    events: list[tuple[str, Any]] = field(default_factory=list)
    #: `(waiter, answer)`: what became of requests that were answered "waiting", or that what they were granted was
    #: taken back. For what stands around the machine and keeps answers.
    decided: list[tuple[str, Any]] = field(default_factory=list)
    #: What the entry cost besides one and its events, in things of about that cost; see `spend`.
    work: int = 0

    def spend(self, things: int) -> None:
        """So many things were handled that no event tells of. A node's turn ends once it has done so much
        (`raft.replica.TURN_WORK_MAX`); replicated state must not depend on it."""
        self.work += things


class StateMachine(Protocol):
    """What a group replicates."""

    def apply(self, context: ApplyContext, command: bytes) -> Any:
        """Carry out one committed command and return its answer. Things that fell due by `context.time_ms`
        happen first. Raises only for a command that no version of this code ever wrote: the node then stops."""

    def advance(self, context: ApplyContext) -> None:
        """Let cluster time reach `context.time_ms`: expire and deliver what fell due."""

    def next_due_ms(self) -> int | None:
        """Cluster time at which `advance` will next have something to do; None where nothing is pending."""

    def snapshot(self) -> Iterator[bytes]:
        """A point-in-time copy, made before this returns; the iterator then encodes it in slices of at most
        a few milliseconds and may be drained while newer entries are applied."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the whole state by what `snapshot` produced."""
