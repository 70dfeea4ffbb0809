"""Which life of a data directory this is, and which life of the group its data is of.

    INCARNATION     32 hexadecimal digits: a random name that the group binds a node's id to
    LIFE            the life of the group (`raft.life`), once it is known to be committed

A directory without a log is a new one, whatever else lies in it: it gets a new name, and its data is of no life. So a
node whose disk was wiped cannot pass for the one that it was, whose votes and acknowledgements are lost with the disk
(docs/membership.md). The life stands in the log, too; the file tells it from the first moment after a start, when
nobody has said yet how far the log is committed.
"""

import re
import secrets
from pathlib import Path

from raft.storage.files import Files, RealFiles
from raft.storage.small_file import read_line, write_line

INCARNATION_NAME = "INCARNATION"
LIFE_NAME = "LIFE"
_INCARNATION = re.compile(rb"[0-9a-f]{32}")
_LIFE = re.compile(rb"[!-~]{1,60}")


def take_incarnation(directory: Path, *, fresh: bool, files: Files | None = None) -> str:
    """The directory's incarnation, made and made durable where there is none. Its lock must be held.

    Args:
        fresh: the directory held no log when it was opened (`Recovered.fresh`).

    Raises:
        CorruptStorage: the file is there and cannot be read.
        OSError: the disk does not do as asked.
    """
    files = files if files is not None else RealFiles()
    path = directory / INCARNATION_NAME
    kept = "" if fresh else read_line(files, path, _INCARNATION, "incarnation")
    if kept:
        return kept
    incarnation = secrets.token_hex(16)
    write_line(files, path, incarnation)
    return incarnation


def kept_life(directory: Path, *, fresh: bool, files: Files | None = None) -> str:
    """The life that the directory's data is of; empty where it does not say. Arguments and errors are those of
    `take_incarnation`."""
    files = files if files is not None else RealFiles()
    return "" if fresh else read_line(files, directory / LIFE_NAME, _LIFE, "life")


def keep_life(directory: Path, life: str, *, files: Files | None = None) -> None:
    """Note, durably, that the directory's data is of this life. Raises OSError."""
    write_line(files if files is not None else RealFiles(), directory / LIFE_NAME, life)
