"""Without a quorum a leader's tail stays within its bound, and its count of bytes is right (known bug 35)."""

from raft.core.types import Entry, Index, Role
from tests.sim.clients import BURST_MAX
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class UncommittedTailBounded(Observer):
    section = "known bug 35"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        self._check(node)

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        self._check(node)

    def _check(self, node: SimNode) -> None:
        core = node.core
        if core.state.role is not Role.LEADER:
            return
        log = core.log
        tail = log._entries[log.commit_index - log.compacted_index :]
        size = sum([len(entry.data) for entry in tail])
        if size != core.uncommitted_bytes:
            self.fail(f"{node.id} counts {core.uncommitted_bytes} uncommitted bytes, there are {size}")
        # A batch is taken whole where nothing is uncommitted; an earlier leader's tail counts as well.
        batch = BURST_MAX * (self.world.plan.value_bytes + 100)
        inherited = sum([len(entry.data) for entry in tail if entry.term < core.state.term])
        if size > max(core.config.uncommitted_bytes_max, batch) + inherited:
            self.fail(f"{node.id} holds {size} uncommitted bytes")
