"""Only a voter campaigns; one that its latest configuration leaves out may until it knows that committed
(thesis 4.2.1, 4.2.2)."""

from raft.core.types import Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class OnlyVotersCampaign(Observer):
    section = "thesis 4.2, known bug 14"

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        core = node.core
        if core.state.role not in (Role.CANDIDATE, Role.PRE_CANDIDATE) or core.is_voter:
            return
        history = core.configurations._history
        known = [one for since, one in history if since <= core.log.commit_index]
        if node.id not in (known or [history[0][1]])[-1].voters:
            self.fail(f"{node.id} campaigns and is no voter of {core.configuration}")
