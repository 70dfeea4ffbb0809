"""The half of a simulated driver that faces the machine: applying, and snapshots taken and installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raft.core import snapshotting
from raft.core.raft import RaftCore
from raft.core.types import Entry, EntryKind, Index, SnapshotMeta
from raft.state_machine import ApplyContext
from tests.sim.disk import SimDisk
from tests.sim.service import Service

if TYPE_CHECKING:
    from tests.sim.world import World


class Replica:
    """A machine, how far it has applied, and the snapshot being written of it."""

    id: str
    frozen: bool

    def __init__(self, world: World) -> None:
        self.world = world
        self.disk = SimDisk()
        #: Counts starts: what an earlier life scheduled is void.
        self.life = 0
        self.core: RaftCore | None = None
        self.service: Service = world.new_service()
        #: Applied entries of this life: index -> (term, answer).
        self.applied: dict[Index, tuple[int, Any]] = {}
        self.applied_index: Index = 0
        self.applied_time_ms = 0
        self.snapshot_job: SnapshotMeta | None = None

    def finish_step(self) -> None:
        raise NotImplementedError

    def begin_life(self, snapshot: SnapshotMeta | None, data: tuple[bytes, ...]) -> None:
        """The machine as the newest snapshot on disk has it."""
        self.snapshot_job = None
        self.service = self.world.new_service()
        self.applied = {}
        self.applied_index = self.applied_time_ms = 0
        if snapshot is not None:
            self._restore(snapshot, data)

    def _restore(self, meta: SnapshotMeta, data: tuple[bytes, ...]) -> None:
        self.service = self.world.new_service()
        self.service.restore(data)
        self.world.on_snapshot_data(self, meta, self.service.snapshot())
        self.applied = {}
        self.applied_index, self.applied_time_ms = meta.index, meta.time_ms

    def apply(self, entries: tuple[Entry, ...]) -> None:
        world, every = self.world, self.world.plan.snapshot_every
        for entry in entries:
            answer = self._apply_one(entry)
            for hook in world.observers.on_applied:
                hook(self, entry, answer)
            if every and entry.index % every == 0:
                self._begin_snapshot(entry)
        self.core.applied(entries[-1].index)
        self.world.on_applied(self, entries)

    def _apply_one(self, entry: Entry) -> Any:
        assert entry.index == self.applied_index + 1, "entries are applied in order, each once"
        context = ApplyContext(index=entry.index, time_ms=entry.time_ms)
        answer = None
        if entry.kind is EntryKind.COMMAND:
            answer = self.service.apply(context, entry.data)
        elif entry.kind is EntryKind.ADVANCE:
            self.service.advance(context)
        answer = (answer, context.events)
        self.applied_index, self.applied_time_ms = entry.index, entry.time_ms
        self.applied[entry.index] = (entry.term, answer)
        return answer

    def _begin_snapshot(self, entry: Entry) -> None:
        core = self.core
        if self.snapshot_job is not None:
            self.world.cover["snapshot skipped: one under way"] += 1
            return
        if not snapshotting.may_take(core, entry.index):
            self.world.cover["snapshot refused: no configuration known yet"] += 1
            return
        meta = snapshotting.meta_at(core, entry.index, entry.time_ms)
        self.snapshot_job = meta
        data = self.service.snapshot()
        self.world.on_snapshot_data(self, meta, data)
        self.world.after(self.world.plan.snapshot_write_us, self._on_snapshot_written, self.life, meta, data)

    def _on_snapshot_written(self, life: int, meta: SnapshotMeta, data: tuple[bytes, ...]) -> None:
        core, disk, world = self.core, self.disk, self.world
        if life != self.life or core is None:
            world.cover["crash while a snapshot was written"] += 1
            return
        if disk.snapshot is not None and disk.snapshot.index >= meta.index:
            world.cover["own snapshot overtaken by the leader's"] += 1
            self.snapshot_job = None
            return
        if self.frozen or disk.full or disk.hung or disk.term_at(meta.index) != meta.term:
            # The mark of a snapshot goes through the same ordered log, behind the entries that it covers.
            world.cover["snapshot ready before its entries were durable"] += 1
            world.after(2_000, self._on_snapshot_written, life, meta, data)
            return
        self.snapshot_job = None
        if core.log.snapshot.index >= meta.index:
            # A leader's newer one is in the disk queue.
            world.cover["own snapshot overtaken by the leader's"] += 1
            return
        disk.store_snapshot(meta, data)
        core.snapshot_taken(meta, meta.index - world.plan.retain + 1)
        disk.compact(min(core.log.compacted_index, meta.index))
        for hook in world.observers.on_snapshot:
            hook(self, meta, data, False)
        self.finish_step()

    def install(self, meta: SnapshotMeta, data: tuple[bytes, ...]) -> None:
        """A leader's snapshot takes the machine's place."""
        self.world.log("install", self.id, meta.index)
        self._restore(meta, data)
        self.core.applied(meta.index)
