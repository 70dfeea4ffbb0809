"""Which process runs a node on a data directory: a lock that it holds as long as it lives, and who it is.

    DATA_DIR/PROCESS    held (flock) by the node's process; in it one JSON object, padded with blanks

The rule of the file: whether a node runs is told by the lock, never by what is written. The kernel lets go of it
however the process ends, and a copy of the folder is not locked. Who *starts* a node takes the lock and hands it down
to the process: so it is held from the first moment, also where the starter is killed before the node has come to its
first line. What is written has a fixed size and is written over in place, which needs no room on a full disk.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.start_mark import start_mark
from raft.storage.errors import DataDirectoryInUse

try:
    import fcntl
except ImportError:  # Windows: nodes run in Docker there
    fcntl = None  # type: ignore[assignment]  # the type of the name is the module

PROCESS_NAME = "PROCESS"
#: Tells a node that its lock was taken for it: the number of the open file.
INHERITED_VARIABLE = "MUFAKAT_PROCESS_LOCK"
#: Size of the record, whatever stands in it.
RECORD_BYTES = 1_024
#: In the place of a process id: the last process ended in good order; one was to be started, and has not come to its
#: first line.
NOBODY, TO_COME = 0, -1
#: Who only looks holds the lock for a moment; whoever wants to keep it asks again for so long.
TAKE_SECONDS_MAX = 1.0
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A node's process."""

    node: str
    #: Above zero.
    pid: int
    #: `common.start_mark` of the process.
    started: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a data directory told."""

    #: A process holds it.
    is_held: bool
    #: Who it is; where nothing is held, who it was that ended without a word. None where nothing readable is noted:
    #: a process that was just started, or none since the last one ended in good order.
    record: ProcessRecord | None
    #: A process was started that never said who it is.
    was_to_come: bool = False

    @property
    def is_left_behind(self) -> bool:
        """Whether the last process ended in any other way than in good order."""
        return not self.is_held and (self.record is not None or self.was_to_come)


class ProcessFile:
    """The lock of a node on its data directory, from `take_process` or `reserve`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        #: Of the open file that carries the lock.
        self.descriptor = descriptor

    def note(self, node: str) -> None:
        """Write down that this process is the node. Raises OSError."""
        pid = os.getpid()
        self._write(json.dumps(asdict(ProcessRecord(node, pid, start_mark(pid) or ""))))

    def leave(self) -> None:
        """Write down that nobody is here, and nobody died; whose directory it is stays. Raises OSError."""
        self._note_instead(NOBODY)

    def expect(self) -> None:
        """Write down that a process is to come. Raises OSError."""
        self._note_instead(TO_COME)

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that is locked: nobody deleted or replaced the directory."""
        mine = os.fstat(self.descriptor)
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def close(self) -> None:
        """Let go of the lock, unless another process was given it, too."""
        os.close(self.descriptor)

    def _note_instead(self, pid: int) -> None:
        node = _field(os.pread(self.descriptor, RECORD_BYTES, 0), "node")
        self._write(json.dumps(asdict(ProcessRecord(str(node or ""), pid, ""))))

    def _write(self, text: str) -> None:
        content = text.encode().ljust(RECORD_BYTES - 1) + b"\n"
        assert len(content) == RECORD_BYTES
        os.pwrite(self.descriptor, content, 0)


def reserve(directory: Path) -> ProcessFile:
    """Take the lock for a process that is about to be started, and note that nobody is there yet.

    Raises:
        DataDirectoryInUse: a process holds it.
        OSError: the file cannot be made.
    """
    assert fcntl is not None
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / PROCESS_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + TAKE_SECONDS_MAX
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise DataDirectoryInUse(f"data directory {directory} is in use by another process") from None
                time.sleep(POLL_SECONDS)
        reserved = ProcessFile(path, descriptor)
        reserved.expect()
    except BaseException:
        os.close(descriptor)
        raise
    return reserved


def take_process(data_dir: str, inherited: str = "") -> ProcessFile:
    """The lock for this process: the one that its starter took for it, else a new one. Raises as `reserve`.

    Args:
        inherited: the value of `INHERITED_VARIABLE`.
    """
    directory = Path(data_dir).absolute()
    if inherited.isdigit():
        given = ProcessFile(directory / PROCESS_NAME, int(inherited))
        with contextlib.suppress(OSError):
            if given.is_in_place():
                os.set_inheritable(given.descriptor, False)
                return given
    return reserve(directory)


def look(directory: Path) -> Seen:
    """Whether a process runs a node on this data directory, and which.

    Raises:
        OSError: the file is there and cannot be opened.
    """
    try:
        descriptor = os.open(directory / PROCESS_NAME, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except (FileNotFoundError, NotADirectoryError):
        return Seen(False, None)
    try:
        content = os.pread(descriptor, RECORD_BYTES, 0)
        return Seen(not _is_free(descriptor), _decode(content), _field(content, "pid") == TO_COME)
    finally:
        os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _field(content: bytes, name: str) -> Any:
    """What is noted under this name; None where nothing readable is."""
    try:
        return json.loads(content)[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _decode(content: bytes) -> ProcessRecord | None:
    try:
        record = ProcessRecord(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None
    fits = (type(record.node), type(record.pid), type(record.started)) == (str, int, str)
    return record if fits and record.pid > NOBODY else None
