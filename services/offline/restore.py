"""Begins a group again from a backup: writes the data directories of nodes that do not run.

Every node of the new group gets the same snapshot as the beginning of its log, the same members and the same *life*
(`raft.life`), which no other restore has. The rule: write nothing before the whole backup was checked and loaded by
today's machine, and never overwrite anything.

Clients got numbers before: fencing tokens, message ids, receipts; log indexes, and with them versions. A group must
not give them a second time, neither those of the group of the backup nor those of a group that was restored from it
before. So they follow the wall clock, at the moment that the life names:

    next number = max(number in the backup + NUMBERS_SKIPPED + microseconds since the backup was taken,
                      microseconds since NUMBERS_SINCE_US)

No group gives a million numbers of a kind in a second for long: each is at least one step of its single-threaded
machine. So the numbers of a restored group never overtake the second line, and a later restore begins above all
earlier numbers, in whatever order backups are taken and restored. No file or service has to remember anything for
that. The first line is for backups whose numbers are already beyond the second, because a clock was wrong. JavaScript
reads numbers up to `NUMBERS_MAX` exactly; the clock reaches it in the year 2305.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.clock import wall_us
from raft.core.ready import Persist
from raft.core.types import Configuration, HardState, Index, SnapshotMeta, Term
from raft.life import UNKNOWN_LIFE, is_restored_from, made_us, restored_life
from raft.storage import CorruptSnapshot, StorageError, open_storage
from raft.storage.backup import Backup, backup_chunks, verify_backup
from raft.storage.beside import RESTORING_SUFFIX, give_to_owner_of, publish, real
from raft.storage.incarnation import INCARNATION_NAME
from raft.storage.reading import read_directory
from services.catalogue import SERVICES
from services.offline.disks import loaded_machine

#: The moment from which the numbers count, in microseconds since 1970: 2020-01-01.
NUMBERS_SINCE_US = 1_577_836_800_000_000
#: Skipped in any case, for clocks that differ a little: numbers for at least ten seconds, and in real groups for
#: minutes.
NUMBERS_SKIPPED = 10_000_000
#: No number is above this one: the largest up to which JSON numbers are exact everywhere.
NUMBERS_MAX = 2**53
#: How far this machine's clock may be behind the moment at which the backup was taken.
CLOCK_BEHIND_US_MAX = NUMBERS_SKIPPED // 2
#: Further nodes get the life before the first one starts. After a day, a node that lacks its data has lost it.
LIFE_AGE_US_MAX = 86_400_000_000


class RestoreRefused(StorageError):
    """The backup is sound, but what was asked would give numbers twice."""


@dataclass(frozen=True, slots=True)
class RestorableGroup:
    """A backup that is checked, loaded and ready to be written for any number of nodes."""

    backup: Backup
    chunks: tuple[bytes, ...]
    #: The life of the group that begins.
    life: str
    #: Where its log begins.
    index: Index


@dataclass(frozen=True, slots=True)
class Leap:
    """How numbers jump forward: beyond all that anybody can have got."""

    skipped: int
    floor: int

    @classmethod
    def of(cls, backup: Backup, life: str) -> "Leap":
        """From the moment at which the backup was taken to the moment at which `life` was made. Raises as `since`."""
        return cls.since(backup.head.taken_ms * 1_000, life)

    @classmethod
    def since(cls, taken_us: int, life: str) -> "Leap":
        """From `taken_us`, when nobody had numbers beyond those of the state, to the moment at which `life` was made;
        microseconds since 1970.

        Raises:
            RestoreRefused: the clock is wrong.
        """
        began_us = made_us(life)
        if began_us < taken_us - CLOCK_BEHIND_US_MAX:
            raise RestoreRefused(
                f"it is of {_utc(taken_us)} and the clock of this machine says {_utc(began_us)}; tokens, versions "
                "and message ids follow it, so set it right first, or wait until it has passed that time"
            )
        leap = cls(NUMBERS_SKIPPED + began_us - taken_us, began_us - NUMBERS_SINCE_US)
        if leap.floor > NUMBERS_MAX:
            raise RestoreRefused(f"the clock of this machine says {_utc(began_us)}: set it right first")
        return leap

    def index(self, index: Index) -> Index:
        """The index at which the log of a state of `index` begins.

        Raises:
            RestoreRefused: it would be too large for an exact JSON number.
        """
        begins = self(index)
        if begins > NUMBERS_MAX:
            raise RestoreRefused(f"its index {index} is beyond what a clock of today can have led to")
        return begins

    def __call__(self, number: int) -> int:
        return max(number + self.skipped, self.floor)


def load_backup(path: Path, *, life: str = "", has_begun: bool = False) -> RestorableGroup:
    """Check a backup file and load it as a node would.

    Args:
        life: of the group that begins, if another of its nodes was restored already; else it is made here.
        has_begun: another node may have started since, but this node certainly has not: the life may be old.

    Raises:
        CorruptSnapshot: it is damaged, or holds something that no version up to this one wrote.
        UnknownFormat: a newer version wrote it.
        RestoreRefused: the clock is wrong, or no restore made `life`.
        OSError: it cannot be read.
    """
    backup = verify_backup(path)
    life = life or restored_life(backup.checksum)
    if not is_restored_from(life, backup.checksum):
        raise RestoreRefused(f"{life!r} is not what a restore of this very backup has named")
    if not has_begun and wall_us() - made_us(life) > LIFE_AGE_US_MAX:
        raise RestoreRefused(
            f"{life} began at {_utc(made_us(life))}, and this node may have promised things since which it would not "
            "know; start it empty, and the group takes it in"
        )
    leap = Leap.of(backup, life)
    index = leap.index(backup.meta.index)
    name = backup.head.group
    if name not in SERVICES:
        raise CorruptSnapshot(str(path), 0, f"it is of the group {name!r}, which there is not")
    machine = loaded_machine(name, backup_chunks(path), str(path))
    machine.inner.skip_numbers(leap.skipped, leap.floor)
    return RestorableGroup(backup, tuple(machine.snapshot()), life, index)


def _utc(us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(us / 1_000_000))


def is_empty(directory: Path) -> bool:
    """Whether a group's data directory is empty: it is not there, or nothing was ever written to it."""
    return not directory.exists() or not any(name != "LOCK" for name in os.listdir(directory))


