"""A leader's count of uncommitted bytes is right: the bound of its tail needs it (known bug 35). The simulated driver
checks the bound itself when it proposes."""

from raft.core.types import Entry, Index, Role
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
