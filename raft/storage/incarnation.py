"""The incarnation of a data directory, and the life of the group that its data belongs to.

    INCARNATION     32 hexadecimal digits: a random name to which the group binds a node's id
    LIFE            the life of the group (`raft.life`), once the node knows that it is committed

A directory without a log is a new one, whatever else is in it: it gets a new name, and its data is of no life. So a
node whose disk was wiped does not count as the earlier one, whose votes and acknowledgements are lost with the disk
(docs/membership.md). The log has the life, too. The file tells it from the first moment after a start, when nobody
has said yet how far the log is committed.
"""

import re
from pathlib import Path
from random import Random

from common.chance import SYSTEM_RANDOM
from raft.storage.files import Files, RealFiles
from raft.storage.small_file import read_line, write_line

INCARNATION_NAME = "INCARNATION"
LIFE_NAME = "LIFE"
_INCARNATION = re.compile(rb"[0-9a-f]{32}")
_LIFE = re.compile(rb"[!-~]{1,60}")


def take_incarnation(
    directory: Path, *, fresh: bool, files: Files | None = None, random: Random = SYSTEM_RANDOM
) -> str:
    """The directory's incarnation; if there is none, make one, durably. The caller must hold the directory's lock.

    Args:
        fresh: the directory held no log when it was opened (`Recovered.fresh`).
        random: of it a new one is made.

    Raises:
        CorruptStorage: the file is there and cannot be read.
        OSError: the disk does not do as asked.
    """
    files = files if files is not None else RealFiles()
    path = directory / INCARNATION_NAME
    kept = "" if fresh else read_line(files, path, _INCARNATION, "incarnation")
    if kept:
        return kept
    incarnation = random.randbytes(16).hex()
    write_line(files, path, incarnation)
    return incarnation


def kept_life(directory: Path, *, fresh: bool, files: Files | None = None) -> str:
    """The life of the directory's data; empty if it does not say one. Arguments and errors are those of
    `take_incarnation`."""
    files = files if files is not None else RealFiles()
    return "" if fresh else read_line(files, directory / LIFE_NAME, _LIFE, "life")


def keep_life(directory: Path, life: str, *, files: Files | None = None) -> None:
    """Note durably that the directory's data is of this life. Raises OSError."""
    write_line(files if files is not None else RealFiles(), directory / LIFE_NAME, life)
