"""The machine around a service's own, which every group replicates.

`ReplicatedMachine` decodes the command of an entry (`services.replicated.envelope`), gives the first answer again
for a repeated `Idempotency-Key`, and frames snapshots. The table of answers is replicated state like any other: it
survives failovers, restarts and snapshots. An answer that is given again says so: `"replayed": true`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from common.wire import pack, unpack
from raft.state_machine import FIRST_VERSION, ApplyContext, StateMachine
from services.replicated.envelope import Command
from services.replicated.idempotency import LIMITS, IdempotencyTable, answer_of
from services.replicated.limits import Limits, SetLimits
from services.replicated.versions import KNOWN, RaiseVersion, UnknownCommand, UnknownVersion, newest

#: Refusals that say "not now": they are no answer to keep.
NOT_DONE = frozenset({"quota", "overloaded"})
#: One record of a snapshot.
Row = list[Any]
#: A snapshot's chunks are closed once they hold this many bytes.
CHUNK_BYTES = 32 << 10
#: Told when the group's version has risen, with the new one.
RAISED_TOPIC = "version.raised"
#: Commands of every group, which no service's machine sees.
_COMMANDS = (SetLimits, RaiseVersion)


class ServiceMachine(Protocol):
    """What a service replicates; see `raft.state_machine.StateMachine` for the rules of `apply`."""

    @property
    def COMMANDS(self) -> tuple[type[Command], ...]: ...
    #: What the machine is bounded by. Read `in_force` at each use; `ReplicatedMachine` changes and keeps them.
    limits: Limits

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

    def used(self) -> dict[str, int]:
        """How much of its limits is taken, by their names, where that is one number."""

    def snapshot(self) -> Iterator[list[Any]]: ...

    def restore(self, records: Iterable[list[Any]]) -> None: ...

    def skip_numbers(self, count: int, floor: int = 0) -> None:
        """After a restore from a backup: give none of the next `count` numbers, and none below `floor`."""


class HasMachine(Protocol):
    """The part of `raft.node.RaftNode` that `machine_of` needs."""

    @property
    def machine(self) -> StateMachine: ...


class ReplicatedMachine:
    """Implements `raft.state_machine.StateMachine` around the machine of one service.

    Args:
        known: which version of the log this release knows, and the commands of `make_inner` are of.
    """

    def __init__(self, make_inner: Callable[[], ServiceMachine], known: int = KNOWN) -> None:
        self._make_inner = make_inner
        self.known = known
        #: What all members of the group know (`services.replicated.versions`). Replicated; it only rises.
        self.version = FIRST_VERSION
        #: The service's machine. Another object after a snapshot was restored, and so is the table: look both up at
        #: each use.
        self.inner: ServiceMachine
        self.idempotency: IdempotencyTable
        self.idempotency, self.inner = self._made()
        commands: tuple[type[Command], ...] = (*self.inner.COMMANDS, *_COMMANDS)
        self._commands = {cls.OP: cls for cls in commands}
        assert len(self._commands) == len(commands), "two commands share an OP"
        assert known >= max(newest[each] for each in commands), "a command is newer than the version that is known"

    @property
    def limits(self) -> Limits:
        """The group's limits, the service's own among them."""
        return self.inner.limits

    def used(self) -> dict[str, int]:
        """How much of the limits is taken; see `ServiceMachine.used`."""
        return {**self.inner.used(), **self.idempotency.used()}

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
        self.inner.advance(context, None if type(decoded) in _COMMANDS else decoded)
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
        kept = answer_of(row)
        answer = kept if type(command) in _COMMANDS else self.inner.repeat(context, command, kept)
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
        return self._encode(self.version, self.limits.row(), tables)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Build the restored machine beside the present one, which serves until it is whole. May run on another
        thread, as long as nothing is applied meanwhile.

        Raises:
            UnknownVersion: the group's version is above what is known here.
        """
        records = (unpack(record) for chunk in chunks for record in unpack(chunk))
        idempotency, inner = self._made()
        count, version = next(records), FIRST_VERSION
        if isinstance(count, dict):
            count, version = next(records), self._checked(count["version"], "the snapshot has")
        if not isinstance(count, int):
            inner.limits.restore(count)
            count = next(records)
        idempotency.restore(next(records) for _ in range(count))
        inner.restore(records)
        self.idempotency, self.inner, self.version = idempotency, inner, version

    def _made(self) -> tuple[IdempotencyTable, ServiceMachine]:
        inner = self._make_inner()
        inner.limits.declare(LIMITS)
        return IdempotencyTable(inner.limits), inner

    def _apply(self, context: ApplyContext, command: Any) -> dict[str, Any]:
        if type(command) is SetLimits:
            self.advance(context)
            return self._set_limits(context, command)
        if type(command) is RaiseVersion:
            self.advance(context)
            return self._raise_version(context, command)
        answer = self.inner.apply(context, command)
        self._settle(context)
        return answer

    def _set_limits(self, context: ApplyContext, command: SetLimits) -> dict[str, Any]:
        try:
            return {"ok": True, "limits": self.limits.set(command.limits)}
        except KeyError as error:
            raise UnknownCommand(f"entry {context.index} sets a limit that is not known: {error}") from error

    def _raise_version(self, context: ApplyContext, command: RaiseVersion) -> dict[str, Any]:
        version = self._checked(command.version, f"entry {context.index} begins")
        if version > self.version:
            self.version = version
            context.events.append((RAISED_TOPIC, version))
        return {"ok": True, "version": self.version}

    def _checked(self, version: int, where: str) -> int:
        if version > self.known:
            raise UnknownVersion(where, version, self.known)
        return version

    def _settle(self, context: ApplyContext) -> None:
        """What became of waiters is the answer to repeat from now on, or takes it back."""
        for waiter, answer in context.decided:
            self.idempotency.settle(waiter, answer)
        context.decided.clear()

    @staticmethod
    def _encode(
        version: int, limits: Row, tables: tuple[tuple[int, Iterator[Row]], Iterator[Row]]
    ) -> Iterator[bytes]:
        """Chunks of about `CHUNK_BYTES`, each a list of packed records: one at a time, so that the bytes are
        counted and not guessed, and no step of the iterator takes long.

        The records: `{"version": version}` where it was raised; the limits that were set, as one list, where any was;
        the number of kept answers; these; the machine's own."""
        (count, saved), inner = tables
        chunk = [pack({"version": version})] if version > FIRST_VERSION else []
        chunk += [pack(limits), pack(count)] if limits else [pack(count)]
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


def machine_of(node: HasMachine) -> ReplicatedMachine:
    """The machine of a node's replica: all groups have one of this kind."""
    machine = node.machine
    assert isinstance(machine, ReplicatedMachine)
    return machine
