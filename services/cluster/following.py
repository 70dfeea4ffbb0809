"""The output of several commands while they run: the logs of containers, which only the engine has.

One thread reads the pipe of each command. It gathers lines for a moment before it hands them on, so that the lines of
different nodes can be put in order.
"""

import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from services.cluster.errors import ClusterError

#: How long lines are gathered after the first one has come.
GATHER_SECONDS = 0.25

#: How many lines may wait to be handed on; beyond that the commands wait.
LINES_WAITING_MAX = 10_000

#: One line of a command, by its name; None: it has ended.
_Item = tuple[str, str | None]


@contextmanager
def followed(commands: Mapping[str, Sequence[str]]) -> Iterator[Iterator[dict[str, list[str]]]]:
    """Run the commands and give what they print, output and errors, in batches: name to lines. It ends when all of
    them have ended; leaving the context ends them.

    Raises:
        ClusterError: one of them cannot be run.
    """
    lines: queue.Queue[_Item] = queue.Queue(LINES_WAITING_MAX)
    running: list[subprocess.Popen[str]] = []
    try:
        for name, command in commands.items():
            process = _start(command)
            running.append(process)
            threading.Thread(target=_read, args=(name, process, lines), daemon=True).start()
        yield _batches(lines, len(running))
    finally:
        for process in running:
            process.kill()
            process.wait()


def _start(command: Sequence[str]) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is for us; we end them.
            start_new_session=True,
        )
    except OSError as error:
        raise ClusterError(f"`{command[0]}` cannot be run: {error}.") from error


def _read(name: str, process: "subprocess.Popen[str]", lines: "queue.Queue[_Item]") -> None:
    """Body of a command's thread."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put((name, line.removesuffix("\n")))
    lines.put((name, None))


def _batches(lines: "queue.Queue[_Item]", running: int) -> Iterator[dict[str, list[str]]]:
    while running:
        batch: dict[str, list[str]] = {}
        item: _Item | None = lines.get()
        until = time.monotonic() + GATHER_SECONDS
        while item is not None:
            name, line = item
            if line is None:
                running -= 1
            else:
                batch.setdefault(name, []).append(line)
            item = _next(lines, until)
        yield batch


def _next(lines: "queue.Queue[_Item]", until: float) -> _Item | None:
    """The next line, if one comes in time. A batch ends at its time, however many lines wait."""
    left = until - time.monotonic()
    if left <= 0:
        return None
    try:
        return lines.get(timeout=left)
    except queue.Empty:
        return None
