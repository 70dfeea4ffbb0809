"""A leader holds the durable votes of a quorum in its term: election safety on disk, not in memory."""

from raft.core.quorum import quorum_size
from raft.core.types import Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LeaderWonDurableVotes(Observer):
    section = "paper 5.2, known bug 16"

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        core = node.core
        state = core.state
        if state.role is not Role.LEADER or role is Role.LEADER:
            return
        votes = 0
        for voter in core.configuration.voters:
            hard_state = self.world.nodes[voter].disk.hard_state
            # A voter that has moved on may have voted here before; its later term shows nothing against it.
            if hard_state.term > state.term or (hard_state.term == state.term and hard_state.vote == node.id):
                votes += 1
        if votes < quorum_size(len(core.configuration.voters)):
            self.fail(f"{node.id} leads term {state.term} with {votes} durable votes")
