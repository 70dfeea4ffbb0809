"""A durable snapshot is never replaced by an older one (known bug 41)."""

from raft.core.types import SnapshotMeta
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class SnapshotNeverOlder(Observer):
    section = "paper 7, known bugs 41 and 51"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._newest: dict[str, int] = {}

    def on_snapshot(
        self, node: SimNode, meta: SnapshotMeta, data: tuple[bytes, ...], installed: bool
    ) -> None:
        if meta.index < self._newest.get(node.id, 0):
            self.fail(f"{node.id} went back from snapshot {self._newest[node.id]} to {meta.index}")
        self._newest[node.id] = meta.index

    def on_start(self, node: SimNode) -> None:
        snapshot = node.disk.snapshot
        if (snapshot.index if snapshot else 0) < self._newest.get(node.id, 0):
            self.fail(f"{node.id} restarted without its snapshot at {self._newest[node.id]}")
