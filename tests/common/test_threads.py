"""common/threads.py: what the system's threads, queues and events promise to those that use them."""

import queue
import threading

import pytest

from common.threads import SYSTEM_THREADS
from tests.helpers import WITHIN_SECONDS


def test_a_thread_runs_under_its_name_and_cannot_keep_the_process() -> None:
    """A disk that hangs must not hold up the end of a node."""
    found: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()

    SYSTEM_THREADS.start("disk", lambda: found.put(threading.current_thread()))
    thread = found.get(timeout=WITHIN_SECONDS)

    assert (thread.name, thread.daemon) == ("disk", True)


@pytest.mark.parametrize("size_max", [0, 2])
def test_a_queue_gives_in_order_and_says_when_it_has_nothing(size_max: int) -> None:
    things = SYSTEM_THREADS.queue(size_max)
    things.put("a")
    things.put_nowait("b")

    assert [things.get(), things.get(timeout=WITHIN_SECONDS)] == ["a", "b"]
    with pytest.raises(queue.Empty):
        things.get_nowait()
    with pytest.raises(queue.Empty):
        things.get(timeout=0.001)


def test_only_a_bounded_queue_is_ever_full() -> None:
    bounded, unbounded = SYSTEM_THREADS.queue(2), SYSTEM_THREADS.queue()
    for things in (bounded, unbounded):
        things.put(1)
        things.put(2)

    assert (bounded.full(), unbounded.full()) == (True, False)
    with pytest.raises(queue.Full):
        bounded.put_nowait(3)


def test_an_event_is_set_once_and_waiting_tells() -> None:
    event = SYSTEM_THREADS.event()

    assert (event.is_set(), event.wait(0.001)) == (False, False)
    event.set()
    assert (event.is_set(), event.wait(0)) == (True, True)


def test_the_clock_of_threads_does_not_run_backward() -> None:
    readings = [SYSTEM_THREADS.monotonic() for _ in range(100)]

    assert sorted(readings) == readings
