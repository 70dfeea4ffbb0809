"""The meta of a snapshot has a committed entry's index, term and time, and the configuration there (paper 7)."""

from raft.core.membership import decode_configuration
from raft.core.types import Configuration, EntryKind, SnapshotMeta
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class SnapshotTruthful(Observer):
    section = "paper 7, thesis 5; known bug 46"

    def __init__(self, world) -> None:
        super().__init__(world)
        #: (index, configuration) of committed changes, and up to where they were looked for.
        self._changes: list[tuple[int, Configuration]] = []
        self._looked = 0

    def on_snapshot(
        self, node: SimNode, meta: SnapshotMeta, data: tuple[bytes, ...], installed: bool
    ) -> None:
        known = self.world.truth.entries
        if meta.index > len(known):
            self.fail(f"{node.id} has a snapshot at {meta.index}, committed is {len(known)}")
        entry = known[meta.index - 1]
        if (entry.term, entry.time_ms) != (meta.term, meta.time_ms):
            self.fail(f"{node.id} labels its snapshot {meta}, the entry is {entry}")
        expected = self._configuration_at(meta.index)
        if meta.configuration != expected:
            self.fail(f"{node.id}'s snapshot at {meta.index} carries {meta.configuration}, not {expected}")

    def _configuration_at(self, index: int) -> Configuration:
        known = self.world.truth.entries
        for entry in known[self._looked :]:
            if entry.kind is EntryKind.CONFIGURATION:
                self._changes.append((entry.index, decode_configuration(entry.data)))
        self._looked = len(known)
        for since, configuration in reversed(self._changes):
            if since <= index:
                return configuration
        return self.world.first_configuration
