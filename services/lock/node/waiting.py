"""Requests that wait for a lock at this node.

    asked ──in line──> waiting ──told──> answered
      │ ^───told that it is cancelled, or its outcome unknown, as in a snapshot: as long as there is time──┘
      └──the client has gone, its time is over, the node stops──> withdrawn

The rule of the file: a request is told under its own id, by its own node's apply. Whatever ends it without an answer
to its client is withdrawn until that is known (`services.replicated.withdrawals`), and a lock that is granted to a
request that is not here any more is given back. To ask again is safe: the machine knows the id.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from common.runtime import Background
from raft.errors import NotDone, OutcomeUnknown, RaftError
from raft.node import CLOSED_TOPIC
from raft.replica import RESTORED_TOPIC
from services.lock.replicated.commands import Acquire, CancelWaits
from services.lock.replicated.lines import TOLD_TOPIC, Told
from services.lock.replicated.machine import LockMachine
from services.operations.call import Call
from services.replicated import withdrawals
from services.replicated.idempotency import CANCELLED
from services.replicated.withdrawals import Withdrawals

#: Pause before a request whose outcome is unknown is asked again.
RETRY_S = 0.1
#: A wait is ended by the replicated machine; this node gives it so much longer before it speaks up.
WAIT_GRACE_S = 2.0

CANCELLED_ANSWER = {"ok": False, "reason": CANCELLED}

#: Key, owner and id of a request.
Withdrawn = tuple[str, str, str]


class Node(withdrawals.Node, Protocol):
    """The part of `raft.node.RaftNode` that this needs, besides what withdrawals need."""

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]: ...


class Wait:
    """One request: known here for as long as its client may still be answered, between two tries as well."""

    __slots__ = ("command", "outcome")

    def __init__(self, command: Acquire) -> None:
        self.begin(command)

    def begin(self, command: Acquire) -> None:
        """Another try: what the one before was told does not count."""
        self.command = command
        self.outcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def tell(self, answer: dict[str, Any]) -> None:
        if not self.outcome.done():
            self.outcome.set_result(answer)

    def fail(self, error: RaftError) -> bool:
        """False where it has been told already, and its client will be."""
        if self.outcome.done():
            return False
        self.outcome.set_exception(error)
        # A request that is not in line yet may hear of an error from its proposal, and nobody asks here.
        self.outcome.exception()
        return True

    def check_not_failed(self) -> None:
        """Raises: RaftError, with which it was failed."""
        if self.outcome.done():
            self.outcome.result()

    @property
    def told(self) -> dict[str, Any]:
        """What was told beside a try that found no answer: that it is granted, or else nothing that counts."""
        outcome = self.outcome
        if outcome.done() and not outcome.cancelled() and not outcome.exception() and outcome.result()["ok"]:
            return outcome.result()
        return CANCELLED_ANSWER


class LockWaits:
    """All requests that wait for locks at one node.

    Args:
        life: begins the ids of this node's requests in this life.
        background: where tasks that outlive a request are kept.
    """

    def __init__(self, node: Node, life: str, background: Background) -> None:
        self._node = node
        self._life = life
        self._waits: dict[str, Wait] = {}
        self._withdrawals: Withdrawals[Withdrawn] = Withdrawals(node, CancelWaits, background)
        node.subscribe(TOLD_TOPIC, self._on_told)
        node.subscribe(RESTORED_TOPIC, self._on_restored)
        node.subscribe(CLOSED_TOPIC, self._on_closed)

    @property
    def machine(self) -> LockMachine:
        """The locks; another object after a snapshot was installed."""
        machine: LockMachine = self._node.machine.inner
        return machine

    @property
    def withdrawing(self) -> int:
        """Requests whose clients have gone and which are not known to be withdrawn yet."""
        return len(self._withdrawals)

    async def acquire(self, call: Call, command: Acquire) -> dict[str, Any]:
        """The decision about a request that may wait.

        Raises:
            RaftError: see `RaftNode.propose`. It is withdrawn then, unless it was certainly not done.
        """
        try:
            answer = await self._acquire(call, command)
        except (asyncio.CancelledError, OutcomeUnknown):
            self._withdraw(command)
            raise
        call.take_back = partial(self._withdraw, command)
        return answer

    async def _acquire(self, call: Call, asked: Acquire) -> dict[str, Any]:
        """Ask until there is a decision or the client's time is over."""
        wait = self._waits[asked.waiter] = Wait(asked)
        try:
            return await self._ask_until_decided(call, wait, asked)
        finally:
            del self._waits[asked.waiter]

    async def _ask_until_decided(self, call: Call, wait: Wait, asked: Acquire) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + asked.wait_ms / 1000
        unknown: OutcomeUnknown | None = None
        while True:
            try:
                answer = await self._ask(call, wait, asked)
            except OutcomeUnknown as error:
                unknown, answer = error, wait.told
            except NotDone:
                if unknown is None:
                    raise
                # This try was not carried out, but one before it may have been, or may be in this pause.
                if not wait.told["ok"]:
                    if self._node.closed is not None:
                        raise unknown from None
                    await asyncio.sleep(RETRY_S)
                answer = wait.told
            else:
                unknown = None
            if answer.get("reason") != CANCELLED:
                return answer
            left_ms = round((until - loop.time()) * 1000)
            if left_ms <= 0:
                if unknown is not None:
                    raise unknown
                return self.machine.refusal("timeout", asked.key)
            wait.begin(replace(asked, wait_ms=left_ms))

    async def _ask(self, call: Call, wait: Wait, asked: Acquire) -> dict[str, Any]:
        """One try: what the client `asked`, with what is left of its time."""
        answer: dict[str, Any] = await call.replicate_at(self._node, wait.command, asked)
        if answer.get("waiting"):
            return await self._decision(wait)
        # Where this node has closed meanwhile, the request is withdrawn: what it was granted is on its way back.
        wait.check_not_failed()
        answer.pop("waiter", None)
        return answer

    async def _decision(self, wait: Wait) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(wait.outcome, wait.command.wait_ms / 1000 + WAIT_GRACE_S)
        except TimeoutError:
            raise OutcomeUnknown("the wait was not decided in time; ask again with the same key") from None

    def _withdraw(self, command: Acquire) -> None:
        self._withdrawals.add(command.waiter, (command.key, command.owner, command.waiter))

    def _on_told(self, told: Told) -> None:
        wait = self._waits.get(told.waiter)
        if wait is not None:
            wait.tell(told.answer)
        elif told.answer["ok"] and told.waiter.startswith(self._life):
            # Its client had gone before it came into line, or was granted the lock at once.
            self._withdrawals.add(told.waiter, (told.key, told.owner, told.waiter))

    def _on_restored(self, _: Any) -> None:
        """A snapshot stands for the entries that decided some waits: nobody tells of these any more. One of them may
        have been granted."""
        machine = self.machine
        for wait in self._waits.values():
            command = wait.command
            if not machine.is_waiting(command.key, command.owner, command.waiter):
                wait.fail(OutcomeUnknown("the outcome is in a snapshot"))

    def _on_closed(self, error: RaftError) -> None:
        """This node takes part no longer: withdraw everything while it can be said, and tell the clients. One that
        was told of its grant in this very turn keeps it."""
        for wait in self._waits.values():
            if wait.fail(error):
                self._withdraw(wait.command)
