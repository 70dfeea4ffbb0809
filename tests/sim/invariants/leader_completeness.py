"""An entry that was committed in a term is in the log of every later term's leader (Figure 3, Leader Completeness).

This is about the term in which it was committed, not the entry's own. A candidate may win late, when a leader of a
later term has already committed. It may lack what that leader committed, and can commit nothing itself (seed 4244).
"""

from raft.core.types import Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer

#: Of the committed entries, so many are looked for.
RECENT = 40


class LeaderCompleteness(Observer):
    section = "paper 5.4"

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        core, truth = node.core, self.world.truth
        if core.state.role is not Role.LEADER:
            return
        recent = zip(truth.entries[-RECENT:], truth.commit_terms[-RECENT:], strict=True)
        for entry, commit_term in reversed(tuple(recent)):
            if commit_term >= core.state.term:
                continue
            if entry.index <= core.log.compacted_index:
                return
            if core.log.term_at(entry.index) != entry.term:
                self.fail(f"{node.id} leads term {core.state.term} without committed {entry.index}")
