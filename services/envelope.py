"""What stands around every replicated command, and the machine that takes it off again.

    [op, [field, ...], idempotency key or nil, fingerprint or nil]          (msgpack)

`ReplicatedMachine` wraps a service's machine: it decodes the command, gives the first answer again for a
repeated `Idempotency-Key`, and frames snapshots. The table of answers is replicated state like any other: it
survives failovers, restarts and snapshots. An answer that is given again says so: `"replayed": true`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, Protocol

from common.wire import pack, unpack
from raft.state_machine import ApplyContext
from services.idempotency import IdempotencyTable, answer_of

#: Refusals that say "not now": they are no answer to keep.
NOT_DONE = frozenset({"quota", "overloaded"})
#: A snapshot's chunks are closed once they hold this many bytes.
CHUNK_BYTES = 32 << 10


class Command(Protocol):
    """A frozen dataclass of msgpack-able fields, named on disk by `OP`."""

    OP: ClassVar[str]


class ServiceMachine(Protocol):
    """What a service replicates; see `raft.state_machine.StateMachine` for the rules of `apply`."""

    COMMANDS: tuple[type, ...]

    def apply(self, context: ApplyContext, command: Any) -> dict[str, Any]: ...

    def kept(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What of an answer has to be remembered so that `repeat` can give it again."""

    def repeat(
        self, context: ApplyContext, command: Any, kept: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The command comes again, with the same `Idempotency-Key`: carry nothing out, but say what was answered and
        what holds of it now. None: of what was answered nothing is known any more, so the command is carried out.
        Time has reached the entry's before."""

    def advance(self, context: ApplyContext, command: Any = None) -> None:
        """Let cluster time reach the entry's. Where a command follows, its client waits: do little besides."""

    def next_due_ms(self) -> int | None: ...

    def snapshot(self) -> Iterator[list]: ...

    def restore(self, records: Iterable[list]) -> None: ...

    def skip_numbers(self, count: int, floor: int = 0) -> None:
        """After a restore from a backup: give none of the next `count` numbers, and none below `floor`."""


class UnknownCommand(ValueError):
    """The log holds a command that this version does not know: the node must not guess and stops."""


def encode_command(
    command: Command, *, idempotency_key: str | None = None, fingerprint: bytes | None = None
) -> bytes:
    """The bytes of one log entry."""
    return pack([command.OP, _values(command), idempotency_key, fingerprint])


@cache
def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _values(command: Any) -> list:
    return [getattr(command, name) for name in _field_names(type(command))]


def values_by_name(command: Any) -> dict[str, Any]:
    """The fields of a command."""
    return dict(zip(_field_names(type(command)), _values(command), strict=True))


class ReplicatedMachine:
    """Implements `raft.state_machine.StateMachine` around the machine of one service."""

    def __init__(self, make_inner: Callable[[], ServiceMachine]) -> None:
        self._make_inner = make_inner
        #: The service's machine. Another object after a snapshot was restored: look it up at each use.
        self.inner = inner = make_inner()
        self.idempotency = IdempotencyTable()
        self._commands = {cls.OP: cls for cls in inner.COMMANDS}
        assert len(self._commands) == len(inner.COMMANDS), "two commands share an OP"

    def apply(self, context: ApplyContext, command: bytes) -> dict[str, Any]:
        op, values, key, fingerprint = unpack(command)
        try:
            decoded = self._commands[op](*values)
        except (KeyError, TypeError) as error:
            raise UnknownCommand(f"entry {context.index} holds the command {op!r}: {error!r}") from error
        self.idempotency.forget_old(context.time_ms)
        if key is None:
            return self._apply(context, decoded)
        # Time first: it may decide the very wait that this request repeats.
        self.inner.advance(context, decoded)
        self._settle(context)
        answer = self._repeat(context, decoded, key, fingerprint)
        if answer is not None:
            return answer
        answer = self._apply(context, decoded)
        waiter = answer.get("waiter") or getattr(decoded, "waiter", "") or None
        if answer.get("reason") in NOT_DONE or (answer.get("waiting") and waiter is None):
            # Nothing was done, and another try may fare better: the key is still unused.
            return answer
        self.idempotency.keep(
            key, fingerprint, self.inner.kept(answer), waiter=waiter, time_ms=context.time_ms
        )
        return answer

    def _repeat(
        self, context: ApplyContext, command: Any, key: str, fingerprint: bytes
    ) -> dict[str, Any] | None:
        """The answer to a key that was used before; None where it is new."""
        row = self.idempotency.find(key, context.time_ms)
        if row is None:
            return None
        self.idempotency.hits += 1
        if row.fingerprint != fingerprint:
            return {"ok": False, "reason": "idempotency_key_reused"}
        answer = self.inner.repeat(context, command, answer_of(row))
        self._settle(context)
        if answer is None:
            self.idempotency.forget(key)
            return None
        return {**answer, "replayed": True}

    def advance(self, context: ApplyContext) -> None:
        self.inner.advance(context)
        self._settle(context)

    def next_due_ms(self) -> int | None:
        return self.inner.next_due_ms()

    def snapshot(self) -> Iterator[bytes]:
        tables = (self.idempotency.snapshot(), self.inner.snapshot())
        return self._encode(tables)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Build the restored machine beside the present one, which serves until it is whole. May run on another
        thread, as long as nothing is applied meanwhile."""
        records = (unpack(record) for chunk in chunks for record in unpack(chunk))
        count = next(records)
        idempotency, inner = IdempotencyTable(), self._make_inner()
        idempotency.restore(next(records) for _ in range(count))
        inner.restore(records)
        self.idempotency, self.inner = idempotency, inner

    def _apply(self, context: ApplyContext, command: Any) -> dict[str, Any]:
        answer = self.inner.apply(context, command)
        self._settle(context)
        return answer

    def _settle(self, context: ApplyContext) -> None:
        """What became of waiters is the answer to repeat from now on, or takes it back."""
        for waiter, answer in context.decided:
            self.idempotency.settle(waiter, answer)
        context.decided.clear()

    @staticmethod
    def _encode(tables: tuple[tuple[int, Iterator[list]], Iterator[list]]) -> Iterator[bytes]:
        """Chunks of about `CHUNK_BYTES`, each a list of packed records: one at a time, so that the bytes are
        counted and not guessed, and no step of the iterator takes long."""
        (count, saved), inner = tables
        chunk = [pack(count)]
        size = 0
        for table in (saved, inner):
            for record in table:
                packed = pack(record)
                chunk.append(packed)
                size += len(packed)
                if size >= CHUNK_BYTES:
                    yield pack(chunk)
                    chunk, size = [], 0
        if chunk:
            yield pack(chunk)

