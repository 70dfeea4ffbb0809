"""How a request gets a message: at once, or by waiting at this node until there is one.

The rule: a consumer that waits asks, sleeps in this node's waiting room until a message of its queue becomes
ready, and asks again; it ends with its time or its client. Where a delivery was replicated for a client that is
gone by then, it is given back, uncounted and until that is known, unless the request carried an `Idempotency-Key`:
then the client will ask for this very answer again. A pop has no delivery to give back.
"""

import asyncio
from functools import partial
from typing import Any, Protocol

from common.runtime import Background
from services.operations.call import Call
from services.queue.node.waiting import Ticket, waiting_room
from services.queue.replicated import queries
from services.queue.replicated.commands import Dequeue, GiveBack, Pop
from services.queue.replicated.machine import QueueMachine
from services.replicated import withdrawals
from services.replicated.withdrawals import Withdrawals

#: A waiting consumer looks by itself this often: a snapshot that replaces the machine brings no events.
RECHECK_S = 1.0


class Node(Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    #: The `ReplicatedMachine` of the group.
    machine: Any


def machine_of(node: Node) -> QueueMachine:
    """The queues that a node replicates; another object after a snapshot was installed."""
    machine: QueueMachine = node.machine.inner
    return machine


async def consume(call: Call, command: Dequeue | Pop, wait_s: float) -> dict[str, Any]:
    """The machine's answer to `command`, asked until something is there or `wait_s` is over: it is then still
    `{"waiting": True}`, which only a command with `waits` is told.

    Raises:
        RaftError: see `RaftNode.propose`.
        ApiError: too many wait at this node.
    """
    if not wait_s:
        return await _ask(call, command)
    node = call.node()
    give_up = asyncio.get_running_loop().time() + wait_s
    with waiting_room(node).place(command.queue) as ticket:
        while True:
            result = await _ask(call, command)
            if "waiting" not in result or not await _wait_ready(call, node, command.queue, ticket, give_up):
                return result


async def _wait_ready(call: Call, node: Node, queue: str, ticket: Ticket, give_up: float) -> bool:
    """True once it is worth asking again, False once the wait is over or the client gone."""
    while (left_s := give_up - asyncio.get_running_loop().time()) > 0:
        if await ticket.wait_woken(min(left_s, RECHECK_S)):
            if not call.has_gone():
                return True
            # It does not look, so the next in line is to.
            ticket.wake()
            return False
        if call.has_gone():
            return False
        if queries.has_ready(machine_of(node).store, queue):
            return True
    return False


async def _ask(call: Call, command: Dequeue | Pop) -> dict[str, Any]:
    """Like `replicate`, but a delivery whose client goes away meanwhile is given back."""
    if isinstance(command, Pop) or call.given_key is not None:
        return await call.replicate(command)
    asking = asyncio.create_task(call.replicate(command), name="ask for messages")
    here = call.host
    given_back = here.parts[GiveBacks]
    try:
        result = await asyncio.shield(asking)
    except asyncio.CancelledError:
        here.background.keep(asking)
        asking.add_done_callback(given_back.on_answer_for_nobody)
        raise
    call.take_back = partial(given_back.add, result)
    return result


class GiveBacks:
    """The deliveries of a node that reached nobody."""

    def __init__(self, node: withdrawals.Node, background: Background) -> None:
        self._withdrawals: Withdrawals[tuple[int, str]] = Withdrawals(node, GiveBack, background)

    def __len__(self) -> int:
        """Deliveries that are not known to be given back yet."""
        return len(self._withdrawals)

    def add(self, result: dict[str, Any]) -> None:
        """Give back what this answer delivers."""
        for message in result.get("messages", ()):
            delivery = (int(message["msg_id"]), message["receipt"])
            self._withdrawals.add(delivery, delivery)

    def on_answer_for_nobody(self, asking: asyncio.Future[dict[str, Any]]) -> None:
        """Where nobody knows what was delivered, if anything, the visibility timeout brings it back."""
        if not asking.cancelled() and asking.exception() is None:
            self.add(asking.result())
