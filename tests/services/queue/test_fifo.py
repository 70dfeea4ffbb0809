"""The order of ready messages."""

import random

from services.queue.replicated.fifo import CHUNK_IDS, Fifo


def drained(fifo: Fifo) -> list[int]:
    ids = []
    while (message_id := fifo.pop()) is not None:
        ids.append(message_id)
    return ids


def test_ids_come_out_as_they_went_in() -> None:
    """Through many chunks, with pops in between, until it is empty and on."""
    fifo = Fifo()
    out: list[int] = []
    for message_id in range(3 * CHUNK_IDS):
        fifo.append(message_id)
        if message_id % 3 == 0:
            out.append(fifo.pop())  # type: ignore[arg-type]
    out += drained(fifo)
    fifo.append(7)

    assert out == list(range(3 * CHUNK_IDS))
    assert drained(fifo) == [7]
    assert fifo.pop() is None


def test_a_copy_keeps_what_was_there_at_its_time() -> None:
    """Pops, appends and sweeps after it do not show."""
    fifo = Fifo()
    for message_id in range(5 * CHUNK_IDS + 10):
        fifo.append(message_id)
    fifo.pop()
    frozen = fifo.copy()

    for message_id in range(CHUNK_IDS):
        fifo.append(10**6 + message_id)
        fifo.note_removed(lambda message_id: message_id % 5 == 0)
    drained(fifo)

    assert list(frozen) == list(range(1, 5 * CHUNK_IDS + 10))


def test_stale_ids_stay_a_bounded_share() -> None:
    """One message in a hundred lives long, the others expire unread: what is kept is near to what lives."""
    rng = random.Random(1)
    fifo = Fifo()
    live: set[int] = set()
    recent: list[int] = []
    for message_id in range(300_000):
        fifo.append(message_id)
        live.add(message_id)
        if rng.random() > 0.01:
            recent.append(message_id)
        if len(recent) > 500:
            live.discard(recent.pop(rng.randrange(500)))
            fifo.note_removed(live.__contains__)

    assert len(fifo) < 3 * len(live) + 4 * CHUNK_IDS
    assert [message_id for message_id in drained(fifo) if message_id in live] == sorted(live)