def write_group(
    group: RestorableGroup,
    *directories: Path,
    voters: Sequence[str],
    before_publishing: Callable[[], None] = lambda: None,
) -> SnapshotMeta:
    """Write the data directories of the group's nodes, all complete or none; returns where their log begins.

    Only an interruption between two renames leaves some nodes without the group. That does no harm: those nodes are
    empty, and the group admits them; if those that were written are a minority, they wait for the others.

    Args:
        before_publishing: called once all of them are written, before the first gets its name.

    Raises:
        FileExistsError: a directory is not empty.
        DiskFull, OSError: it cannot be written.
    """
    directories = tuple(map(real, directories))
    for directory in directories:
        if not is_empty(directory):
            raise FileExistsError(f"{directory} is not empty")
    members = Configuration(tuple(sorted(voters)), life=group.life)
    meta = replace(group.backup.meta, index=group.index, configuration=members)
    drafts = [directory.with_name(directory.name + RESTORING_SUFFIX) for directory in directories]
    try:
        for draft in drafts:
            shutil.rmtree(draft, ignore_errors=True)
            write_beginning(draft, meta, group.chunks)
            give_to_owner_of(draft.parent, draft)
        before_publishing()
    except BaseException:
        for draft in drafts:
            shutil.rmtree(draft, ignore_errors=True)
        raise
    for draft, directory in zip(drafts, directories, strict=True):
        if directory.exists():
            shutil.rmtree(directory)
        publish(draft, directory)
    return meta


def write_beginning(directory: Path, meta: SnapshotMeta, chunks: Sequence[bytes], *, term: Term = 0) -> None:
    """Write a data directory durably. Its log begins with this snapshot, in `term` or in the snapshot's term, if that
    is later.

    Raises:
        DiskFull, OSError: it cannot be written.
    """
    storage, _ = open_storage(directory)
    try:
        storage.save_snapshot(meta, chunks)
        storage.write([Persist(HardState(max(term, meta.term)), (), meta)])
    finally:
        storage.close()


def life_of(directory: Path) -> str:
    """The life with which a directory's log begins; empty if it says none or cannot be read."""
    try:
        found = read_directory(directory)
    except (StorageError, OSError):
        return ""
    return found.snapshot.configuration.life if found.snapshot is not None else UNKNOWN_LIFE


def was_started(directory: Path) -> bool:
    """Whether a node has started on a directory since a restore wrote it: then it may have promised something.

    Raises:
        StorageError, OSError: the directory cannot be read.
    """
    found = read_directory(directory)
    # A start first gives the directory its incarnation. If that file is gone, the log shows the start, too.
    beginning = found.snapshot is not None and found.hard_state == HardState(found.snapshot.term)
    return (directory / INCARNATION_NAME).exists() or bool(found.entries) or not beginning
