"""The calendar of deadlines."""

import random

import pytest

from services.queue.replicated import deadlines
from services.queue.replicated.deadlines import UNSORTED_MAX, DeadlineCalendar


def popped_due(calendar: DeadlineCalendar, now_ms: int) -> list[int]:
    return list(iter(lambda: calendar.pop_due(now_ms), None))


@pytest.mark.parametrize("unsorted_max", [UNSORTED_MAX, 3])
def test_the_calendar_does_what_a_sorted_list_does(unsorted_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a dumb twin: a dict that is sorted whenever something is due. With large buckets, too."""
    monkeypatch.setattr(deadlines, "UNSORTED_MAX", unsorted_max)
    rng = random.Random(3)
    calendar, twin = DeadlineCalendar(), {}
    now_ms = 0
    for message_id in range(1, 4000):
        deadline_ms = now_ms + rng.choice((1, 10, 900, 5000, 60_000))
        calendar.set(message_id, deadline_ms)
        twin[message_id] = deadline_ms
        if rng.random() < 0.5:
            gone = rng.choice(sorted(twin))
            calendar.clear(gone, twin.pop(gone))
        if rng.random() < 0.3:
            now_ms += rng.choice((1, 300, 2000))
            expected = sorted((due_ms, key) for key, due_ms in twin.items() if due_ms <= now_ms)
            assert [key for _, key in expected] == popped_due(calendar, now_ms)
            twin = {key: due_ms for key, due_ms in twin.items() if due_ms > now_ms}
        next_ms = calendar.next_due_ms()
        assert len(calendar) == len(twin)
        assert (next_ms is None) == (not twin)
        assert next_ms is None or now_ms < next_ms <= min(twin.values()) < next_ms + 1024


def test_forgotten_deadlines_leave_nothing_behind() -> None:
    """A million deliveries that are acknowledged at once must not fill a heap until their visibility ends."""
    calendar = DeadlineCalendar()
    for message_id in range(20_000):
        calendar.set(message_id, 30_000 + message_id)
        calendar.clear(message_id, 30_000 + message_id)

    assert len(calendar) == 0
    assert len(calendar._far_numbers) == 0
    assert calendar.next_due_ms() is None


def test_a_large_bucket_is_in_order_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """300,000 deadlines of one millisecond: no step puts more than `UNSORTED_MAX` of them in order."""
    sizes: list[int] = []
    in_order = deadlines._in_order
    monkeypatch.setattr(deadlines, "_in_order", lambda bucket: (sizes.append(len(bucket)), in_order(bucket))[1])
    calendar: DeadlineCalendar[int] = DeadlineCalendar()
    for message_id in range(300_000):
        calendar.set(message_id, 30_000)

    first = [calendar.pop_due(30_000) for _ in range(3)]

    assert first == [0, 1, 2]
    assert len(calendar) == 299_997
    assert sizes == [UNSORTED_MAX + 1]


def test_what_was_popped_late_leaves_the_order_as_it_is() -> None:
    """Several buckets are due, and their deadlines are handled a few at a time, with new ones in between."""
    calendar: DeadlineCalendar[int] = DeadlineCalendar()
    for message_id in range(10):
        calendar.set(message_id, 1_500 * (message_id + 1))

    first = [calendar.pop_due(60_000) for _ in range(3)]
    calendar.set(99, 8_000)
    calendar.clear(5, 9_000)

    assert first == [0, 1, 2]
    assert popped_due(calendar, 60_000) == [3, 4, 99, 6, 7, 8, 9]
