"""The alarm of a node: at its time, not before, and putting it off costs no timer."""

from collections.abc import Callable

import pytest

from raft import alarm
from raft.alarm import Alarm
from tests.helpers import ManualClock


class Handle:
    def __init__(self, at_ms: int, callback: Callable[[], None]) -> None:
        self.at_ms = at_ms
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """As much of an event loop as an alarm uses, on a clock that the test turns."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.handles: list[Handle] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Handle:
        self.handles.append(Handle(self.clock() + round(delay_s * 1000), callback))
        return self.handles[-1]

    def pass_ms(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.clock.advance(1)
            due = [each for each in self.handles if each.at_ms <= self.clock() and not each.cancelled]
            self.handles = [each for each in self.handles if each not in due]
            for handle in due:
                handle.callback()


class Woken:
    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.at: list[int] = []

    def __call__(self) -> None:
        self.at.append(self.clock())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0)


@pytest.fixture
def loop(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop(clock)
    monkeypatch.setattr(alarm.asyncio, "get_running_loop", lambda: loop)
    return loop


def test_it_wakes_once_at_the_time_that_was_set(clock: ManualClock, loop: Loop) -> None:
    woken = Woken(clock)
    Alarm(clock, woken).set(10, clock())

    loop.pass_ms(50)

    assert woken.at == [10]


def test_what_is_put_off_wakes_at_the_new_time_only_and_starts_no_timer(clock: ManualClock, loop: Loop) -> None:
    """A heartbeat every 50 ms puts an election off: that must cost nothing."""
    woken = Woken(clock)
    subject = Alarm(clock, woken)
    for _ in range(20):
        subject.set(clock() + 400, clock())
        assert len(loop.handles) == 1
        loop.pass_ms(50)

    last_set_ms = clock() - 50
    loop.pass_ms(1_000)

    assert woken.at == [last_set_ms + 400]


def test_an_earlier_time_replaces_a_later_one(clock: ManualClock, loop: Loop) -> None:
    woken = Woken(clock)
    subject = Alarm(clock, woken)
    subject.set(100, clock())
    subject.set(20, clock())

    loop.pass_ms(200)

    assert woken.at == [20]


def test_a_time_that_has_passed_is_the_next_millisecond(clock: ManualClock, loop: Loop) -> None:
    """Never a loop that does not let others run."""
    woken = Woken(clock)
    clock.advance(500)
    Alarm(clock, woken).set(100, clock())

    loop.pass_ms(10)

    assert woken.at == [501]


def test_a_cancelled_alarm_is_silent(clock: ManualClock, loop: Loop) -> None:
    woken = Woken(clock)
    subject = Alarm(clock, woken)
    subject.set(10, clock())
    subject.cancel()

    loop.pass_ms(100)

    assert woken.at == []
