"""Commands on their way into the log: from this node's clients, and from followers that forward theirs.

    arrived ──leading──> placed in the log ──applied here──> answered
       │ ^────────────── refused, or another term's entry stands at the place
       └──following──> forwarded ──place named──> placed

A command is answered "not done" only while it certainly is not: before it has a place. A forward whose leader is
lost before it named the place has an unknown outcome, and so has one whose time runs out in the log.

Numbers of batches start at a random one, and an answer counts only if it comes from the node that was asked: what
another leader, or a message to an earlier life of this node, brings says nothing about a batch of this life.
"""

from asyncio import Future
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from common.chance import SYSTEM_RANDOM
from raft.core.errors import NotLeading, ProposalRefused, TransferInProgress
from raft.core.raft import RaftCore
from raft.core.types import NOBODY, Index, NodeId, Role, Term
from raft.errors import OutcomeUnknown, Overloaded, RaftError
from raft.forwarding import REFUSED_NOT_LEADING, REFUSED_OVERLOADED, Forward, ForwardReply, split
from raft.waiters import Proposal, Waiters

Send = Callable[[Forward | ForwardReply], bool]


#: What a command under way takes in memory beside its bytes: the proposal, its future and its places.
PROPOSAL_OVERHEAD_BYTES = 500


class Proposals:
    """All commands that this node is answerable for, and where each stands."""

    def __init__(self, core: RaftCore, send: Send, random: Random = SYSTEM_RANDOM) -> None:
        self._core = core
        self._send = send
        #: Without a place: newly arrived, or waiting for a leader to be known.
        self._arrived: deque[Proposal] = deque()
        #: Sent to a leader that has not named their places yet: batch -> (leader, proposals).
        self._forwarded: dict[int, tuple[NodeId, list[Proposal]]] = {}
        self._last_batch = random.getrandbits(61)
        self._placed = Waiters()
        #: Applied here, but not released by the leader yet (groups with leases): index -> (proposals, result).
        self._withheld: dict[Index, tuple[list[Proposal], Any]] = {}
        self._count = self._bytes = 0

    def __len__(self) -> int:
        """Commands under way, wherever they stand."""
        return self._count

    @property
    def memory_bytes(self) -> int:
        """What they take."""
        return self._bytes

    def add(self, command: bytes, future: Future[Any], *, place_by_ms: int, settle_by_ms: int) -> None:
        self._count += 1
        self._bytes += len(command) + PROPOSAL_OVERHEAD_BYTES
        self._arrived.append(Proposal(command, future, place_by_ms=place_by_ms, settle_by_ms=settle_by_ms))

    def feed(self, now_ms: int) -> None:
        """Give everything that has no place one, here or through the leader, as far as one is known."""
        state = self._core.state
        if not self._arrived or (state.role is not Role.LEADER and state.leader == NOBODY):
            return
        batch = []
        for proposal in self._arrived:
            if proposal.future.done():
                self._leave(proposal)
            else:
                batch.append(proposal)
        self._arrived.clear()
        if not batch:
            return
        if state.role is Role.LEADER:
            self._propose(batch, now_ms)
        else:
            self._forward(batch, state.leader)

    def on_forward(self, message: Forward, now_ms: int) -> None:
        """A follower's clients' commands: place them and name the place."""
        refused, index = "", 0
        try:
            index = self._core.propose(message.commands, now_ms, message.sender)
        except ProposalRefused as refusal:
            refused = _refusal_code(refusal)
        term = self._core.state.term
        self._send(ForwardReply(self._core.id, message.sender, message.batch, term, index, refused))

    def on_forward_reply(self, message: ForwardReply, applied_index: Index) -> None:
        """The leader named the place of a batch, or refused it."""
        leader, proposals = self._forwarded.get(message.batch, (NOBODY, []))
        if leader != message.sender:
            return
        del self._forwarded[message.batch]
        if message.refused:
            self._on_refused(proposals, message.refused)
        elif message.index <= applied_index:
            # Applied before its name arrived; what became of it was not noted.
            self._fail(proposals, OutcomeUnknown("the leader's answer was overtaken"))
        else:
            self._place(proposals, message.index, message.term)

    def on_leader_lost(self, leader: NodeId) -> None:
        """The way to `leader` broke, or another leads: whether it took what it was sent is unknown."""
        for batch in [batch for batch, (asked, _) in self._forwarded.items() if asked == leader]:
            _, proposals = self._forwarded.pop(batch)
            self._fail(proposals, OutcomeUnknown("the leader was lost while it had the request"))

    def on_applied(self, index: Index, term: Term, result: Any) -> bool:
        """An entry was applied here: answer whoever it is of. True where proposals look for a place again,
        because another leader's entry stands at theirs."""
        if not self._placed:
            return False
        ours, lost = self._placed.take(index, term)
        if ours and self._core.config.lease_ms and not self._core.leases.is_released(index):
            self._withheld[index] = (ours, result)
        else:
            self._settle(ours, result)
        self._arrived.extend(lost)
        return bool(lost)

    def settle_released(self) -> None:
        """Give the answers that the leader has released meanwhile."""
        if self._withheld:
            for index in [index for index in self._withheld if self._core.leases.is_released(index)]:
                self._settle(*self._withheld.pop(index))

    def on_snapshot_installed(self, index: Index) -> None:
        """A leader's snapshot stands for everything up to `index`: what became of these is not known here."""
        self._fail(self._placed.take_up_to(index), OutcomeUnknown("the outcome is in a snapshot"))

    def expire(self, now_ms: int, why_no_leader: Callable[[], RaftError]) -> None:
        """Answer whoever's time is over."""
        for proposal in self._placed.expire(now_ms):
            self._leave(proposal)
        if any(proposal.place_by_ms <= now_ms for proposal in self._arrived):
            late = [proposal for proposal in self._arrived if proposal.place_by_ms <= now_ms]
            self._arrived = deque(p for p in self._arrived if p.place_by_ms > now_ms)
            self._fail(late, why_no_leader())
        overdue = [b for b, (_, waiting) in self._forwarded.items() if waiting[0].settle_by_ms <= now_ms]
        for batch in overdue:
            self._fail(self._forwarded.pop(batch)[1], OutcomeUnknown("the leader did not answer in time"))

    def fail_all(self, error: RaftError) -> None:
        """The node stops: `error` for what has no place, unknown for the rest."""
        unknown = OutcomeUnknown("this node stopped before the outcome was known")
        for proposals, _ in self._withheld.values():
            self._fail(proposals, unknown)
        self._withheld.clear()
        self._fail(self._placed.take_all(), unknown)
        for _, proposals in self._forwarded.values():
            self._fail(proposals, unknown)
        self._forwarded.clear()
        self._fail(list(self._arrived), error)
        self._arrived.clear()

    def _propose(self, batch: list[Proposal], now_ms: int) -> None:
        try:
            first = self._core.propose([proposal.command for proposal in batch], now_ms)
        except ProposalRefused as refusal:
            self._on_refused(batch, _refusal_code(refusal))
        else:
            self._place(batch, first, self._core.state.term)

    def _forward(self, batch: list[Proposal], leader: NodeId) -> None:
        for run in split([proposal.command for proposal in batch]):
            proposals = batch[run]
            self._last_batch += 1
            commands = tuple(proposal.command for proposal in proposals)
            if self._send(Forward(self._core.id, leader, self._last_batch, commands)):
                self._forwarded[self._last_batch] = (leader, proposals)
            else:
                self._arrived.extend(proposals)

    def _place(self, batch: list[Proposal], first: Index, term: Term) -> None:
        for offset, proposal in enumerate(batch):
            self._placed.add(first + offset, term, proposal)

    def _on_refused(self, batch: list[Proposal], code: str) -> None:
        if code == REFUSED_NOT_LEADING:
            self._arrived.extend(batch)
        else:
            self._fail(batch, Overloaded("too much waits to be replicated; slow down"))

    def _settle(self, proposals: list[Proposal], result: Any) -> None:
        for proposal in proposals:
            self._leave(proposal)
            proposal.settle(result)

    def _fail(self, proposals: list[Proposal], error: RaftError) -> None:
        for proposal in proposals:
            self._leave(proposal)
            proposal.fail(error)

    def _leave(self, proposal: Proposal) -> None:
        """It stands nowhere any more."""
        self._count -= 1
        self._bytes -= len(proposal.command) + PROPOSAL_OVERHEAD_BYTES


def _refusal_code(refusal: ProposalRefused) -> str:
    """Whether another try may find a leader, or the client is told to slow down."""
    retry = isinstance(refusal, NotLeading | TransferInProgress)
    return REFUSED_NOT_LEADING if retry else REFUSED_OVERLOADED
