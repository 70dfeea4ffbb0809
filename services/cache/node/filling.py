"""Callers at this node that want an absent key: one of all nodes' fills it, the others are served what it put.

The rule of this file: for each key at most one question is under way from this node to the log, however many callers
want it, and everybody who had come before it was asked shares its answer. So a stampede costs one entry per round
trip and node. Nothing of this is replicated but the leases: a caller that goes away leaves its line at once, and a
node that dies takes its callers with it.

A lease that this node's life was told of is with a caller, or about to be (a question is under way), or owed back.
The replicated machine says which leases those are, not the answer to the question: so it does not matter where on the
way the answer, its caller or the connection is lost (`_maybe_owe`).

A lease that ends, whatever ended it, makes the line ask anew: the answer is then the value, or the lease for the
next in line, or that somebody else was faster. Values reach waiting callers through such a fill and never straight
from the event, because only its answer is held for as long as another node may serve something older.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from common.runtime import Background
from raft.errors import RaftError
from raft.node import CLOSED_TOPIC
from raft.replica import RESTORED_TOPIC
from services.cache.replicated.commands import Fill, GiveBack
from services.cache.replicated.fill_leases import FillLease
from services.cache.replicated.store import LEASE_ENDED_TOPIC, LEASE_TOLD_TOPIC
from services.operations.refusals import refused
from services.replicated import withdrawals
from services.replicated.proposing import propose
from services.replicated.withdrawals import Withdrawals

#: Callers that may wait at one node, for all keys together.
WAITING_MAX = 20_000
#: Pause before a line asks again whose question could not be answered.
RETRY_S = 0.2


#: `(key, token, told)` of a lease as it was told to this node; see `GiveBack`.
Told = tuple[str, int, int]


class Node(withdrawals.Node, Protocol):
    """The part of `raft.node.RaftNode` that this needs, besides what withdrawals need."""

    id: str

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]: ...


class Caller:
    """One read in line for its key."""

    __slots__ = ("claim", "last", "lease_ms", "outcome", "timer", "until")

    def __init__(self, lease_ms: int, claim: str, until: float) -> None:
        self.lease_ms = lease_ms
        #: The request's `Idempotency-Key`: a lease that it has taken is its own, and nobody else's. Empty: none.
        self.claim = claim
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


class CallerLine:
    """The callers of one key, first come first."""

    __slots__ = ("asking", "callers", "news")

    def __init__(self) -> None:
        self.callers: dict[Caller, None] = {}
        self.asking = False
        #: Something happened that the question under way may not know of.
        self.news = False


class Given:
    """A lease that callers of this node have."""

    __slots__ = ("callers", "token")

    def __init__(self, token: int) -> None:
        self.token = token
        #: Who was told of it and has not vanished on the way; several where one request was sent more than once.
        self.callers = 0


class FillLines:
    """All lines of one node.

    Args:
        asker: names this life of the node, to which the leases are given.
        background: tasks that outlive the request that began them; owned by the node.
    """

    def __init__(self, node: Node, asker: str, background: Background) -> None:
        self._node = node
        self._asker = asker
        self._background = background
        self._lines: dict[str, CallerLine] = {}
        #: Leases that callers of this node have, by key.
        self._given: dict[str, Given] = {}
        #: Leases that were told to this node and that nobody has.
        self._owed: Withdrawals[Told] = Withdrawals(node, GiveBack, background)
        #: Questions under way.
        self._asking: set[asyncio.Task[Any]] = set()
        node.before_leaving.append(self._settle_questions)
        #: Callers in all lines, and leases that were given to callers since the start.
        self.waiting = 0
        self.granted = 0
        node.subscribe(LEASE_TOLD_TOPIC, self._on_lease_told)
        node.subscribe(LEASE_ENDED_TOPIC, self._on_lease_ended)
        node.subscribe(RESTORED_TOPIC, lambda _: self._on_restored())
        node.subscribe(CLOSED_TOPIC, self._on_closed)

    @property
    def owed(self) -> int:
        """Leases that are not known to be given back yet."""
        return len(self._owed)

    async def read(self, key: str, *, lease_ms: int, wait_s: float, claim: str = "") -> dict[str, Any]:
        """The machine's answer to a fill of `key` that takes a lease: a hit, `lease`, or `filling` once the time is
        over. Where it is `lease` and the client cannot be told, say so with `take_back`.

        Raises:
            ApiError: 429, too many wait at this node or too many leases run.
            RaftError: see `RaftNode.propose`; while there is time left the line tries again.
        """
        if self._node.closed is not None:
            raise self._node.closed
        if self.waiting >= WAITING_MAX:
            raise refused("quota", f"{WAITING_MAX} reads wait at this node already; ask another node, or later.")
        caller = Caller(lease_ms, claim, asyncio.get_running_loop().time() + wait_s)
        line = self._lines.setdefault(key, CallerLine())
        line.callers[caller] = None
        self.waiting += 1
        self._ask(key, line)
        try:
            return await caller.outcome
        except asyncio.CancelledError:
            self._on_vanished(key, caller)
            raise
        finally:
            self._leave(key, line, caller)

    def _leave(self, key: str, line: CallerLine, caller: Caller) -> None:
        self.waiting -= 1
        if caller.timer is not None:
            caller.timer.cancel()
        del line.callers[caller]
        self._maybe_forget(key, line)

    def _maybe_forget(self, key: str, line: CallerLine) -> None:
        if not line.callers and not line.asking and self._lines.get(key) is line:
            del self._lines[key]

    def take_back(self, key: str, token: int) -> None:
        """A caller that got the lease of that token has gone before it could be told."""
        given = self._given.get(key)
        if given is None or given.token != token:
            return
        given.callers -= 1
        if not given.callers:
            del self._given[key]
            self._maybe_owe(key)

    def _on_vanished(self, key: str, caller: Caller) -> None:
        """The caller went away, perhaps in the very moment in which it was answered."""
        outcome = caller.outcome
        if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
            token = outcome.result().get("lease")
            if token is not None:
                self.take_back(key, token)

    def _maybe_owe(self, key: str) -> None:
        """Give the lease of `key` back where it was told to this node and nobody here has it, or is about to."""
        line = self._lines.get(key)
        lease = self._node.machine.inner.fill_lease(key)
        told = None if lease is None else lease.told_to(self._asker)
        if lease is None or told is None or (line is not None and line.asking):
            return
        given = self._given.get(key)
        if given is None or given.token != lease.token:
            self._owed.add(key, (key, lease.token, told))

    # Asking

    def _ask(self, key: str, line: CallerLine) -> None:
        line.news = True
        if not line.asking:
            line.asking = True
            self._spawn(self._ask_while_needed(key, line))

    async def _ask_while_needed(self, key: str, line: CallerLine) -> None:
        """Ask the log for as long as somebody waits and there is news."""
        try:
            while line.news and line.callers:
                line.news = False
                callers = tuple(line.callers)
                asking = self._claimant(key, callers)
                try:
                    answer = await propose(self._node, self._question(key, asking))
                except RaftError as error:
                    # No leader, or an unknown outcome: harmless to ask again, a lease that was won is told again.
                    if any([caller.wait_on(error) for caller in callers]):
                        line.news = True
                        await asyncio.sleep(RETRY_S)
                else:
                    self._on_answer(key, line, callers, asking.claim, answer)
        except Exception as error:
            # Nobody else would ask for those who came meanwhile.
            _settle(tuple(line.callers), error)
            raise
        finally:
            line.asking = False
            self._maybe_forget(key, line)
            self._maybe_owe(key)

    def _claimant(self, key: str, callers: tuple[Caller, ...]) -> Caller:
        """For whom to ask next: who has a claim to the lease that stands; else the first in line."""
        lease = self._node.machine.inner.fill_lease(key)
        if lease is not None and lease.claim:
            for caller in callers:
                if caller.claim == lease.claim:
                    return caller
        return callers[0]

    def _question(self, key: str, caller: Caller) -> Fill:
        # Other nodes may have passed on the lease to the same request, which came to them before.
        beside = bool(caller.claim) and self._node.machine.version >= Fill.FIELDS_SINCE["beside"]
        return Fill(key, self._node.id, caller.lease_ms, self._asker, caller.claim, beside)

    def _on_answer(
        self, key: str, line: CallerLine, callers: tuple[Caller, ...], claim: str, answer: dict[str, Any]
    ) -> None:
        """The answer to a question that was asked for whoever has that claim."""
        if "reason" in answer:
            limit = answer["limit_value"]
            _settle(callers, refused("quota", f"{limit} absent keys are being filled already; read again later."))
            return
        token = answer.get("lease")
        if token is None and "filling" not in answer:
            _settle(callers, answer)
            return
        filling = answer
        lease = self._node.machine.inner.fill_lease(key)
        if token is not None:
            filling = {**answer, "filling": True}
            del filling["lease"]
            filling.pop("replayed", None)
            if lease is None or lease.token != token:
                # It ended between its apply and this moment.
                line.news = True
            else:
                self._give(key, token, claim, answer, callers)
        elif self._claimant(key, callers).claim != claim:
            # Somebody in line has taken this very lease with an earlier try.
            line.news = True
        for caller in callers:
            caller.wait_on(filling)

    def _give(
        self, key: str, token: int, claim: str, answer: dict[str, Any], callers: tuple[Caller, ...]
    ) -> None:
        """Give the lease to the first who is still there, or to all who are the same request."""
        given = self._given.get(key)
        if given is None or given.token != token:
            given = Given(token)
        elif not claim:
            return
        is_new = not given.callers
        for caller in callers:
            if caller.claim == claim and caller.settle(answer):
                given.callers += 1
                if not claim:
                    break
        if is_new and given.callers:
            self._given[key] = given
            self._owed.forget(key)
            self.granted += 1

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._background.start("fill", coroutine)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    # What happens meanwhile

    def _on_lease_told(self, lease: FillLease) -> None:
        if lease.asker == self._asker:
            # Also where nobody asks any more: the outcome of a question was not known, and now it is.
            self._owed.forget(lease.key)
            self._maybe_owe(lease.key)
        elif lease.told_to(self._asker) is None:
            # Perhaps it was a lease of this node's, whose client has asked another.
            self._owed.forget(lease.key)
            self._given.pop(lease.key, None)

    def _on_lease_ended(self, key: str) -> None:
        self._given.pop(key, None)
        self._owed.forget(key)
        line = self._lines.get(key)
        if line is not None:
            self._ask(key, line)

    def _on_restored(self) -> None:
        """A snapshot replaced the machine: which leases ended on the way is not known."""
        told = {lease.key: lease for lease in self._node.machine.inner.fill_leases_of(self._asker)}
        self._given = {
            key: given for key, given in self._given.items() if key in told and told[key].token == given.token
        }
        self._owed.clear()
        for key, line in self._lines.items():
            self._ask(key, line)
        for key in told:
            self._maybe_owe(key)

    def _on_closed(self, why: RaftError) -> None:
        """A node that serves no more sends its callers away."""
        for line in self._lines.values():
            _settle(tuple(line.callers), why)

    async def _settle_questions(self) -> None:
        """What a question that is under way brings is given back before this node leaves."""
        if self._asking:
            await asyncio.wait(tuple(self._asking))
        await self._owed.flush()


def _settle(callers: tuple[Caller, ...], answer: dict[str, Any] | Exception) -> None:
    for caller in callers:
        caller.settle(answer)
