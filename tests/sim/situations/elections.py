"""Rare situations around terms, votes and leaders."""

from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.core.types import Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer

_NAMES = {
    (Role.FOLLOWER, Role.CANDIDATE): "campaign without a pre-vote",
    (Role.CANDIDATE, Role.PRE_CANDIDATE): "campaign timed out",
    (Role.PRE_CANDIDATE, Role.FOLLOWER): "pre-vote lost or overtaken",
    (Role.CANDIDATE, Role.FOLLOWER): "campaign lost or overtaken",
    (Role.LEADER, Role.FOLLOWER): "leader stepped down",
}


class Elections(Observer):
    section = "situations"

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        core, cover = node.core, self.world.cover
        state = core.state
        name = _NAMES.get((role, state.role))
        if name:
            cover[name] += 1
        if role is Role.LEADER and state.role is not Role.LEADER:
            self._stepped_down(node, term)
        if state.role is Role.LEADER:
            self._elected(node)

    def _stepped_down(self, node: SimNode, term: Term) -> None:
        core, cover = node.core, self.world.cover
        if core.state.term == term:
            cover["leader stepped down within its term"] += 1
            if core.oldest_persist_ms is not None:
                cover["leader stepped down while its disk owed an answer"] += 1
        if core.log.last_index > core.log.commit_index:
            cover["leader stepped down with uncommitted entries"] += 1

    def _elected(self, node: SimNode) -> None:
        core, cover, world = node.core, self.world.cover, self.world
        cover["leader elected"] += 1
        if len(core.configuration.voters) == 1:
            cover["single voter elected itself"] += 1
        if core.uncommitted_bytes:
            cover["leader inherited uncommitted entries"] += 1
        if core.configurations.latest_index > core.log.commit_index:
            cover["leader inherited an uncommitted configuration"] += 1
        if not core.is_voter:
            cover["leader elected that its own log removes"] += 1
        if any(other.core and other.core.config.pre_vote != core.config.pre_vote for other in world.nodes.values()):
            cover["leader elected beside nodes with the other pre-vote setting"] += 1
        rivals = [other for other in world.leaders() if other is not node]
        if rivals:
            cover["two leaders of different terms at once"] += 1
        if node.life > 1:
            cover["restarted node elected"] += 1

    def on_receive(self, node: SimNode, message: Message) -> None:
        kind, state, cover = type(message), node.core.state, self.world.cover
        if kind is AppendEntries:
            if message.term < state.term:
                cover["message of a deposed leader"] += 1
            elif state.role is Role.CANDIDATE and message.term == state.term:
                cover["candidate met the leader of its term"] += 1
        elif kind is AppendEntriesReply:
            if message.term < state.term:
                cover["append reply of an earlier term"] += 1
            elif message.term > state.term and state.role is Role.LEADER:
                cover["leader learned a higher term from a reply"] += 1
        elif kind is RequestVote:
            if message.transfer:
                cover["vote asked for in a leadership transfer"] += 1
            if not message.pre_vote and message.term == state.term and state.vote == message.sender:
                cover["vote asked for twice"] += 1
            if not message.pre_vote and state.role is Role.LEADER and message.term > state.term:
                cover["vote of a higher term asked of a leader"] += 1
        elif kind is RequestVoteReply:
            if not message.pre_vote and state.role is Role.LEADER:
                cover["vote arrived after the election was won"] += 1
            elif message.sequence < node.core.election.round_sequence:
                cover["vote of an earlier round"] += 1
        elif kind is TimeoutNow and state.role is not Role.FOLLOWER:
            cover["transfer reached a node that was campaigning"] += 1

    def on_sent(self, node: SimNode, message: Message) -> None:
        if type(message) is RequestVoteReply and not message.granted and not message.pre_vote:
            self.world.cover["vote refused"] += 1
        elif type(message) is TimeoutNow:
            self.world.cover["successor was told to campaign"] += 1
