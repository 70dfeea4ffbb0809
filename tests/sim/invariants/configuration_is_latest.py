"""A node uses the latest configuration in its log, committed or not, or its snapshot's (thesis 4.1)."""

from raft.core.membership import decode_configuration
from raft.core.types import Configuration, Entry, EntryKind, Index
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class ConfigurationIsLatest(Observer):
    section = "thesis 4.1, known bug 82"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        core = node.core
        if not replaced and not any(entry.kind is EntryKind.CONFIGURATION for entry in entries):
            return
        expected = self._expected(node)
        if core.configuration != expected:
            self.fail(f"{node.id} uses {core.configuration}, its log says {expected}")

    def _expected(self, node: SimNode) -> Configuration:
        log = node.core.log
        for entry in reversed(log._entries):
            if entry.kind is EntryKind.CONFIGURATION:
                return decode_configuration(entry.data)
        if log.snapshot.index:
            return log.snapshot.configuration
        return node.first_configuration
