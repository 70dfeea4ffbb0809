"""A leader's log holds at most one configuration after its commit index (thesis 4.1)."""

from raft.core.types import Entry, EntryKind, Index, Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class OneUncommittedConfiguration(Observer):
    section = "thesis 4.1, known bug 82"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        core = node.core
        if core.state.role is not Role.LEADER:
            return
        if not any(entry.kind is EntryKind.CONFIGURATION for entry in entries):
            return
        # The commit index as it was before this step: a change may be committed and the next appended in one.
        tail = range(max(core.log.commit_index, core.log.compacted_index) + 1, core.log.last_index + 1)
        changes = [index for index in tail if core.log.entry(index).kind is EntryKind.CONFIGURATION]
        if len(changes) > 1:
            self.fail(f"{node.id} has uncommitted configurations at {changes}")
