"""Small files beside the log that say what a data directory is: each is replaced in one step and checked when it is
read.

    NAME.new    written and synced, then renamed to NAME; a draft that a crash left counts for nothing
"""

import re
from pathlib import Path

from raft.storage.errors import CorruptStorage
from raft.storage.files import Files

_DRAFT_SUFFIX = ".new"
#: How many bytes are read; a longer file is not ours.
_READ_BYTES = 64


def read_line(files: Files, path: Path, form: re.Pattern[bytes], what: str) -> str:
    """The one line that the file holds; empty if there is no such file.

    Raises:
        CorruptStorage: it holds anything else than `form`.
        OSError: the disk does not do as asked.
    """
    if path.name not in files.names(path.parent):
        return ""
    file = files.open_readonly(path)
    try:
        content = file.read(0, _READ_BYTES)
    finally:
        file.close()
    if not content.endswith(b"\n") or not form.fullmatch(content[:-1]):
        raise CorruptStorage(str(path), 0, f"no {what} of a data directory")
    return content[:-1].decode()


def write_line(files: Files, path: Path, line: str) -> None:
    """Make the file hold this line, durably.

    Raises:
        OSError: the disk does not do as asked; the file is as before, or already as it should be.
    """
    draft = path.with_name(path.name + _DRAFT_SUFFIX)
    file = files.create(draft)
    try:
        file.write(0, line.encode() + b"\n")
        file.sync()
    finally:
        file.close()
    files.rename(draft, path)
    files.sync_directory(path.parent)
