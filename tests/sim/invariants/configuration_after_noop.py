"""A leader appends a configuration only after it has committed an entry of its own term: the fix of the
single-server bug of 2015."""

from raft.core.types import Entry, EntryKind, Index, Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class ConfigurationAfterNoop(Observer):
    section = "thesis 4.1, known bug 82"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        core = node.core
        if core.state.role is not Role.LEADER or core.log.commit_index >= core.term_start_index:
            return
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION and entry.term == core.state.term:
                self.fail(f"{node.id} appended configuration {entry.index} before its no-op was committed")
