"""What the commands print: tables and the progress line. (Logs of nodes are shown by `log_view`.)

Plain text, no colours. A progress line rewrites itself on a terminal; elsewhere it is one line from time to time.
"""

import sys
import time
from collections.abc import Sequence

#: Away from a terminal a progress line is repeated at most this often.
PROGRESS_SECONDS = 5.0


def echo(text: str = "") -> None:
    """Print one line at once, to any kind of output."""
    print(text, flush=True)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under headings, each column as wide as its widest cell; no trailing blanks."""
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]
    return "\n".join(lines)


class ProgressLine:
    """One line that shows the progress of a longer wait."""

    def __init__(self) -> None:
        self._rewrites = sys.stdout.isatty()
        self._width = 0
        self._printed_at = float("-inf")

    def update(self, text: str) -> None:
        """Show the progress."""
        now = time.monotonic()
        if self._rewrites:
            print("\r" + text.ljust(self._width), end="", flush=True)
            self._width = len(text)
        elif now - self._printed_at >= PROGRESS_SECONDS:
            echo(text)
            self._printed_at = now

    def clear(self) -> None:
        """Remove the line; the next output starts there."""
        if self._rewrites and self._width:
            print("\r" + " " * self._width + "\r", end="", flush=True)
            self._width = 0
