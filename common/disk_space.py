"""How much room the file system of the data directory has, and whether the directory is still there.

The rule of the file: the event loop never asks the disk. If the disk hangs, the question hangs, too. So it runs on a
thread of its own (`common.threads`), one at a time, and meanwhile the last result counts.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.runtime import settle
from common.threads import SYSTEM_THREADS, Threads

#: Pause between two looks, in seconds.
LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """A file system at one moment."""

    #: What this process could still write.
    free_bytes: int
    total_bytes: int


def look(directories: Sequence[Path]) -> DiskSpace:
    """The space of the first directory's file system. May block for as long as the disk hangs.

    Raises:
        FileNotFoundError: one of the directories is not there.
        OSError: the file system does not answer.
    """
    for directory in directories:
        os.stat(directory)
    usage = shutil.disk_usage(directories[0])
    return DiskSpace(usage.free, usage.total)


async def watch_disk(
    directories: Sequence[Path],
    *,
    tell: Callable[[DiskSpace | None], None],
    on_missing: Callable[[OSError], None],
    interval_seconds: float = LOOK_SECONDS,
    look: Callable[[Sequence[Path]], DiskSpace] = look,
    threads: Threads = SYSTEM_THREADS,
) -> None:
    """For ever: report the space of the first directory's file system, None if it cannot be read.

    Args:
        on_missing: called when one of the directories is no longer there. What is written to deleted files is gone at
            the next start, so the node must promise nothing on them.
        look: how they are looked at; called on a thread of `threads`.
    """
    while True:
        try:
            tell(await _on_thread(lambda: look(directories), threads))
        except FileNotFoundError as error:
            tell(None)
            on_missing(error)
        except OSError:
            tell(None)
        await asyncio.sleep(interval_seconds)


def _on_thread(call: Callable[[], DiskSpace], threads: Threads) -> asyncio.Future[DiskSpace]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def run() -> None:
        space, failure = None, None
        try:
            space = call()
        except OSError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody listens
            loop.call_soon_threadsafe(settle, future, space, failure)

    threads.start("disk space", run)
    return future
