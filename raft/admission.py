"""How a node with an empty data directory comes to take part, and how a group notices a disk that was wiped.

    empty ──everybody that answers is empty too, and with this node a majority──> founder of a new group
      │ ^── asked again, until one of these happens
      ├──the leader finds the id unbound, or bound to this very directory──> takes part
      └──the id is no member's, or bound to another directory──> refused, until an operator removes or adds it

A node takes part once its data directory holds anything: whoever holds nothing may have voted and acknowledged what
it no longer knows. docs/membership.md has the argument. The rule of the file: an empty node's core is fed nothing,
and it is admitted by a leader only when the entry that binds its id is committed by others.

A leader also gives its group a life (`raft.life`) where it has none, and a node that is of another one says so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

from common.chance import SYSTEM_RANDOM
from common.clock import wall_us
from common.logs import get_logger
from raft.core.errors import ConfigurationBusy, ConfigurationRefused
from raft.core.quorum import quorum_size
from raft.core.raft import RaftCore
from raft.core.types import NOBODY, Configuration, HardState, Index, NodeId, Role, Term
from raft.life import ANY_LIFE, described_life, given_life, is_life, may_be_the_same
from raft.membership import BIND, MemberChange, Membership
from raft.state_machine import FIRST_VERSION
from raft.storage import Recovered
from raft.versions import Versions

#: Pause between two rounds of questions while this node is empty, and while its id is not bound yet.
ASK_SECONDS = 0.1
#: How often a node that takes part sees after its binding.
CHECK_SECONDS = 1.0
#: Without a leader for so long, a node asks the others whether it is a member still.
LEADERLESS_SECONDS_MAX = 2.0
#: How long a leader may take to bind an id before the asker is told to ask again.
BIND_SECONDS_MAX = 0.8

#: Verdicts: "I am empty, too", "take part", "you may not", "ask again, or ask the leader", "other data than mine".
EMPTY, ADMITTED, REFUSED, WAIT, OTHER_LIFE = "empty", "admitted", "refused", "wait", "other life"
#: What a node that is of another cluster is taken to say, whatever it said.
OTHER_CLUSTER = "other cluster"

logger = get_logger("raft.admission")


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """`node` with the data directory `incarnation` asks whether it may take part."""

    node: NodeId
    incarnation: str
    #: `host:port` for clients.
    address: str


@dataclass(frozen=True, slots=True)
class AdmissionReply:
    verdict: str
    #: The answerer's term. The one who is admitted begins in it, having voted for `leader`.
    term: Term = 0
    leader: NodeId = NOBODY
    #: Where the leader is reached, where the answerer knows.
    address: str = ""
    reason: str = ""
    #: Of who admits: how far the group's log was committed at that moment.
    commit_index: Index = 0


#: Asks the node at an address; None where no answer came.
Ask = Callable[[str, AdmissionRequest], Awaitable[AdmissionReply | None]]


class AdmittedNode(Protocol):
    """The node that takes part or may do so, or the one that is asked."""

    id: NodeId
    group: str
    core: RaftCore
    membership: Membership
    versions: Versions
    admitted: bool
    hindrance: str

    @property
    def life(self) -> str: ...

    def admit(self, term: Term, vote: NodeId, commit_index: Index = 0) -> None: ...


def is_empty(recovered: Recovered) -> bool:
    """Whether a data directory holds nothing, so that its node must be admitted before it takes part."""
    return recovered.hard_state == HardState() and recovered.snapshot is None and not recovered.entries


async def answer(
    node: AdmittedNode,
    request: AdmissionRequest,
    life: str = ANY_LIFE,
    *,
    known: int = FIRST_VERSION,
    given: str = "",
) -> AdmissionReply:
    """What this node says to an asker whose data is of `life`. Only a leader admits.

    Args:
        known: the version of the log that the asker knows (`raft.versions`).
        given: what the group is to have for a life, where it has none.
    """
    core = node.core
    if not node.admitted or (core.log.last_index == 0 and core.state.leader == NOBODY):
        return AdmissionReply(EMPTY, core.state.term)
    if not may_be_the_same(node.life, life):
        return AdmissionReply(OTHER_LIFE, core.state.term, reason=_other_life(node, request, life))
    if core.state.role is not Role.LEADER:
        leader = core.state.leader
        return AdmissionReply(WAIT, core.state.term, leader, core.configuration.address_of(leader))
    configuration = core.configuration
    if request.node not in configuration.members:
        return AdmissionReply(REFUSED, reason=_no_member(request))
    bound = configuration.incarnation_of(request.node)
    if bound and bound != request.incarnation:
        return AdmissionReply(REFUSED, reason=_other_disk(request))
    try:
        node.versions.check(request.node, known)
    except ConfigurationRefused as refusal:
        return AdmissionReply(REFUSED, reason=str(refusal))
    except ConfigurationBusy:
        # That is known once the change below can be made, which looks again.
        pass
    give_up = asyncio.get_running_loop().time() + BIND_SECONDS_MAX
    change = MemberChange(BIND, request.node, request.address, request.incarnation)
    reply = await node.membership.change_here(change, give_up, life=given, known=known)
    if reply.outcome not in ("done", "same") or core.state.role is not Role.LEADER:
        return AdmissionReply(WAIT, core.state.term, core.state.leader, reason=reply.reason)
    committed = core.configurations.at(core.log.commit_index)
    if committed.incarnation_of(request.node) != request.incarnation:
        return AdmissionReply(WAIT, core.state.term, core.state.leader)
    return AdmissionReply(ADMITTED, core.state.term, node.id, commit_index=core.log.commit_index)


def _no_member(request: AdmissionRequest) -> str:
    return f"no member of the group; `mufakat member add {request.node} {request.address}` makes it one"


def _other_disk(request: AdmissionRequest) -> str:
    return (
        "its data directory is not the one that the group knows; what it promised is lost with the one before. "
        f"`mufakat member remove {request.node}`, then `mufakat member add {request.node} {request.address}` "
        "takes it back as a learner"
    )


def _other_life(node: AdmittedNode, request: AdmissionRequest, life: str) -> str:
    return (
        f"its data is of another life of the group ({described_life(life)}) than that of {node.id} "
        f"({described_life(node.life)}), and the two must never mix. If the group shall go on as it is on {node.id}, "
        f"stop {request.node}, move its folder of the group {node.group} away and start it again: the group takes it "
        "in. If not, do so on all nodes and restore the backup on all of them, as one life (`mufakat restore --life`)"
    )


def _reasons(replies: Mapping[NodeId, AdmissionReply], *verdicts: str) -> list[str]:
    return [reply.reason for reply in replies.values() if reply.verdict in verdicts]


class Admission:
    """Sees to it that one replica takes part when it may, and that the group knows its data directory.

    Args:
        founders: id to address of the nodes that a new group begins with, this one included where it is one.
        joins: this node is to be added to a group that there is: it never founds one.
        ask: how another node is asked.
        knows_lives: whether a peer runs now, in a version that knows what a group's life is.
        keep_life: notes the life beside the log, durably; raises OSError. Called in a thread.
        wall_us, random: what the life is made of that this node gives its group.
    """

    def __init__(
        self,
        node: AdmittedNode,
        *,
        incarnation: str,
        address: str,
        founders: Mapping[NodeId, str],
        joins: bool,
        ask: Ask,
        knows_lives: Callable[[NodeId], bool] = lambda peer: True,
        keep_life: Callable[[str], None] = lambda life: None,
        wall_us: Callable[[], int] = wall_us,
        random: Random = SYSTEM_RANDOM,
    ) -> None:
        self._node = node
        self._knows_lives = knows_lives
        self._keep_life = keep_life
        self._kept_life = ""
        self._wall_us = wall_us
        self._random = random
        self._request = AdmissionRequest(node.id, incarnation, address)
        self._founders = founders
        self._may_found = not joins and node.id in founders
        self._ask = ask
        #: Where the leader is, as others told.
        self._hint = ""
        self._leader_seen_s = 0.0

    async def run(self) -> None:
        """Runs as long as the node does."""
        self._leader_seen_s = asyncio.get_running_loop().time()
        while not self._node.admitted:
            await self._seek()
        while True:
            await self._note_life()
            await self._keep_bound()

    # Empty

    async def _seek(self) -> None:
        node = self._node
        replies = await self._ask_all()
        verdicts = {reply.verdict for reply in replies.values()}
        if ADMITTED in verdicts:
            best = max((r for r in replies.values() if r.verdict == ADMITTED), key=lambda reply: reply.term)
            self._admit(best.term, best.leader, "the leader took this node in", best.commit_index)
        elif refusals := _reasons(replies, REFUSED) or _reasons(replies, OTHER_CLUSTER):
            self._hinder(refusals[0])
        elif self._founds(replies):
            term = max((reply.term for reply in replies.values()), default=0)
            self._admit(term, node.id, "a new group begins")
        else:
            self._hinder(self._why_waiting(replies))
        if not node.admitted:
            await asyncio.sleep(ASK_SECONDS)

    def _founds(self, replies: Mapping[NodeId, AdmissionReply]) -> bool:
        """Whether a majority of the first voters is as empty as this one, and nobody answers who is not."""
        if not self._may_found or any(reply.verdict != EMPTY for reply in replies.values()):
            return False
        empty = 1 + sum(1 for founder in self._founders if founder != self._node.id and founder in replies)
        return empty >= quorum_size(len(self._founders))

    def _why_waiting(self, replies: Mapping[NodeId, AdmissionReply]) -> str:
        if not self._may_found:
            return "this node is to join a group, and no leader of it has answered yet"
        if any(reply.verdict != EMPTY for reply in replies.values()):
            return "this node has no data, and the group has no leader that could take it in"
        needed = quorum_size(len(self._founders))
        return (
            f"a new group begins once {needed} of {', '.join(sorted(self._founders))} run; "
            f"{1 + len(replies)} do so far"
        )

    def _admit(self, term: Term, vote: NodeId, why: str, commit_index: Index = 0) -> None:
        logger.info("takes part", group=self._node.group, why=why, term=term)
        self._node.hindrance = ""
        self._node.admit(term, vote, commit_index)

    # Taking part

    async def _keep_bound(self) -> None:
        """See that the configuration names this node's directory and address; ask for it where it does not."""
        node, request, loop = self._node, self._request, asyncio.get_running_loop()
        configuration, leader = node.core.configuration, node.core.state.leader
        now_s = loop.time()
        if leader != NOBODY:
            self._leader_seen_s = now_s
            is_bound = configuration.incarnation_of(node.id) == request.incarnation
            given = self._life_to_give(configuration) if leader == node.id else ""
            if is_bound and configuration.address_of(node.id) == request.address and not given:
                node.hindrance = ""
                await asyncio.sleep(CHECK_SECONDS)
                return
            if leader == node.id:
                await answer(node, request, known=node.versions.known, given=given)
                await asyncio.sleep(ASK_SECONDS)
                return
        elif now_s - self._leader_seen_s < LEADERLESS_SECONDS_MAX:
            await asyncio.sleep(ASK_SECONDS)
            return
        replies = await self._ask_all()
        refusals = _reasons(replies, REFUSED)
        if not refusals and node.core.state.leader == NOBODY:
            # Who has a leader need not care who else is about.
            refusals = _reasons(replies, OTHER_LIFE, OTHER_CLUSTER)
        if refusals:
            self._hinder(refusals[0])
        elif replies:
            node.hindrance = ""
        await asyncio.sleep(CHECK_SECONDS if refusals or leader == NOBODY else ASK_SECONDS)

    def _life_to_give(self, configuration: Configuration) -> str:
        """What this leader is to give its group for a life; empty where it has one, or a member could not read it."""
        others = (member for member in configuration.members if member != self._node.id)
        if configuration.life or not all(map(self._knows_lives, others)):
            return ""
        if is_life(self._node.life):
            return self._node.life
        return given_life(wall_us=self._wall_us, random=self._random)

    async def _note_life(self) -> None:
        """Have the life that is committed stand beside the log."""
        life = self._node.life
        if life == self._kept_life or not is_life(life):
            return
        try:
            await asyncio.to_thread(self._keep_life, life)
        except OSError as error:
            # The log has it; without the file, a restart begins without knowing it.
            logger.warning("the group's life was not noted", group=self._node.group, error=str(error))
        self._kept_life = life

    # Both

    async def _ask_all(self) -> dict[NodeId, AdmissionReply]:
        """Everybody's answer, by id; where several told of a leader elsewhere, its answer too."""
        node = self._node
        addresses = {**dict(node.core.configuration.addresses), **self._founders}
        addresses.pop(node.id, None)
        if self._hint and self._hint not in addresses.values():
            addresses[""] = self._hint
        found = await asyncio.gather(*(self._ask(address, self._request) for address in addresses.values()))
        replies = {id: reply for id, reply in zip(addresses, found, strict=True) if reply is not None}
        for reply in replies.values():
            self._hint = reply.address or self._hint
        return replies

    def _hinder(self, reason: str) -> None:
        if reason != self._node.hindrance:
            self._node.hindrance = reason
            logger.warning("takes no part", group=self._node.group, reason=reason)
