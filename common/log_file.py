"""The file that a node logs to: it rolls over while the node runs, and a full disk costs lines, nothing else.

The rule of the file: logging never stops the work that it reports. A line that cannot be written is dropped and
counted; once there is room, one line says how many are missing.

In local mode a node starts with its output in the same file: what it writes before the log is set up, and the last
words of the interpreter. Each roll-over moves that output to the new file. Both sides append, so neither overwrites
the other.
"""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from typing import TextIO

#: How many older files are kept: FILE.1.
OLDER_FILES = 1
#: Standard output and error.
_STANDARD = (1, 2)


class LogFile(RotatingFileHandler):
    """Appends a line for each record; renames the file to FILE.1 before it would grow beyond `bytes_max` (0: never).

    Raises:
        OSError: the file cannot be opened. Later errors are not raised.
    """

    stream: io.FileIO | None  # type: ignore[assignment]  # only this class writes to it, and the others close it

    def __init__(self, path: str, *, bytes_max: int) -> None:
        #: Lines that could not be written since the last one that could.
        self._lost = 0
        #: The last write stopped in the middle of a line.
        self._torn = False
        super().__init__(path, maxBytes=bytes_max, backupCount=OLDER_FILES, encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
            if self._is_full(len(line)):
                self.doRollover()
            if self._lost:
                line = self._line(_lost_lines(self._lost)) + line
            self._write(line)
            self._lost = 0
        except OSError:
            self._lost += 1
        except Exception:
            self.handleError(record)

    def doRollover(self) -> None:
        moved = [number for number in _STANDARD if self._is_ours(number)]
        try:
            super().doRollover()
        except OSError:
            # If the file cannot be renamed, that is no reason to lose lines: it grows until it can.
            self._opened()
        for number in moved:
            with contextlib.suppress(OSError):
                os.dup2(self._opened().fileno(), number)

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be formatted is our bug, and must not become a failure of the node."""
        if not isinstance(sys.exc_info()[1], OSError):
            # Not `super()`: the other base class has this method, too.
            logging.Handler.handleError(self, record)

    def _open(self) -> io.FileIO:  # type: ignore[override]  # as `stream`
        # Without a buffer: a line that found no room must not come out later, in pieces.
        return open(self.baseFilename, "ab", buffering=0)

    def _opened(self) -> io.FileIO:
        if self.stream is None:
            self.stream = self._open()
        return self.stream

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")

    def _is_full(self, further: int) -> bool:
        size = os.fstat(self._opened().fileno()).st_size
        return 0 < self.maxBytes < size + further and size > 0

    def _write(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        written = os.write(self._opened().fileno(), line)
        self._torn = written < len(line)
        if self._torn:
            raise OSError("the disk took a part of the line")

    def _is_ours(self, descriptor: int) -> bool:
        try:
            return self.stream is not None and os.path.sameopenfile(descriptor, self.stream.fileno())
        except OSError:
            return False


class LogStream(logging.StreamHandler[TextIO]):
    """As the standard one, but silent if the stream takes nothing: a full disk, a terminal that is gone."""

    handleError: Callable[..., None] = LogFile.handleError


def _lost_lines(count: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "common.log_file",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": f"{count} lines of this log were lost: the disk took none",
        }
    )
