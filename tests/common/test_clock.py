"""common/clock.py: one clock, in milliseconds, that does not run backward."""

import time

import pytest

from common.clock import now_ms, wall_us


def test_the_clock_never_runs_backward():
    """Goal: leases and timeouts may subtract two readings."""
    readings = [now_ms() for _ in range(1000)]

    assert sorted(readings) == readings


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_the_clock_counts_suspend():
    """Goal: a lease also ends while the machine sleeps, so the clock is CLOCK_BOOTTIME."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    reading = now_ms()

    assert before <= reading <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def test_the_wall_clock_counts_microseconds_since_1970():
    """Goal: names that begin with it are in the order of their days."""
    before = time.time_ns() // 1_000

    assert before <= wall_us() <= time.time_ns() // 1_000
