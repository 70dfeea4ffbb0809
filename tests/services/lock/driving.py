"""A hand on the lock machine: counts log indexes, keeps cluster time, spells commands briefly."""

from itertools import count
from typing import Any

from raft.state_machine import ApplyContext
from services.lock.replicated.commands import Acquire, CancelWait, DropWaiters, ForceRelease, Release, Renew
from services.lock.replicated.lines import Told
from services.lock.replicated.machine import LockMachine
from services.replicated.envelope import encode_command, fingerprint
from services.replicated.machine import ReplicatedMachine


class Driver:
    """Applies one command per call; `events` holds what the last call announced."""

    def __init__(self, machine: LockMachine | None = None) -> None:
        self.machine = machine if machine is not None else LockMachine()
        self.index = 0
        self.time_ms = 1_000
        self.events: list[tuple[str, Told]] = []
        #: What the last call decided about places in line, by the ids of these.
        self.decided: list[tuple[str, dict]] = []
        self._waiter_numbers = count(1)

    def apply(self, command) -> dict:
        self.index += 1
        context = ApplyContext(self.index, self.time_ms)
        answer = self.machine.apply(context, command)
        self.events, self.decided = context.events, context.decided
        return answer

    def advance(self, milliseconds: int) -> list[tuple[str, Told]]:
        """Let cluster time pass and have the machine notice it by an entry without a command."""
        self.time_ms += milliseconds
        self.index += 1
        context = ApplyContext(self.index, self.time_ms)
        self.machine.advance(context)
        self.events, self.decided = context.events, context.decided
        return self.events

    def acquire(
        self,
        owner: str,
        mode: str = "X",
        *,
        key: str = "k",
        ttl_ms: int | None = None,
        wait_ms: int = 0,
        waiter: str | None = None,
        node: str = "node1",
        boot: str = "boot1",
    ) -> dict:
        if waiter is None:
            waiter = f"w-{owner}-{next(self._waiter_numbers)}" if wait_ms else ""
        return self.apply(Acquire(key, owner, mode == "X", ttl_ms, wait_ms, waiter, node, boot))

    def wait(self, owner: str, mode: str = "X", *, waiter: str | None = None, wait_ms: int = 60_000, **more):
        """An acquire that is expected to stand in line; its waiter id is `owner` unless told."""
        answer = self.acquire(owner, mode, wait_ms=wait_ms, waiter=waiter or owner, **more)
        assert answer["waiting"] is True

    def release(self, owner: str, key: str = "k", token: int | None = None) -> dict:
        return self.apply(Release(key, owner, token))

    def renew(self, owner: str, ttl_ms: int, key: str = "k", token: int | None = None) -> dict:
        return self.apply(Renew(key, owner, ttl_ms, token))

    def force_release(self, key: str = "k", owner: str | None = None) -> dict:
        return self.apply(ForceRelease(key, owner))

    def cancel(self, owner: str, waiter: str, key: str = "k") -> dict:
        return self.apply(CancelWait(key, owner, waiter))

    def drop_waiters(self, node: str, boot_kept: str = "") -> dict:
        return self.apply(DropWaiters(node, boot_kept))

    def holders(self, key: str = "k") -> list[str]:
        """Who holds the key, lowest token first; in lower case for a shared hold."""
        return [
            held["owner"].upper() if held["mode"] == "exclusive" else held["owner"].lower()
            for held in self.machine.status(key)["holders"]
        ]

    def line(self, key: str = "k") -> list[str]:
        return [waiter["owner"] for waiter in self.machine.status(key)["waiters"]]

    def told(self) -> dict[str, dict]:
        """What the last call announced, by waiter id."""
        return {told.waiter: told.answer for _, told in self.events}


def copied(machine: LockMachine) -> LockMachine:
    """A machine restored from a snapshot of this one."""
    copy = LockMachine()
    copy.restore(list(record) for record in machine.snapshot())
    return copy


def everything(machine: LockMachine) -> tuple:
    """All that replicas have to agree about."""
    return (
        list(machine.snapshot()),
        machine.next_due_ms(),
        machine.statistics(),
        machine.used(),
        [machine.status(key) for key in machine.page("", "", 1 << 30)],
    )


class Log:
    """One replicated machine, with the envelope that keeps answers."""

    def __init__(self) -> None:
        self.machine = ReplicatedMachine(LockMachine)
        self.index = 0
        self.time_ms = 1_000

    def __call__(self, command: Any, key: str | None = None) -> dict[str, Any]:
        self.index += 1
        mark = None if key is None else fingerprint(command)
        data = encode_command(command, idempotency_key=key, fingerprint=mark)
        return self.machine.apply(ApplyContext(self.index, self.time_ms), data)

    def holders(self) -> list[str]:
        return [held["owner"] for held in self.machine.inner.status("k")["holders"]]
