"""Only a voter campaigns; a server that its latest configuration leaves out may campaign until it knows that this
configuration is committed (thesis 4.2.1, 4.2.2)."""

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
        settled = [position for position, (since, _) in enumerate(history) if since <= core.log.commit_index]
        possible = history[settled[-1] if settled else 0 :]
        if not any(node.id in configuration.voters for _, configuration in possible):
            self.fail(f"{node.id} campaigns and is no voter of {core.configuration}")
