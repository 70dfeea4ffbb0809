"""A group of one made out of one disk: the way out where a majority of the disks is lost for good.

    lock ──read, written anew──> lock and lock.recovering-TIME
         ──old one put aside──>  lock.recovered-TIME and lock.recovering-TIME
         ──new one published──>  lock.recovered-TIME and lock

What the disk holds becomes the beginning of a new life (`raft.life`), as a backup does, with one voter; the group's
other disks are of the former one and are refused from then on. Numbers leap as they do in a restore
(`services.offline.restore`), from the moment at which the disk was written to for the last time: the others may
have given more since. The rule: until the old directory is put aside everything is as it was. From then on
`finish_recovery` puts the new one in its place, whatever came between, and no node opens another one there
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
    """Where a recovery of `directory` was interrupted after the old one was put aside: put the new one in its place.
    True where that was so.

    Raises:
        OSError: it cannot be done; asking again is safe.
    """
    draft = unfinished_recovery(directory)
    if draft is None:
        return False
    publish(draft, real(directory))
    return True


def is_alone(disk: Disk, node: NodeId) -> bool:
    """Whether there is nothing to recover, because `node` is the only member."""
    return disk.meta.configuration.members == (node,)
