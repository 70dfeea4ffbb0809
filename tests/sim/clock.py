"""Clocks that run at different rates: what a node believes about time. True time is in microseconds."""


class SimClock:
    """One machine's clock: started somewhere, running a little fast or slow, never backward."""

    __slots__ = ("_offset_us", "_rate_permille")

    def __init__(self, *, offset_us: int, rate_permille: int) -> None:
        self._offset_us = offset_us
        self._rate_permille = rate_permille

    def now_ms(self, true_us: int) -> int:
        return (true_us * self._rate_permille // 1000 + self._offset_us) // 1000

    def true_us_at(self, now_ms: int) -> int:
        """The first true microsecond at which this clock shows `now_ms` or later."""
        return -((self._offset_us - now_ms * 1000) * 1000 // self._rate_permille)
