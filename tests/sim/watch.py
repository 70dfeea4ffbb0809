"""Finds what changed at one node since the last look, and tells the observers only that.

The shadow of a log holds the same `Entry` objects as the log at the last look. It finds the longest common prefix by
identity from the end, so the cost is that of the news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core.raft import RaftCore
from raft.core.types import Entry, Role

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.world import World


class Watch:
    """One node's last look."""

    __slots__ = ("_base", "_node", "_shadow", "_world", "commit_index", "role", "term")

    def __init__(self, world: World, node: SimNode) -> None:
        self._world = world
        self._node = node
        self._base = 0
        self._shadow: list[Entry] = []
        self.role = Role.FOLLOWER
        self.term = 0
        self.commit_index = 0

    def on_start(self, core: RaftCore) -> None:
        node, observers = self._node, self._world.observers
        self.role, self.term = core.state.role, core.state.term
        self.commit_index = core.log.commit_index
        self._base, self._shadow = core.log.compacted_index, list(core.log._entries)
        for hook in observers.on_start:
            hook(node)
        if self._shadow:
            for hook in observers.on_log:
                hook(node, self._base + 1, self._shadow, 0)

    def on_state(self, core: RaftCore) -> None:
        """The node ran to completion."""
        node, observers, log = self._node, self._world.observers, core.log
        entries = log._entries
        shadow = self._shadow
        if (
            len(entries) + log.compacted_index != len(shadow) + self._base
            or log.compacted_index != self._base
            or (entries and entries[-1] is not shadow[-1])
        ):
            self._look_at_log(core)
        if log.commit_index != self.commit_index:
            before, self.commit_index = self.commit_index, log.commit_index
            for hook in observers.on_commit:
                hook(node, before, log.commit_index)
        state = core.state
        if state.role is not self.role or state.term != self.term:
            role, term = self.role, self.term
            self.role, self.term = state.role, state.term
            self._world.log("role", node.id, state.role.name, state.term)
            for hook in observers.on_role:
                hook(node, role, term)
        for hook in observers.on_state:
            hook(node)

    def _look_at_log(self, core: RaftCore) -> None:
        log, shadow = core.log, self._shadow
        entries, base = log._entries, log.compacted_index
        if base > self._base:
            del shadow[: base - self._base]
            self._base = base
        same = min(len(shadow), len(entries))
        while same and shadow[same - 1] is not entries[same - 1]:
            same -= 1
        replaced = len(shadow) - same
        del shadow[same:]
        fresh = entries[same:]
        shadow.extend(fresh)
        if fresh or replaced:
            for hook in self._world.observers.on_log:
                hook(self._node, base + same + 1, fresh, replaced)
