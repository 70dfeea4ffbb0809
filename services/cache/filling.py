"""Callers at this node that want an absent key: one of all nodes' fills it, the others are served what it put.

The rule of this file: for each key at most one question is under way from this node to the log, however many callers
want it, and everybody who had come before it was asked shares its answer. So a stampede costs one entry per round
trip and node. Nothing of this is replicated but the leases: a caller that goes away leaves its line at once, a node
that dies takes its callers with it, and a lease that was won for a caller who had gone is given back.

A lease that ends, whatever ended it, makes the line ask anew: the answer is then the value, or the lease for the
next in line, or that somebody else was faster. Values reach waiting callers through such a fill and never straight
from the event, because only its answer is held for as long as another node may serve something older.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from common.logs import get_logger
from raft.errors import RaftError
from raft.node import CLOSED_TOPIC
from raft.replica import RESTORED_TOPIC
from services.cache.commands import Delete, Fill
from services.cache.store import LEASE_ENDED_TOPIC
from services.envelope import encode_command
from services.errors import api_error

#: Callers that may wait at one node, for all keys together.
WAITING_MAX = 20_000
#: Pause before a line asks again whose question could not be answered.
RETRY_S = 0.2

logger = get_logger("services.cache.filling")


class Node(Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    id: str
    machine: Any
    #: Why nothing is accepted any more; None while the node serves.
    closed: RaftError | None

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]: ...

    def propose(self, command: bytes) -> Awaitable[Any]: ...


class Caller:
    """One read in line for its key."""

    __slots__ = ("last", "lease_ms", "outcome", "timer", "until")

    def __init__(self, lease_ms: int, until: float) -> None:
        self.lease_ms = lease_ms
        #: Until when it waits for somebody else's fill, by the event loop's clock.
        self.until = until
        self.outcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None
        #: What it is told when its time is over: that somebody fills, or why that could not be found out.
        self.last: dict[str, Any] | Exception = {}

    def settle(self, answer: dict[str, Any] | Exception) -> bool:
        """False where nobody listens any more."""
        if self.outcome.done():
            return False
        if isinstance(answer, Exception):
            self.outcome.set_exception(answer)
        else:
            self.outcome.set_result(answer)
        return True

    def wait_on(self, last: dict[str, Any] | Exception) -> bool:
        """Wait for what is left of this caller's time; False where it is over."""
        if self.outcome.done():
            return False
        self.last = last
        loop = asyncio.get_running_loop()
        if self.until <= loop.time():
            self.settle(last)
            return False
        if self.timer is None:
            self.timer = loop.call_at(self.until, self._on_late)
        return True

    def _on_late(self) -> None:
        self.settle(self.last)


class Line:
    """The callers of one key, first come first."""

    __slots__ = ("asking", "callers", "news")

    def __init__(self) -> None:
        self.callers: dict[Caller, None] = {}
        self.asking = False
        #: Something happened that the question under way may not know of.
        self.news = False


