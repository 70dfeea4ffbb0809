"""One disk of a group, read alone: the state of a node that would start on it and go on alone.

The rule: one disk does not know what was committed, so this carries out every entry on it. The last entries may never
have been acknowledged to anybody, and entries that only the other disks hold are missing. The callers say so.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.parsers import parse_node_id
from raft.applier import Applier
from raft.core.membership import ConfigurationHistory
from raft.core.types import HardState, SnapshotMeta
from raft.storage import CorruptLog, CorruptSnapshot, UnknownFormat
from raft.storage.reading import DirectoryContents
from services.catalogue import SERVICES
from services.node.process_file import PROCESS_NAME
from services.replicated.machine import ReplicatedMachine
from services.replicated.versions import UnknownCommand

#: More bytes than any such file holds.
_PROCESS_BYTES_MAX = 64 << 10
#: Errors that a machine may raise for bytes that no version of it wrote.
_NOT_OURS = (ValueError, TypeError, KeyError, IndexError, StopIteration)


@dataclass(frozen=True, slots=True)
class Disk:
    """The state in a group's data directory."""

    group: str
    directory: Path
    #: After the last entry.
    machine: ReplicatedMachine
    #: Where in the log that is; its configuration has no voters if the log does not say the members.
    meta: SnapshotMeta
    hard_state: HardState
    #: Wall clock at the last write to it, microseconds since 1970.
    written_us: int

    @property
    def is_empty(self) -> bool:
        return self.meta.index == 0


def load_disk(contents: DirectoryContents, group: str) -> Disk:
    """Load the snapshot and carry out every entry after it, as a node does.

    Raises:
        CorruptSnapshot, CorruptLog: it holds something that no version up to this one wrote.
        UnknownFormat: a newer version wrote it.
        OSError: the snapshot cannot be read.
    """
    base = contents.snapshot or SnapshotMeta()
    path = str(contents.directory)
    if contents.snapshot is not None:
        machine = loaded_machine(group, contents.chunks(), path)
    else:
        machine = ReplicatedMachine(SERVICES[group].machine)
    applier = Applier(machine, start=base)
    try:
        for entry in contents.entries:
            applier.apply(entry)
        history = ConfigurationHistory(base.index, base.configuration, contents.entries)
    except UnknownCommand as error:
        raise UnknownFormat(f"{path}: {error}; use the version that wrote it, or a newer one") from error
    except _NOT_OURS as error:
        where = f"entry {applier.applied_index + 1} cannot be carried out: {error!r}"
        raise CorruptLog(path, 0, where) from error
    meta = SnapshotMeta(applier.applied_index, contents.last_term, applier.applied_time_ms, history.latest)
    return Disk(group, contents.directory, machine, meta, contents.hard_state, _written_us(contents.directory))


def loaded_machine(group: str, chunks: Iterable[bytes], path: str) -> ReplicatedMachine:
    """The machine of a group with the state in `chunks`, which were read from `path`.

    Raises:
        CorruptSnapshot: it is no state of that group.
        UnknownFormat: a newer version wrote it.
    """
    machine = ReplicatedMachine(SERVICES[group].machine)
    try:
        machine.restore(chunks)
    except UnknownCommand as error:
        raise UnknownFormat(f"{path}: {error}; use the version that wrote it, or a newer one") from error
    except _NOT_OURS as error:
        raise CorruptSnapshot(path, 0, f"its content cannot be loaded: {error!r}") from error
    return machine


def _written_us(directory: Path) -> int:
    """From the files' times. A copy may have a later time than the true one; that is no worse than no time at all."""
    with os.scandir(directory) as found:
        return max((each.stat().st_mtime_ns for each in found if each.is_file()), default=0) // 1_000


def recorded_node(directory: Path) -> str:
    """The node that ran last on a data directory, or on the one that a group's directory is in; empty if that is not
    recorded."""
    for folder in (directory, directory.absolute().parent):
        try:
            with open(folder / PROCESS_NAME, "rb") as file:
                return parse_node_id(str(json.loads(file.read(_PROCESS_BYTES_MAX))["node"]))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return ""
