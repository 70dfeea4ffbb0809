"""The end of a log file and the lines that are added to it, also while it rolls over (common/log_file.py).

The rule of the file: read an open file to its end before you open the next one. So a roll-over loses nothing; only
two of them between two looks could.
"""

import os
from pathlib import Path
from typing import BinaryIO

#: How much of a file's end is read to find its last lines; four times as much if they are not in it, and so on.
TAIL_BYTES = 256 * 1024

#: Most bytes of one line; a longer one is shown in pieces.
LINE_BYTES_MAX = 1 << 20


class LogTail:
    """Reads one log that another process writes. A log that is not there yet counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        #: The beginning of a line whose end has not been written yet.
        self._begun = b""

    def last_lines(self, count: int) -> list[str]:
        """The last whole lines, also of the older file if the new one has too few. Call it first; `new_lines`
        continues after them."""
        lines: list[str] = []
        if self._open():
            assert self._file is not None
            lines = self._split(_end_of(self._file, count))
        if len(lines) < count:
            lines = [*_lines_of_older(self._path, count - len(lines)), *lines]
        return lines[-count:] if count else []

    def rest(self) -> list[str]:
        """The last line if it has no end: a writer's last words."""
        rest, self._begun = self._begun, b""
        return [_text(rest)] if rest else []

    def new_lines(self) -> list[str]:
        """The whole lines that were added since."""
        if not self._open():
            return []
        assert self._file is not None
        lines = self._read_on(self._file)
        if self._was_replaced(self._file):
            # Read once more, for lines that were written between the first read and the roll-over.
            lines += [*self._read_on(self._file), *self.rest()]
            self.close()
            lines += self.new_lines()
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> bool:
        if self._file is None:
            try:
                self._file = open(self._path, "rb")  # noqa: SIM115 - it stays open until `close`
            except FileNotFoundError:
                return False
        return True

    def _read_on(self, file: BinaryIO) -> list[str]:
        """What was added to an open file."""
        if os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)  # emptied by somebody
            self._begun = b""
        return self._split(file.read())

    def _split(self, data: bytes) -> list[str]:
        *whole, begun = (self._begun + data).split(b"\n")
        while len(begun) > LINE_BYTES_MAX:
            whole.append(begun[:LINE_BYTES_MAX])
            begun = begun[LINE_BYTES_MAX:]
        self._begun = begun
        return [_text(line) for line in whole]

    def _was_replaced(self, file: BinaryIO) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False  # in the middle of a roll-over, or deleted: the next look tells
        return not os.path.samestat(there, os.fstat(file.fileno()))


def _lines_of_older(path: Path, count: int) -> list[str]:
    try:
        with open(path.with_name(path.name + ".1"), "rb") as file:
            return [_text(line) for line in _end_of(file, count).removesuffix(b"\n").split(b"\n")]
    except FileNotFoundError:
        return []


def _end_of(file: BinaryIO, count: int) -> bytes:
    """The last lines of a file, at least `count` if there are so many, and an unfinished line after them. The file's
    position is then at the end of that."""
    size, read_bytes = file.seek(0, os.SEEK_END), TAIL_BYTES
    while True:
        start = file.seek(max(0, size - read_bytes))
        data = file.read(size - start)
        if start == 0:
            return data
        whole = data.partition(b"\n")[2]
        if whole.count(b"\n") >= count:
            return whole
        read_bytes *= 4


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
