"""A leader never overwrites or deletes entries in its log (Figure 3, Leader Append-Only)."""

from raft.core.types import Entry, Index, Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LeaderAppendOnly(Observer):
    section = "paper 5.3"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        state, watch = node.core.state, node.watch
        led_all_along = watch.role is Role.LEADER and state.role is Role.LEADER and watch.term == state.term
        if replaced and led_all_along:
            self.fail(f"{node.id} replaced {replaced} entries from {first} while it led")
