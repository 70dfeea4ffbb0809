"""A node's commit index never falls while it runs."""

from raft.core.types import Index
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class CommitMonotone(Observer):
    section = "paper Figure 2 (commitIndex)"

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        if after < before:
            self.fail(f"{node.id} fell from commit {before} to {after}")
