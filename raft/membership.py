"""Changes of a group's members: asked at any node, carried out by the leader, one server at a time (thesis 4).

    change ──leading──> proposed ──committed──> done
       │ ^──────────── not leading any more, another change under way, no leader yet
       └──following──> put to the leader, whose answer it is

A change says how things shall be, not what to do: asking again for what is so already is answered as done. So
whoever did not hear an answer asks again, and a leader that died half-way is no special case.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from common.logs import get_logger
from raft.core import answering
from raft.core.errors import ConfigurationBusy, ConfigurationRefused, NotLeading
from raft.core.membership import changed, described
from raft.core.types import NOBODY, Configuration, Index, NodeId, Role, Term
from raft.errors import MembershipRefused, NoLeader, OutcomeUnknown, RaftError
from raft.handover import LeadingNode, hand_over
from raft.status import NodeConfig
from raft.versions import Versions

#: How long a change may take, the handover of a leader that is to be removed included.
CHANGE_SECONDS_MAX = 8.0
#: How long a leader may take to hand over before it removes itself while leading.
HANDOVER_SECONDS_MAX = 1.0
#: Pause between two looks whether a change is committed, or can be proposed by now.
POLL_SECONDS = 0.01

ADD = "add"
REMOVE = "remove"
#: The leader binds an id to a data directory, and notes where it is reached.
BIND = "bind"

logger = get_logger("raft.membership")


@dataclass(frozen=True, slots=True)
class MemberChange:
    """How the members shall be: `member` among them, reached at `address`; or not among them."""

    action: str
    member: NodeId
    #: `host:port` for clients; the peer port follows from it.
    address: str = ""
    #: Of `BIND` only.
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class MemberChangeReply:
    """What became of a change at the node that it was put to."""

    #: "done", "same" (it was so already), "refused", "elsewhere" (this node does not lead) or "unknown".
    outcome: str
    #: Why it was refused, in a sentence.
    reason: str = ""


class MemberTransport(Protocol):
    async def change_members(self, to: NodeId, change: MemberChange) -> MemberChangeReply:
        """Put a change to the leader. Raises ConnectionError or TimeoutError where no answer came."""


class ChangingNode(LeadingNode, Protocol):
    """The node whose group's members are changed."""

    id: NodeId
    group: str
    config: NodeConfig
    versions: Versions

    @property
    def closed(self) -> RaftError | None: ...

    def now_ms(self) -> int: ...

    def propose_configuration(self, configuration: Configuration) -> Index:
        """Raises as `RaftCore.propose_configuration`."""


