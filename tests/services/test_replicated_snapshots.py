"""A replica that was restored from a snapshot equals the one that took it, hash for hash, and goes on like it.

The whole `ReplicatedMachine` of every service: tables, orders, counters, deadlines, and the idempotency table with
keys whose request still waits (known bug 46).
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from raft.state_machine import ApplyContext
from services.cache.replicated.commands import Delete, Fill, Incr, Put, PutMany
from services.catalogue import SERVICES
from services.lock.replicated.commands import Acquire, CancelWait, Release
from services.node.maintenance import hash_of
from services.queue.replicated.commands import Ack, Configure, Dequeue, Enqueue, EnqueueBatch, Nack, Reject
from services.replicated import machine as replicated
from services.replicated.envelope import encode_command, fingerprint
from services.replicated.machine import ReplicatedMachine

#: Commands of a life, and of the life after it: (cluster time, command, idempotency key).
Life = list[tuple[int, Any, str | None]]


def lock_life() -> Life:
    return [
        (1_000, Acquire("a", "one", ttl_ms=60_000, node="node1"), "key-1"),
        (1_100, Acquire("b", "two", exclusive=False, node="node1"), None),
        (1_100, Acquire("b", "three", exclusive=False, node="node2"), None),
        (1_200, Acquire("a", "two", wait_ms=90_000, waiter="w1", node="node1", boot="x"), "key-2"),
        (1_300, Acquire("b", "four", wait_ms=50_000, waiter="w2", node="node2", boot="y"), None),
        (1_400, Acquire("a", "five", wait_ms=10, waiter="w3", node="node2", boot="y"), "key-3"),
        (1_500, Acquire("c", "one", node="node1"), "key-4"),
        (1_600, Release("c", "one"), None),
    ]


def lock_afterlife() -> Life:
    return [
        (2_000, Acquire("a", "two", wait_ms=90_000, waiter="w9", node="node3", boot="z"), "key-2"),
        (2_100, Release("a", "one"), None),
        (2_200, CancelWait("b", "four", "w2"), None),
        (70_000, Acquire("a", "nine", node="node3"), "key-1"),
        (70_001, Acquire("d", "nine", node="node3"), "key-5"),
    ]


def queue_life() -> Life:
    return [
        (1_000, Enqueue("q", b'"first"'), "key-1"),
        (1_000, EnqueueBatch(tuple(("q", b'"%d"' % n, n % 3, 0, 0) for n in range(600))), None),
        (1_100, Enqueue("q", b'"late"', delay_ms=5_000), None),
        (1_100, Enqueue("q", b'"short"', ttl_ms=3_000), None),
        (1_200, Configure("q", max_deliveries=2, visibility_ms=4_000), None),
        (1_300, Dequeue("q", 40), "key-2"),
        (1_400, Ack(3, None), None),
        (1_400, Nack(6, None), None),
        (1_500, Reject(9, None), None),
        (1_600, Enqueue("r", b'"other"'), "key-3"),
    ]


def queue_afterlife() -> Life:
    return [
        (2_000, Dequeue("q", 40), "key-2"),
        (2_100, Dequeue("q", 700), None),
        (9_000, Dequeue("q", 10), None),
        (9_100, Enqueue("q", b'"again"'), "key-1"),
        (30_000, Dequeue("q", 100), None),
    ]


def cache_life() -> Life:
    return [
        (1_000, Put("a", b"1", "node1"), "key-1"),
        (1_000, PutMany(tuple((f"many-{n}", b'"v"', None, None) for n in range(500)), "node2"), None),
        (1_100, Put("b", b"2", "node2", ttl_ms=5_000), None),
        (1_200, Fill("a", "node3"), None),
        (1_300, Incr("count", 5, "node1"), "key-2"),
        (1_400, Delete("many-7"), None),
        (1_500, Put("many-8", b'"w"', "node3"), None),
    ]


def cache_afterlife() -> Life:
    return [
        (2_000, Incr("count", 5, "node1"), "key-2"),
        (2_100, Incr("count", 1, "node1"), "key-3"),
        (9_000, Fill("b", "node1"), None),
        (9_100, Fill("a", "node2"), None),
        (9_200, Put("many-7", b'"x"', "node2", if_version=0), None),
    ]


LIVES = {
    "lock": (lock_life, lock_afterlife),
    "queue": (queue_life, queue_afterlife),
    "cache": (cache_life, cache_afterlife),
}


def live(machine: ReplicatedMachine, life: Life, *, first_index: int) -> list[tuple[Any, list]]:
    """Apply a life; the answers, and the events that listeners hear."""
    told = []
    for number, (time_ms, command, key) in enumerate(life):
        context = ApplyContext(first_index + number, time_ms)
        mark = None if key is None else fingerprint(command)
        data = encode_command(command, idempotency_key=key, fingerprint=mark)
        told.append((machine.apply(context, data), [event for event in context.events if event[0] != "cache.line"]))
    return told


def restored(group: str, chunks: Iterable[bytes]) -> ReplicatedMachine:
    machine = ReplicatedMachine(SERVICES[group].machine)
    machine.restore(chunks)
    return machine


def digest(machine: ReplicatedMachine) -> str:
    return asyncio.run(hash_of(machine.snapshot()))


@pytest.mark.parametrize("group", LIVES)
def test_a_restored_replica_equals_the_original_and_goes_on_like_it(group: str) -> None:
    """Equal bytes now, and after everything that may happen next: answers, events, deadlines."""
    life, afterlife = LIVES[group]
    original = ReplicatedMachine(SERVICES[group].machine)
    live(original, life(), first_index=1)
    assert len(original.idempotency) > 0

    copy = restored(group, list(original.snapshot()))
    hashes = digest(original), digest(copy)
    due = original.next_due_ms(), copy.next_due_ms()
    told = [live(machine, afterlife(), first_index=100) for machine in (original, copy)]

    assert hashes[0] == hashes[1]
    assert due[0] == due[1]
    assert told[0] == told[1]
    assert digest(original) == digest(copy) != hashes[0]


@pytest.mark.parametrize("group", LIVES)
def test_a_snapshot_is_of_the_moment_at_which_it_was_taken(group: str) -> None:
    """Entries that are applied while it is drained are not in it, in no part of it."""
    life, afterlife = LIVES[group]
    machine = ReplicatedMachine(SERVICES[group].machine)
    live(machine, life(), first_index=1)
    wanted = digest(machine)

    chunks = machine.snapshot()
    live(machine, afterlife(), first_index=100)

    assert digest(restored(group, chunks)) == wanted


def test_chunks_are_closed_by_the_bytes_that_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue's records hold hundreds of messages each; all in one chunk would be beyond what can be packed."""
    monkeypatch.setattr(replicated, "CHUNK_BYTES", 4_096)
    machine = ReplicatedMachine(SERVICES["queue"].machine)
    live(machine, [(1_000, Enqueue("q", b'"%s"' % (b"x" * 1_000)), None) for _ in range(2_000)], first_index=1)

    sizes = [len(chunk) for chunk in machine.snapshot()]

    assert len(sizes) > 5
    assert max(sizes) < 4_096 + 300_000


@pytest.mark.parametrize("group", ["lock", "queue"])
def test_numbers_that_were_given_after_a_backup_are_not_given_again(group: str) -> None:
    """Fencing tokens, message ids and receipts: a client may hold them still."""
    ask = Acquire("new", "me") if group == "lock" else Enqueue("q", b"1")
    field = "token" if group == "lock" else "msg_id"
    machine = ReplicatedMachine(SERVICES[group].machine)
    live(machine, LIVES[group][0](), first_index=1)
    backup = list(machine.snapshot())
    [(after_backup, _)] = live(machine, [(2_000, ask, None)], first_index=100)

    anew = restored(group, backup)
    anew.inner.skip_numbers(1_000)
    [(after_restore, _)] = live(restored(group, anew.snapshot()), [(2_000, ask, None)], first_index=100)

    assert int(after_restore[field]) == int(after_backup[field]) + 1_000
