"""Looking at a data directory without changing it: every record in words, and a verdict.

Nothing here takes the lock or writes a byte, so you may use it beside a running node. What that node is just writing
then looks like a torn end.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raft.core.types import HardState, Index, SnapshotMeta
from raft.storage.beside import is_beside
from raft.storage.errors import CorruptSnapshot, CorruptStorage, UnknownFormat
from raft.storage.files import Files, RealFiles
from raft.storage.record import (
    FILE_HEADER_BYTES,
    LOG_MAGIC,
    MARK,
    MalformedBody,
    Record,
    RecordType,
    decode_entry,
    decode_file_header,
    decode_hard_state,
    decode_meta,
    decode_segment_start,
    read_record,
    read_records,
)
from raft.storage.recovery import SEGMENT_SUFFIX, read_log, read_whole
from raft.storage.snapshot_file import inspect
from raft.storage.snapshots import DAMAGED_SUFFIX, SNAPSHOT_SUFFIX, Snapshots
from raft.storage.storage import choose_snapshot


@dataclass(frozen=True, slots=True)
class Verification:
    """What a node would decide about a directory on its start."""

    directory: Path
    #: Why it would refuse; None if it would not.
    problem: CorruptStorage | UnknownFormat | None
    #: Worth knowing, but no reason to refuse: a torn end, a damaged snapshot that is not needed.
    notes: tuple[str, ...] = ()
    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta | None = None
    #: Of the log after the snapshot; `first_index` is above `last_index` if there are no entries.
    first_index: Index = 1
    last_index: Index = 0

    @property
    def ok(self) -> bool:
        return self.problem is None

    def __str__(self) -> str:
        lines = [f"{self.directory}: {'ok' if self.ok else 'DAMAGED'}"]
        if self.problem is not None:
            lines.append(f"  problem: {self.problem}")
        else:
            snapshot = f"{self.snapshot.index}@{self.snapshot.term}" if self.snapshot else "none"
            lines.append(
                f"  term {self.hard_state.term}, vote {self.hard_state.vote or 'none'}, snapshot {snapshot}, "
                f"entries {self.first_index} to {self.last_index}"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True, slots=True)
class Found:
    """The directories with a log that a path leads to."""

    #: The path itself if it holds a log, else one for each group of a node's data directory.
    groups: tuple[Path, ...]
    #: Directories beside these: put aside, or being written (`raft.storage.beside`).
    beside: tuple[Path, ...] = ()


def data_directories(root: Path) -> Found:
    """Find what `root`, a group's directory or a node's data directory, holds.

    Raises:
        OSError: a directory cannot be read.
    """
    if _holds_log(root):
        return Found((root,))
    found = [path for path in sorted(root.iterdir()) if path.is_dir() and _holds_log(path)]
    beside = tuple(path for path in found if is_beside(path))
    return Found(tuple(path for path in found if path not in beside), beside)


def _holds_log(directory: Path) -> bool:
    # Not `glob`: it treats a directory that cannot be read as an empty one.
    return any(name.endswith(SEGMENT_SUFFIX) for name in os.listdir(directory))


def verify(directory: Path, *, files: Files | None = None) -> Verification:
    """Read and check everything in a data directory, as a node does on its start, and also every snapshot.

    Raises:
        OSError: the directory cannot be read.
    """
    files = files if files is not None else RealFiles()
    notes = _damaged_snapshots(files, directory)
    try:
        contents = read_log(files, directory)
        snapshot, damaged = choose_snapshot(files, directory, contents)
    except (CorruptStorage, UnknownFormat) as error:
        return Verification(directory, error, tuple(notes))
    if contents.cut_bytes:
        notes.append(f"the last write is torn; the next start cuts {contents.cut_bytes} bytes")
    if damaged and snapshot is not None:
        notes.append(f"the snapshot at {snapshot.index} stands in for {damaged}")
    first = snapshot.index + 1 if snapshot is not None else 1
    last = contents.last_index
    return Verification(directory, None, tuple(notes), contents.hard_state, snapshot, first, last)


def dump(directory: Path, *, files: Files | None = None) -> Iterator[str]:
    """Every file of a data directory in words, one line for each record, damage included.

    Raises:
        OSError: the directory cannot be read.
    """
    files = files if files is not None else RealFiles()
    for name in files.names(directory):
        path = directory / name
        if name.endswith(SEGMENT_SUFFIX):
            yield from _dump_segment(files, path)
        elif name.endswith((SNAPSHOT_SUFFIX, SNAPSHOT_SUFFIX + DAMAGED_SUFFIX)):
            yield _dump_snapshot(files, path)
        else:
            yield name


def _damaged_snapshots(files: Files, directory: Path) -> list[str]:
    """What is wrong with each snapshot file that is not whole."""
    snapshots = Snapshots(files, directory)
    damages: list[str] = []
    for index, term in snapshots.metas():
        try:
            inspect(files, snapshots.path(SnapshotMeta(index, term)))
        except (CorruptSnapshot, UnknownFormat) as error:
            damages.append(str(error))
    return damages


def _dump_snapshot(files: Files, path: Path) -> str:
    try:
        info = inspect(files, path)
    except (CorruptSnapshot, UnknownFormat) as error:
        return f"{path.name}: {error}"
    return f"{path.name}: {_meta(info.meta)}, {info.end.chunks} chunks of {info.end.size} bytes, id {info.id}"


def _dump_segment(files: Files, path: Path) -> Iterator[str]:
    raw = read_whole(files, path)
    yield f"{path.name}: {len(raw)} bytes"
    try:
        seed = decode_file_header(raw, LOG_MAGIC, str(path))
    except UnknownFormat as error:
        yield f"  {error}"
        return
    if seed is None:
        yield "  not a segment of a log"
        return
    position, end = FILE_HEADER_BYTES, len(raw.rstrip(b"\0"))
    while True:
        for record in read_records(raw, position, seed):
            yield f"{record.offset:>12}  {_describe(record)}"
            position = record.end
        if position >= end:
            return
        following = _next_intact(raw, position, seed)
        yield f"{position:>12}  ?? {(following or end) - position} bytes that are no record"
        if following is None:
            return
        position = following


def _next_intact(raw: bytes, position: int, seed: int) -> int | None:
    while (position := raw.find(MARK, position + 1)) >= 0:
        if read_record(raw, position, seed) is not None:
            return position
    return None


def _describe(record: Record) -> str:
    body = record.body
    try:
        if record.type == RecordType.ENTRY:
            entry = decode_entry(record)
            what = (
                f"{entry.index}@{entry.term} {entry.kind.name} {len(entry.data)} bytes, time {entry.time_ms}"
            )
        elif record.type == RecordType.HARD_STATE:
            hard_state = decode_hard_state(body)
            what = f"term {hard_state.term}, vote {hard_state.vote or 'none'}"
        elif record.type == RecordType.SEGMENT:
            start = decode_segment_start(body)
            what = (
                f"sequence {start.sequence}, after {start.previous_bytes} bytes and entry "
                f"{start.last_index}@{start.last_term}"
            )
        elif record.type in (RecordType.SNAPSHOT, RecordType.RESET):
            what = _meta(decode_meta(body))
        else:
            what = ""
        return f"{RecordType(record.type).name:<10}  {what}".rstrip()
    except (MalformedBody, ValueError) as error:
        return f"?? type {record.type}: {error}"


def _meta(meta: SnapshotMeta) -> str:
    configuration = meta.configuration
    learners = f", learners {' '.join(configuration.learners)}" if configuration.learners else ""
    life = f", life {configuration.life}" if configuration.life else ""
    return (
        f"{meta.index}@{meta.term}, time {meta.time_ms}, voters {' '.join(configuration.voters) or 'none'}"
        f"{learners}{life}"
    )
