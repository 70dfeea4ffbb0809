"""A leader's first entry of its term is an empty one (paper 8)."""

from raft.core.types import EntryKind, Role, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class FirstEntryIsNoop(Observer):
    section = "paper 8, known bug 39"

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        core = node.core
        if core.state.role is not Role.LEADER:
            return
        entry = core.log.entry(core.term_start_index)
        if entry.kind is not EntryKind.NOOP or entry.term != core.state.term:
            self.fail(f"{node.id} began term {core.state.term} with {entry}")
