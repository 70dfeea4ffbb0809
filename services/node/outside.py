"""All that a node takes from outside of itself, beside what comes with its event loop: sockets, timers, and the
threads of the executor.

The rule of the file: what is not the same in each run enters a node here or through its loop. So a simulation runs
the wiring of `services.app` as it is, on a loop and an `Outside` of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from common import clock, descriptors, disk_space
from common.chance import SYSTEM_RANDOM
from common.disk_space import DiskSpace
from common.threads import SYSTEM_THREADS, Threads
from common.web import is_hung_up
from raft.storage.files import Files, RealFiles


@dataclass(frozen=True, slots=True)
class Outside:
    """What one node is given; by default that of the process and the machine that it runs on."""

    #: The clock of leases and timeouts, milliseconds.
    clock_ms: clock.Clock = clock.now_ms
    #: Wall clock, microseconds since 1970: for names and for people. No decision depends on it.
    wall_us: Callable[[], int] = clock.wall_us
    #: All chance of the node. Threads draw from it, too.
    random: Random = SYSTEM_RANDOM
    #: The file system of its data directory.
    files: Files = RealFiles()  # noqa: RUF009 - it has no state
    #: Threads that may wait for the disk.
    threads: Threads = SYSTEM_THREADS
    #: How many files and sockets it may have open; asked once, at its start.
    open_files_max: Callable[[], int] = descriptors.raise_limit
    #: Whether the other side of a socket has closed it, as far as the kernel knows.
    is_hung_up: Callable[[Any], bool] = is_hung_up
    #: How much room the disk of these directories has; raises as `common.disk_space.look`. Called on a thread.
    look_at_disk: Callable[[Sequence[Path]], DiskSpace] = disk_space.look


#: Whoever is given no other one has this.
SYSTEM = Outside()
