"""A group of one made out of one disk: the way out where a majority of the disks is lost for good.

    lock                        lock.recovered-TIME (never deleted)
      └─ read, written anew as lock.recovering ─ the old one put aside ─ the new one published as lock

What the disk holds becomes the beginning of a new life (`raft.life`), as a backup does, with one voter; the group's
other disks are of the former one and are refused from then on. Numbers leap as they do in a restore
(`services.restore`), from the moment at which the disk was written to for the last time: the others may have given
more since. The rule: until the old directory is put aside everything is as it was, and from then on `finish_recovery`
puts the new one in its place, whatever came between.
"""

import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from raft.core.types import Configuration, NodeId, SnapshotMeta
from raft.life import is_restored, restored_life
from raft.storage import StorageError
from raft.storage.beside import RECOVERED_SUFFIX, RECOVERING_SUFFIX, publish, put_aside
from raft.storage.reading import read_directory
from services.disks import Disk
from services.restore import Leap, write_beginning


@dataclass(frozen=True, slots=True)
class Recovery:
    """A group of one, ready to be written in the place of the disk that it comes from."""

    disk: Disk
    #: Where its log begins; the configuration has its only voter and its life.
    meta: SnapshotMeta
    chunks: tuple[bytes, ...]

    @property
    def life(self) -> str:
        return self.meta.configuration.life


def plan_recovery(disk: Disk, node: NodeId) -> Recovery:
    """Make the new life of a disk with `node` as its only voter. The disk's machine is used up.

    Raises:
        RestoreRefused: the clock is wrong.
    """
    # Its checksum is none: no backup may be restored beside it as the same life.
    life = restored_life(secrets.randbits(32))
    leap = Leap.since(disk.written_us, life)
    disk.machine.inner.skip_numbers(leap.skipped, leap.floor)
    addresses = tuple(pair for pair in disk.meta.configuration.addresses if pair[0] == node)
    members = Configuration((node,), addresses=addresses, life=life)
    meta = replace(disk.meta, index=leap.index(disk.meta.index), configuration=members)
    return Recovery(disk, meta, tuple(disk.machine.snapshot()))


def carry_out(recovery: Recovery) -> Path:
    """Put the new life in the place of the old one; returns where the old one is kept. Its lock must be held.

    Raises:
        DiskFull, OSError: everything is as it was, or `finish_recovery` goes on.
    """
    directory = recovery.disk.directory
    draft = _draft_of(directory)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        write_beginning(draft, recovery.meta, recovery.chunks, term=recovery.disk.hard_state.term)
        aside = put_aside(directory, RECOVERED_SUFFIX)
    except BaseException:
        if directory.exists():
            shutil.rmtree(draft, ignore_errors=True)
        raise
    publish(draft, directory)
    return aside


def finish_recovery(directory: Path) -> bool:
    """Where a recovery of `directory` was interrupted after the old one was put aside: put the new one in its place.
    True where that was so.

    Raises:
        OSError: it cannot be done; asking again is safe.
    """
    draft = _draft_of(directory)
    if directory.exists() or not draft.exists():
        return False
    if not _is_whole(draft):
        # It was given up while it was written, and what it came from was moved away by somebody.
        shutil.rmtree(draft)
        return False
    publish(draft, directory)
    return True


def is_alone(disk: Disk, node: NodeId) -> bool:
    """Whether there is nothing to recover, because `node` is the only member."""
    return disk.meta.configuration.members == (node,)


def _draft_of(directory: Path) -> Path:
    return directory.with_name(directory.name + RECOVERING_SUFFIX)


def _is_whole(draft: Path) -> bool:
    """The log names its snapshot with the last thing that is written."""
    try:
        found = read_directory(draft)
    except StorageError:
        return False
    return found.snapshot is not None and is_restored(found.snapshot.configuration.life)
