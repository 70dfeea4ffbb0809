"""Cluster time never falls from one entry to the next."""

from raft.core.types import Entry, Index
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class ClusterTimeMonotone(Observer):
    section = "design: time; known bug 77"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        log = node.core.log
        if first - 1 > log.compacted_index:
            time_ms = log.entry(first - 1).time_ms
        else:
            time_ms = log.snapshot.time_ms if log.snapshot.index == first - 1 else 0
        for entry in entries:
            if entry.time_ms < time_ms:
                self.fail(f"{node.id}: time falls from {time_ms} to {entry.time_ms} at {entry.index}")
            time_ms = entry.time_ms
