"""A follower commits nothing that the leader's own log has not proven equal: its commit never passes the highest
commit index that any leader has sent (known bugs 24, 25)."""

from raft.core.messages import AppendEntries, InstallSnapshot, Message
from raft.core.types import Index, Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class FollowerCommitVerified(Observer):
    section = "paper Figure 2 (AppendEntries, step 5); known bugs 24 and 25"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._told: dict[str, Index] = {}

    def on_receive(self, node: SimNode, message: Message) -> None:
        if type(message) is AppendEntries:
            self._told[node.id] = max(self._told.get(node.id, 0), message.leader_commit)
        elif type(message) is InstallSnapshot:
            self._told[node.id] = max(self._told.get(node.id, 0), message.snapshot.index)

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        core = node.core
        if core.state.role is Role.LEADER or node.watch.role is Role.LEADER:
            return
        if after > max(self._told.get(node.id, 0), core.log.snapshot.index):
            self.fail(f"{node.id} committed {after}, which no leader told it")
