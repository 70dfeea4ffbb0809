"""A group of one made from one disk, for the case that a majority of the disks is lost for ever.

    lock ──read, written again─> lock and lock.recovering-TIME
         ──old one put aside──>  lock.recovered-TIME and lock.recovering-TIME
         ──new one published──>  lock.recovered-TIME and lock

The content of the disk becomes the beginning of a new life (`raft.life`) with one voter, as a backup does. The
group's other disks are of the former life and are refused from then on. Numbers jump forward as in a restore
(`services.offline.restore`), counted from the last write to the disk: the other nodes may have given more numbers
since. The rule: until the old directory is put aside, everything is as before. From then on `finish_recovery` puts
the new directory in its place, whatever happened in between, and no node opens another one there
(`raft.storage.beside`).
"""

import secrets
import shutil
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

from raft.core.types import Configuration, NodeId, SnapshotMeta
from raft.life import restored_life
from raft.storage.beside import (
    RECOVERED_SUFFIX,
    RECOVERING_SUFFIX,
    give_to_owner_of,
    new_stamp,
    publish,
    put_aside,
    real,
    unfinished_recovery,
)
from services.offline.disks import Disk
from services.offline.restore import Leap, write_beginning


@dataclass(frozen=True, slots=True)
class Recovery:
    """A group of one, ready to replace the directory that it comes from."""

    disk: Disk
    #: Where its log begins; the configuration names its only voter and its life.
    meta: SnapshotMeta
    chunks: tuple[bytes, ...]

    @property
    def life(self) -> str:
        return self.meta.configuration.life


def plan_recovery(disk: Disk, node: NodeId) -> Recovery:
    """Make the new life of a disk with `node` as its only voter. Do not use the disk's machine after this.

    Raises:
        RestoreRefused: the clock is wrong.
    """
    # The life has no checksum of a backup, so that no backup can be restored beside it as the same life.
    life = restored_life(secrets.randbits(32))
    leap = Leap.since(disk.written_us, life)
    disk.machine.inner.skip_numbers(leap.skipped, leap.floor)
    addresses = tuple(pair for pair in disk.meta.configuration.addresses if pair[0] == node)
    members = Configuration((node,), addresses=addresses, life=life)
    meta = replace(disk.meta, index=leap.index(disk.meta.index), configuration=members)
    return Recovery(disk, meta, tuple(disk.machine.snapshot()))


def carry_out(recovery: Recovery) -> Path:
    """Replace the old life by the new one; returns where the old one is kept. The caller must hold its lock.

    Raises:
        DiskFull, OSError: everything is as before, or `finish_recovery` can finish it.
    """
    directory = real(recovery.disk.directory)
    for stale in directory.parent.glob(f"{escape(directory.name)}{RECOVERING_SUFFIX}*"):
        shutil.rmtree(stale)
    stamp = new_stamp(directory, RECOVERING_SUFFIX, RECOVERED_SUFFIX)
    draft = directory.with_name(directory.name + RECOVERING_SUFFIX + stamp)
    try:
        write_beginning(draft, recovery.meta, recovery.chunks, term=recovery.disk.hard_state.term)
        give_to_owner_of(directory, draft)
        aside = put_aside(directory, RECOVERED_SUFFIX, stamp=stamp)
    except BaseException:
        if directory.exists():
            shutil.rmtree(draft, ignore_errors=True)
        raise
    publish(draft, directory)
    return aside


def finish_recovery(directory: Path) -> bool:
    """If a recovery of `directory` was interrupted after the old one was put aside, put the new one in its place.
    True if this was the case.

    Raises:
        OSError: it cannot be done; it is safe to call again.
    """
    draft = unfinished_recovery(directory)
    if draft is None:
        return False
    publish(draft, real(directory))
    return True


def is_alone(disk: Disk, node: NodeId) -> bool:
    """Whether `node` is the only member, so that there is nothing to recover."""
    return disk.meta.configuration.members == (node,)
