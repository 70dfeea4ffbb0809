"""Rare situations around logs, snapshots and configurations."""

from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
)
from raft.core.progress import ProgressState
from raft.core.types import Entry, EntryKind, Index, Role, SnapshotMeta
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class Logs(Observer):
    section = "situations"

    def on_receive(self, node: SimNode, message: Message) -> None:
        kind = type(message)
        if kind is AppendEntries:
            self._append(node, message)
        elif kind is AppendEntriesReply:
            if not message.success and node.core.state.role is Role.LEADER:
                self._refusal(node, message)
        elif kind is InstallSnapshot:
            self._install(node, message)
        elif kind is InstallSnapshotReply and node.core.state.role is not Role.LEADER:
            self.world.cover["snapshot reply reached a node that leads no longer"] += 1

    def _append(self, node: SimNode, message: AppendEntries) -> None:
        log, cover = node.core.log, self.world.cover
        if message.entries:
            if message.prev_log_index < log.compacted_index:
                cover["append that reaches behind the compaction point"] += 1
            if message.prev_log_index + len(message.entries) <= log.commit_index:
                cover["append of entries that are committed already"] += 1
            elif message.prev_log_index + len(message.entries) < log.last_index:
                cover["append that ends before the own log"] += 1
        if message.leader_commit > message.prev_log_index + len(message.entries):
            cover["commit index beyond what the message proves"] += 1

    def _refusal(self, node: SimNode, message: AppendEntriesReply) -> None:
        progress = node.core.progress.get(message.sender)
        if progress is None or message.term != node.core.state.term:
            return
        cover = self.world.cover
        cover["append refused"] += 1
        if message.rejected_index <= progress.match_index:
            cover["stale refusal"] += 1
        if message.rejected_index - message.hint_index > 1:
            cover["refusal skipped several entries"] += 1
        if progress.state is ProgressState.SNAPSHOT:
            cover["refusal while a snapshot was under way"] += 1

    def _install(self, node: SimNode, message: InstallSnapshot) -> None:
        log, cover, meta = node.core.log, self.world.cover, message.snapshot
        if message.term < node.core.state.term:
            return
        if meta.index <= log.commit_index:
            cover["snapshot older than what is committed"] += 1
            return
        own = log.term_at(meta.index)
        if own is None:
            cover["snapshot beyond the own log"] += 1
        elif own == meta.term:
            cover["snapshot whose last entry is in the log"] += 1
        else:
            cover["snapshot over a conflicting suffix"] += 1
        if log.durable_index < log.submitted_index:
            cover["snapshot arrived while entries were written"] += 1

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        cover, log = self.world.cover, node.core.log
        if replaced:
            cover["conflicting entries replaced"] += 1
            if replaced > 10:
                cover["more than ten entries replaced at once"] += 1
            earlier = [write.persist for write in node.disk.queue if write.persist][:-1]
            if any(persist.entries and persist.entries[-1].index >= first for persist in earlier):
                cover["entries replaced while they were written"] += 1
        changes = any(entry.kind is EntryKind.CONFIGURATION for entry in entries)
        if replaced and not changes and node.core.configurations.latest_index < first:
            cover["log replaced behind the configuration"] += 1
        if log.compacted_index and log.compacted_index == log.last_index:
            cover["log compacted to its end"] += 1

    def on_snapshot(
        self, node: SimNode, meta: SnapshotMeta, data: tuple[bytes, ...], installed: bool
    ) -> None:
        cover = self.world.cover
        if installed:
            cover["leader's snapshot installed"] += 1
            if node.core.log.last_index > meta.index:
                cover["entries followed an installed snapshot before it was durable"] += 1
        else:
            cover["own snapshot taken"] += 1
            if meta.configuration != self.world.first_configuration:
                cover["snapshot with a changed configuration"] += 1
            if node.core.configurations.latest_index > meta.index:
                cover["snapshot taken while a configuration was under way"] += 1

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        core, cover = node.core, self.world.cover
        if after > core.log.durable_index:
            cover["commit ahead of the own disk"] += 1
            if core.state.role is Role.LEADER:
                cover["leader committed ahead of its own disk"] += 1
        if core.state.role is Role.LEADER and before < core.term_start_index <= after:
            if before + 1 < core.term_start_index:
                cover["entries of earlier terms committed by a no-op"] += 1
            if self.world.nodes[node.id].life > 1:
                cover["restarted leader committed its no-op"] += 1
