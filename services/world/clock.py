"""Clocks of simulated computers: each runs a little fast or slow, may stand still, and may be set to sleep.

True time is the world's, in microseconds from its beginning. A computer has two clocks, as Linux does: the monotonic
one, which the event loop goes by, and the one that counts suspend as well, which leases go by (`common.clock`).
"""

#: A computer's clocks have run for so long when the world begins: nobody may take zero for "never".
BEGINNING_US = 1_000_000_000


class ComputerClock:
    """The clocks of one computer."""

    __slots__ = ("_local_us", "_rate_permille", "_suspended_us", "_true_us")

    def __init__(self, rate_permille: int = 1000, offset_us: int = 0) -> None:
        #: What the monotonic clock showed when it was last set, and the true time of that moment.
        self._local_us = BEGINNING_US + offset_us
        self._true_us = 0
        self._rate_permille = rate_permille
        self._suspended_us = 0

    def monotonic_us(self, true_us: int) -> int:
        """What the clock shows that stands still in suspend."""
        return self._local_us + (true_us - self._true_us) * self._rate_permille // 1000

    def boottime_us(self, true_us: int) -> int:
        """What the clock shows that counts suspend."""
        return self.monotonic_us(true_us) + self._suspended_us

    def true_us_at(self, monotonic_us: int) -> int | None:
        """The first true microsecond at which the monotonic clock shows this or more; None while it stands still
        before that."""
        ahead_us = monotonic_us - self._local_us
        if ahead_us <= 0:
            return self._true_us
        if not self._rate_permille:
            return None
        return self._true_us - (-ahead_us * 1000 // self._rate_permille)

    def set_rate(self, true_us: int, rate_permille: int) -> None:
        """From now on it runs so fast; 1000 is right, 0 stands still."""
        self._local_us, self._true_us = self.monotonic_us(true_us), true_us
        self._rate_permille = rate_permille

    def jump(self, true_us: int, by_us: int) -> None:
        """Both clocks go forward at once, as where a virtual machine is moved or goes on after a stop."""
        self._local_us, self._true_us = self.monotonic_us(true_us) + by_us, true_us

    def suspend(self, by_us: int) -> None:
        """The computer slept for so long: the monotonic clock has not noticed."""
        self._suspended_us += by_us
