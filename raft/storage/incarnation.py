"""Which life of a data directory this is: a random name that the group binds a node's id to.

    INCARNATION     32 hexadecimal digits and a newline; written beside, synced and renamed into place

A directory without a log is a new one, whatever else lies in it: it gets a new name. So a node whose disk was wiped
cannot pass for the one that it was, whose votes and acknowledgements are lost with the disk (docs/membership.md).
"""

import re
import secrets
from pathlib import Path

from raft.storage.errors import CorruptStorage
from raft.storage.files import Files, RealFiles

INCARNATION_NAME = "INCARNATION"
_DRAFT_NAME = INCARNATION_NAME + ".new"
#: As many bytes as are read of the file; a longer one is not ours.
_READ_BYTES = 64
_FORM = re.compile(rb"[0-9a-f]{32}\n")


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
    if not fresh and INCARNATION_NAME in files.names(directory):
        file = files.open_readonly(path)
        try:
            content = file.read(0, _READ_BYTES)
        finally:
            file.close()
        if not _FORM.fullmatch(content):
            raise CorruptStorage(str(path), 0, "no incarnation of a data directory")
        return content.decode().strip()
    incarnation = secrets.token_hex(16)
    file = files.create(directory / _DRAFT_NAME)
    try:
        file.write(0, incarnation.encode() + b"\n")
        file.sync()
    finally:
        file.close()
    files.rename(directory / _DRAFT_NAME, path)
    files.sync_directory(directory)
    return incarnation
