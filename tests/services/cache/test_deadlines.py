"""The buckets in which lines wait for their sweep."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.replicated.deadlines import Deadlines, sweep_time_ms

YEAR_MS = 365 * 24 * 3600 * 1000


@given(st.integers(0, 2**50), st.integers(1, YEAR_MS))
def test_a_bucket_is_due_after_the_expiry_and_soon(now_ms: int, ttl_ms: int) -> None:
    """Goal: never before the line has expired, and late by at most 16 ms or 1/32 of the time to live."""
    late_ms = sweep_time_ms(now_ms, now_ms + ttl_ms) - (now_ms + ttl_ms)

    assert 0 <= late_ms < max(16, ttl_ms // 32 + 1)


def test_keys_come_out_when_due_and_in_no_other_bucket() -> None:
    deadlines = Deadlines()
    deadlines.add("late", 200)
    deadlines.add("a", 100)
    deadlines.add("b", 100)

    assert deadlines.next_due_ms() == 100
    assert deadlines.pop_due(99) is None
    assert [deadlines.pop_due(100) for _ in range(3)] == ["b", "a", None]
    assert deadlines.next_due_ms() == 200


def test_a_removed_key_leaves_nothing_due() -> None:
    deadlines = Deadlines()
    deadlines.add("a", 100)

    deadlines.remove("a", 100)

    assert deadlines.next_due_ms() is None
    assert deadlines.pop_due(1000) is None


def test_rewriting_keys_for_ever_keeps_the_buckets_few() -> None:
    """Goal: what a heap with lazy deletion would pile up does not exist."""
    deadlines = Deadlines()

    for step in range(20_000):
        sweep_at = sweep_time_ms(step, step + 1 + step * step % YEAR_MS)
        deadlines.add("key", sweep_at)
        deadlines.remove("key", sweep_at)

    assert len(deadlines._buckets) == len(deadlines._times) < 2500
