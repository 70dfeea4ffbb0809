"""The one clock of a node: milliseconds that never run backward and count while the machine is suspended.

It measures leases and timeouts. CLOCK_MONOTONIC would stand still in suspend, and a lease would seem valid after the
lid was opened again. The numbers mean nothing on another machine or after a reboot. The wall clock, which anybody may
set, only names things.
"""

import time
from typing import Protocol

#: The id of the system's clock; less than 0 if there is none.
_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", -1)


class Clock(Protocol):
    """What measures time for a node. `now_ms` below is one; tests use their own."""

    def __call__(self) -> int: ...


if _BOOTTIME >= 0:

    def now_ms() -> int:
        """Milliseconds since the machine booted, suspend included (CLOCK_BOOTTIME)."""
        return time.clock_gettime_ns(_BOOTTIME) // 1_000_000

else:

    def now_ms() -> int:
        """Milliseconds of the monotonic clock: this system has no CLOCK_BOOTTIME."""
        return time.monotonic_ns() // 1_000_000


def wall_us() -> int:
    """Wall clock in microseconds since 1970."""
    return time.time_ns() // 1_000