class Membership:
    """What a `RaftNode` does about its group's members."""

    def __init__(self, node: ChangingNode, transport: MemberTransport) -> None:
        self._node = node
        self._transport = transport
        #: Why nothing can be changed here any more.
        self._ended: RaftError | None = None
        #: The bounds of the changes that were asked of this node and are under way, in the order of their coming.
        self._bounds: dict[asyncio.Timeout, None] = {}

    def fail_all(self, error: RaftError) -> None:
        """This node takes no further turn: no change that is under way waits any longer."""
        self._ended = error
        for bound in self._bounds:
            # One whose time is over has not left yet.
            if not bound.expired():
                bound.reschedule(self._time())

    async def change(self, change: MemberChange) -> bool:
        """Bring the change about, whoever leads. False where it was so already.

        Raises:
            MembershipRefused: it is not possible; the text says why.
            NoLeader: nobody led, so it is certainly not done.
            OutcomeUnknown: it may or may not have been done; asking again is safe.
            RaftError: this node has closed.
        """
        if self._node.closed is not None:
            raise self._node.closed
        #: Whether this request may have brought the change about.
        asked = False
        try:
            async with asyncio.timeout(CHANGE_SECONDS_MAX) as bound:
                self._bounds[bound] = None
                while True:
                    before, asked = asked, asked or self._node.core.state.leader != NOBODY
                    reply = await self._put(change)
                    if reply.outcome in ("done", "same"):
                        return reply.outcome == "done" or before
                    if reply.outcome == "refused" and before:
                        raise OutcomeUnknown(f"an earlier try may have been carried out; now: {reply.reason}")
                    if reply.outcome == "refused":
                        raise MembershipRefused(reply.reason)
                    asked = before or reply.outcome == "unknown"
                    await asyncio.sleep(5 * POLL_SECONDS)
        except TimeoutError:
            pass
        finally:
            self._bounds.pop(bound, None)
        if asked:
            raise OutcomeUnknown("no leader confirmed the change of members in time")
        raise self._ended or NoLeader("no leader is known that could change the members")

    async def change_here(
        self, change: MemberChange, give_up: float | None = None, *, life: str = "", known: int | None = None
    ) -> MemberChangeReply:
        """Carry the change out where this node leads.

        Args:
            life: what the group gets with it, where it has none.
            known: the version of the log that the member says it knows, where it has just said so.
        """
        node = self._node
        give_up = self._time() + CHANGE_SECONDS_MAX if give_up is None else give_up
        asked_ms = node.now_ms()
        handed_over = False
        while self._time() < give_up and self._ended is None:
            core = node.core
            if core.state.role is not Role.LEADER:
                return MemberChangeReply("elsewhere")
            try:
                wanted = _after(core.configuration, change, life, node.config.addresses)
                if change.action == BIND:
                    node.versions.check(change.member, known)
                if wanted == core.configuration:
                    # In the log is not enough: until it is committed it may still be undone.
                    committed = await self._committed(core.configurations.latest_index, None, give_up)
                    return MemberChangeReply("same" if committed else "unknown")
                if change.action == ADD:
                    node.versions.check(change.member)
                # Before it hands over, too: what is refused leaves everything as it is.
                answering.check_removal(core, wanted, after_ms=asked_ms)
                if change.action == REMOVE and change.member == node.id and not handed_over:
                    handed_over = True
                    await hand_over(node, HANDOVER_SECONDS_MAX)
                    continue
                index = node.propose_configuration(wanted)
            except ConfigurationBusy:
                await asyncio.sleep(POLL_SECONDS)
                continue
            except ConfigurationRefused as refusal:
                return MemberChangeReply("refused", str(refusal))
            except NotLeading:
                return MemberChangeReply("elsewhere")
            logger.info("members change", group=node.group, action=change.action, member=change.member)
            committed = await self._committed(index, core.state.term, give_up)
            return MemberChangeReply("done" if committed else "unknown")
        return MemberChangeReply("unknown")

    async def _put(self, change: MemberChange) -> MemberChangeReply:
        node = self._node
        leader = node.core.state.leader
        if leader == node.id:
            return await self.change_here(change)
        if leader == NOBODY:
            return MemberChangeReply("elsewhere")
        try:
            return await self._transport.change_members(leader, change)
        except (ConnectionError, TimeoutError):
            return MemberChangeReply("unknown")

    async def _committed(self, index: Index, term: Term | None, give_up: float) -> bool:
        """Wait until the entry at `index`, of `term` where given, is committed. False where it may never be."""
        core = self._node.core
        while core.log.commit_index < index:
            if self._time() > give_up or self._ended is not None or (term is not None and core.state.term != term):
                return False
            await asyncio.sleep(POLL_SECONDS)
        return term is None or core.log.term_at(index) in (term, None)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()


def _after(
    current: Configuration, change: MemberChange, life: str, addresses: Mapping[NodeId, str]
) -> Configuration:
    """The configuration as the change wants it. `addresses`: where the settings say that nodes are reached.

    Raises:
        ConfigurationRefused: it cannot be so.
    """
    is_member = change.member in current.members
    if change.action == REMOVE:
        return changed(current, remove=change.member) if is_member else current
    if change.action == ADD:
        _check_address(current, change, addresses)
        grown = current if is_member else changed(current, add=change.member)
        return described(grown, change.member, address=change.address)
    assert change.action == BIND
    if not is_member:
        raise ConfigurationRefused(f"{change.member} is no member")
    return described(
        current, change.member, address=change.address, incarnation=change.incarnation, life=life
    )


def _check_address(current: Configuration, change: MemberChange, addresses: Mapping[NodeId, str]) -> None:
    """A member to be added is where it is known to be, or anywhere where nobody else is.

    Raises:
        ConfigurationRefused: it is known elsewhere, or another member is there.
    """
    known = {member: current.address_of(member) or addresses.get(member, "") for member in current.members}
    member, address = change.member, change.address
    here = known.pop(member, "")
    if here == address:
        return
    if here:
        # The node would put its own address back, and where settings name one, that one is used.
        raise ConfigurationRefused(
            f"the group knows {member} at {here}, and a member's address is what its own settings say. If it has "
            f"moved, restart it with a MUFAKAT_CLUSTER that names its new address, and the nodes whose "
            f"MUFAKAT_CLUSTER names the old one. To put another machine in its place, remove {member} first "
            f"(`mufakat member remove {member}`), then add it"
        )
    for other, place in known.items():
        if place == address:
            raise ConfigurationRefused(
                f"the address {address} is that of {other}, which is a member already. Name another address for "
                f"{member}, or remove {other} first"
            )