class FillLines:
    """All lines of one node.

    Args:
        asker: names this life of the node, to which the leases are given.
        background: tasks that outlive the request that began them; owned by the node.
    """

    def __init__(self, node: Node, asker: str, background: set[asyncio.Task]) -> None:
        self._node = node
        self._asker = asker
        self._background = background
        self._lines: dict[str, Line] = {}
        #: Leases that callers of this node have: key -> token.
        self._given: dict[str, int] = {}
        #: Callers in all lines, and leases that were given to callers since the start.
        self.waiting = 0
        self.granted = 0
        node.subscribe(LEASE_ENDED_TOPIC, self._on_lease_ended)
        node.subscribe(RESTORED_TOPIC, lambda _: self._on_restored())
        node.subscribe(CLOSED_TOPIC, self._on_closed)

    async def read(self, key: str, *, lease_ms: int, wait_s: float) -> dict[str, Any]:
        """The machine's answer to a fill of `key` that takes a lease: a hit, `lease`, or `filling` once the time is
        over.

        Raises:
            ApiError: 429, too many wait at this node or too many leases run.
            RaftError: see `RaftNode.propose`; while there is time left the line tries again.
        """
        if self._node.closed is not None:
            raise self._node.closed
        if self.waiting >= WAITING_MAX:
            raise api_error("quota", f"{WAITING_MAX} reads wait at this node already; ask another node, or later.")
        caller = Caller(lease_ms, asyncio.get_running_loop().time() + wait_s)
        line = self._lines.setdefault(key, Line())
        line.callers[caller] = None
        self.waiting += 1
        self._ask(key, line)
        try:
            return await caller.outcome
        except asyncio.CancelledError:
            self._take_back(key, caller)
            raise
        finally:
            self._leave(key, line, caller)

    def _leave(self, key: str, line: Line, caller: Caller) -> None:
        self.waiting -= 1
        if caller.timer is not None:
            caller.timer.cancel()
        del line.callers[caller]
        self._maybe_forget(key, line)

    def _maybe_forget(self, key: str, line: Line) -> None:
        if not line.callers and not line.asking and self._lines.get(key) is line:
            del self._lines[key]

    def _take_back(self, key: str, caller: Caller) -> None:
        """The caller went away in the very moment in which it was answered: nobody knows of its lease."""
        outcome = caller.outcome
        if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
            token = outcome.result().get("lease")
            if token is not None:
                self._spawn(self._give_back(key, token))

    # Asking

    def _ask(self, key: str, line: Line) -> None:
        line.news = True
        if not line.asking:
            line.asking = True
            self._spawn(self._ask_while_needed(key, line))

    async def _ask_while_needed(self, key: str, line: Line) -> None:
        """Ask the log for as long as somebody waits and there is news."""
        try:
            while line.news and line.callers:
                line.news = False
                callers = tuple(line.callers)
                fill = Fill(key, self._node.id, callers[0].lease_ms, self._asker)
                try:
                    answer = await self._node.propose(encode_command(fill))
                except RaftError as error:
                    # No leader, or an unknown outcome: harmless to ask again, a lease that was won is told again.
                    if any([caller.wait_on(error) for caller in callers]):
                        line.news = True
                        await asyncio.sleep(RETRY_S)
                else:
                    self._on_answer(key, line, callers, answer)
        except Exception as error:
            # Nobody else would ask for those who came meanwhile.
            _settle(tuple(line.callers), error)
            raise
        finally:
            line.asking = False
            self._maybe_forget(key, line)

    def _on_answer(self, key: str, line: Line, callers: tuple[Caller, ...], answer: dict[str, Any]) -> None:
        if "reason" in answer:
            limit = answer["limit_value"]
            _settle(callers, api_error("quota", f"{limit} absent keys are being filled already; read again later."))
            return
        token = answer.get("lease")
        if token is None and "filling" not in answer:
            _settle(callers, answer)
            return
        filling = answer
        if token is not None:
            filling = {**answer, "filling": True}
            del filling["lease"]
            if self._node.machine.inner.lease_token(key) != token:
                # It ended between its apply and this moment.
                line.news = True
            elif self._given.get(key) != token:
                callers = self._give(key, line, token, answer, callers)
        for caller in callers:
            caller.wait_on(filling)

    def _give(
        self, key: str, line: Line, token: int, answer: dict[str, Any], callers: tuple[Caller, ...]
    ) -> tuple[Caller, ...]:
        """Give the lease to the first who is still there; returns the others."""
        for place, caller in enumerate(callers):
            if caller.settle(answer):
                self._given[key] = token
                self.granted += 1
                return callers[place + 1 :]
        if not line.callers:
            # Else they are about to ask, and are told of it once more.
            self._given[key] = token
            self._spawn(self._give_back(key, token))
        return ()

    async def _give_back(self, key: str, token: int) -> None:
        try:
            await self._node.propose(encode_command(Delete(key, lease=token)))
        except RaftError as error:
            logger.info("a lease could not be given back; its time ends it", error=str(error))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name="fill")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # What happens meanwhile

    def _on_lease_ended(self, key: str) -> None:
        self._given.pop(key, None)
        line = self._lines.get(key)
        if line is not None:
            self._ask(key, line)

    def _on_restored(self) -> None:
        """A snapshot replaced the machine: which leases ended on the way is not known."""
        machine = self._node.machine.inner
        self._given = {key: token for key, token in self._given.items() if machine.lease_token(key) == token}
        for key, line in self._lines.items():
            self._ask(key, line)

    def _on_closed(self, why: RaftError) -> None:
        """A node that serves no more sends its callers away."""
        for line in self._lines.values():
            _settle(tuple(line.callers), why)


def _settle(callers: tuple[Caller, ...], answer: dict[str, Any] | Exception) -> None:
    for caller in callers:
        caller.settle(answer)
