"""Beginning a group anew from a backup: writes the data directories of nodes that do not run.

Every node of the new group is given the same snapshot as the beginning of its log, and the same members. The rule:
nothing is written before the whole backup was checked and loaded by today's machine, and never over anything.

Numbers that clients were given after the backup was taken (fencing tokens, message ids, receipts, versions) must
not be given to others a second time: the restored group begins `NUMBERS_SKIPPED` further on.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raft.core.ready import Persist
from raft.core.types import Configuration, HardState, SnapshotMeta
from raft.storage import CorruptSnapshot, open_storage
from raft.storage.backup import Backup, backup_chunks, verify_backup
from services.envelope import ReplicatedMachine
from services.roles import ROLES

#: More than a group gives between two backups; the log's index is moved by as much, and with it the versions.
NUMBERS_SKIPPED = 1_000_000_000
#: Ends the name of a directory that is being written.
DRAFT_SUFFIX = ".restoring"


@dataclass(frozen=True, slots=True)
class RestorableGroup:
    """A backup, checked, loaded and made ready to be written for any number of nodes."""

    backup: Backup
    chunks: tuple[bytes, ...]


def load_backup(path: Path) -> RestorableGroup:
    """Check a backup file and load it as a node would.

    Raises:
        CorruptSnapshot: it is damaged, or holds what no version up to this one wrote.
        UnknownFormat: a newer version wrote it.
        OSError: it cannot be read.
    """
    backup = verify_backup(path)
    role = ROLES.get(backup.head.group)
    if role is None:
        raise CorruptSnapshot(str(path), 0, f"it is of the group {backup.head.group!r}, which there is not")
    machine = ReplicatedMachine(role.machine)
    try:
        machine.restore(backup_chunks(path))
    except (ValueError, TypeError, KeyError, IndexError, StopIteration) as error:
        raise CorruptSnapshot(str(path), 0, f"its content cannot be loaded: {error!r}") from error
    machine.inner.skip_numbers(NUMBERS_SKIPPED)
    return RestorableGroup(backup, tuple(machine.snapshot()))


def is_empty(directory: Path) -> bool:
    """Whether a group's data directory holds nothing: it is not there, or nothing was ever written to it."""
    return not directory.exists() or not any(name != "LOCK" for name in os.listdir(directory))


def write_group(group: RestorableGroup, directory: Path, *, voters: Sequence[str]) -> SnapshotMeta:
    """Write one node's data directory, complete or not at all; returns where its log begins.

    Raises:
        FileExistsError: the directory is not empty.
        DiskFull, OSError: it cannot be written.
    """
    if not is_empty(directory):
        raise FileExistsError(f"{directory} is not empty")
    taken = group.backup.meta
    meta = replace(
        taken, index=taken.index + NUMBERS_SKIPPED, configuration=Configuration(tuple(sorted(voters)))
    )
    draft = directory.with_name(directory.name + DRAFT_SUFFIX)
    shutil.rmtree(draft, ignore_errors=True)
    storage, _ = open_storage(draft)
    try:
        storage.save_snapshot(meta, group.chunks)
        storage.write([Persist(HardState(meta.term), (), meta)])
    finally:
        storage.close()
    if directory.exists():
        shutil.rmtree(directory)
    os.rename(draft, directory)
    descriptor = os.open(directory.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return meta
