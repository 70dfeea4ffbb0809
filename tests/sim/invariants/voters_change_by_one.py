"""Consecutive configurations differ by at most one voter, so that their quorums always meet (thesis 4.1)."""

from raft.core.membership import decode_configuration
from raft.core.types import Configuration, Entry, EntryKind, Index
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class VotersChangeByOne(Observer):
    section = "thesis 4.1"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        if not any(entry.kind is EntryKind.CONFIGURATION for entry in entries):
            return
        log = node.core.log
        before = log.snapshot.configuration if log.snapshot.index else node.first_configuration
        whole = log.compacted_index == log.snapshot.index
        for entry in log._entries:
            if entry.kind is EntryKind.CONFIGURATION:
                after = decode_configuration(entry.data)
                if whole:
                    self._check(node, before, after)
                before, whole = after, True

    def _check(self, node: SimNode, before: Configuration, after: Configuration) -> None:
        if before.voters and len(set(before.voters) ^ set(after.voters)) > 1:
            self.fail(f"{node.id}: {before.voters} to {after.voters} in one change")
