"""The calendar of deadlines."""

import random

from services.queue.deadlines import STALE_NUMBERS_MAX, DeadlineCalendar


def popped_due(calendar: DeadlineCalendar, now_ms: int) -> list[int]:
    return list(iter(lambda: calendar.pop_due(now_ms), None))


def test_the_calendar_does_what_a_sorted_list_does() -> None:
    """Against a dumb twin: a dict that is sorted whenever something is due."""
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
    assert len(calendar._far_numbers) <= STALE_NUMBERS_MAX + 2
    assert calendar.next_due_ms() is None
