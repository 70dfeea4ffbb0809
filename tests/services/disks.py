"""Data directories of groups that have lived, as their nodes leave them."""

from pathlib import Path

from raft.core.membership import encode_configuration
from raft.core.ready import Persist
from raft.core.types import Configuration, Entry, EntryKind, HardState, SnapshotMeta
from raft.state_machine import ApplyContext
from raft.storage import open_storage
from raft.storage.incarnation import take_incarnation
from services.catalogue import SERVICES
from services.replicated.envelope import encode_command, fingerprint
from services.replicated.machine import ReplicatedMachine
from tests.services.test_replicated_snapshots import LIVES

TERM = 7
LIFE = "g0006449c1d2e3f-9c0d1e77a1b2"
MEMBERS = Configuration(
    ("node1", "node2", "node3"), addresses=(("node1", "127.0.0.1:8001"), ("node2", "127.0.0.1:8002")), life=LIFE
)


def entries_of(group: str, members: Configuration | None = MEMBERS) -> list[Entry]:
    """The log of a life, from index 1: the members, then its commands, then a no-op and an advance of the clock."""
    life = LIVES[group][0]()
    kinds = [(life[0][0], EntryKind.CONFIGURATION, encode_configuration(members))] if members is not None else []
    for time_ms, command, key in life:
        data = encode_command(command, idempotency_key=key, fingerprint=fingerprint(command) if key else None)
        kinds.append((time_ms, EntryKind.COMMAND, data))
    last_ms = life[-1][0]
    kinds += [(last_ms, EntryKind.NOOP, b""), (last_ms + 9_000, EntryKind.ADVANCE, b"")]
    return [Entry(number, TERM, *kind) for number, kind in enumerate(kinds, start=1)]


def applied(group: str, entries: list[Entry]) -> ReplicatedMachine:
    """What a machine is after these entries, without anything of ours in between."""
    machine = ReplicatedMachine(SERVICES[group].machine)
    for entry in entries:
        context = ApplyContext(entry.index, entry.time_ms)
        if entry.kind is EntryKind.COMMAND:
            machine.apply(context, entry.data)
        else:
            machine.advance(context)
    return machine


def write_disk(directory: Path, group: str, *, snapshot_at: int = 0, members: Configuration | None = MEMBERS) -> None:
    """The directory of a node that has lived, with a snapshot after so many entries and the rest behind it."""
    entries = entries_of(group, members)
    storage, recovered = open_storage(directory)
    take_incarnation(directory, fresh=recovered.fresh)
    storage.write([Persist(HardState(TERM, "node2"), tuple(entries))])
    if snapshot_at:
        entry = entries[snapshot_at - 1]
        meta = SnapshotMeta(snapshot_at, entry.term, entry.time_ms, members or Configuration())
        storage.save_snapshot(meta, applied(group, entries[:snapshot_at]).snapshot())
        storage.mark_snapshot(meta)
    storage.close()
