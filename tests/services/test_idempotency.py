"""The table of kept answers: bounded in bytes, forgotten in time, and never a reason for `apply` to raise."""

import pytest

from common.wire import MESSAGE_BYTES_MAX
from raft.state_machine import ApplyContext
from services.lock.replicated.commands import Acquire
from services.lock.replicated.machine import LockMachine
from services.queue.replicated.commands import Dequeue, Enqueue, Pop
from services.queue.replicated.machine import QueueMachine
from services.replicated import idempotency
from services.replicated.envelope import encode_command, fingerprint
from services.replicated.idempotency import (
    FORGOTTEN_PER_ENTRY_MAX,
    KEEP_MS,
    LIMITS,
    ROW_OVERHEAD_BYTES,
    IdempotencyTable,
    answer_of,
)
from services.replicated.limits import Limits, SetLimits
from services.replicated.machine import ReplicatedMachine


class Log:
    """One replicated machine."""

    def __init__(self, machine: type) -> None:
        self.machine = ReplicatedMachine(machine)
        self.index = 0
        self.time_ms = 1_000

    def __call__(self, command, key: str | None = None) -> dict:
        self.index += 1
        mark = None if key is None else fingerprint(command)
        data = encode_command(command, idempotency_key=key, fingerprint=mark)
        return self.machine.apply(ApplyContext(self.index, self.time_ms), data)


def kept(table: IdempotencyTable, key: str, answer: dict, time_ms: int = 0, waiter: str | None = None) -> None:
    table.keep(key, b"f", answer, waiter=waiter, time_ms=time_ms)


def test_answers_are_bounded_in_bytes_and_the_oldest_go_first() -> None:
    bytes_max = 3 * (ROW_OVERHEAD_BYTES + 1_100)
    limits = Limits(LIMITS)
    limits.set([("idempotency_bytes_max", bytes_max)])
    table = IdempotencyTable(limits)

    for number in range(5):
        kept(table, f"k{number}", {"ok": True, "item": b"x" * 1_000})

    assert [table.find(f"k{number}", 0) is not None for number in range(5)] == [False, False, True, True, True]
    assert table.forgotten_early == 2
    assert 3 * ROW_OVERHEAD_BYTES < table.bytes <= bytes_max


def test_a_lowered_bound_is_reached_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a limit that is set in the log reaches the table, also that of a replica which was restored."""
    monkeypatch.setattr(idempotency, "ROOM_PER_ENTRY_MAX", 3)
    log = Log(QueueMachine)
    for number in range(8):
        log(Enqueue("q", b"1"), f"k{number}")
    log(SetLimits((("idempotency_keys_max", 2),)))
    copy = Log(QueueMachine)
    copy.machine.restore(list(log.machine.snapshot()))
    copy.index = log.index
    left = []

    for number in range(8, 11):
        for each in (log, copy):
            each(Enqueue("q", b"1"), f"k{number}")
        left.append((log.machine.used()["idempotency_keys_max"], len(copy.machine.idempotency)))

    assert left == [(6, 6), (4, 4), (2, 2)]


def test_the_bytes_of_a_table_follow_every_change() -> None:
    """Settled, forgotten, restored: never a drift."""
    table = IdempotencyTable()
    kept(table, "waits", {"waiting": True}, waiter="w")
    kept(table, "withdrawn", {"waiting": True}, waiter="v")
    table.settle("w", {"ok": True, "token": 1})
    table.settle("v", {"ok": False, "reason": "cancelled"})
    copy = IdempotencyTable()
    copy.restore(table.snapshot()[1])

    assert copy.bytes == table.bytes > ROW_OVERHEAD_BYTES
    for each in (table, copy):
        each.settle("w", {"ok": False, "reason": "cancelled"})
        assert (each.bytes, len(each)) == (0, 0)


def test_an_answer_that_cannot_be_kept_is_replaced_by_a_word() -> None:
    """Longer than what can be packed: raising would stop every node, again at each restart."""
    table = IdempotencyTable()

    kept(table, "k", {"ok": True, "item": b"x" * MESSAGE_BYTES_MAX})

    assert answer_of(table.find("k", 0)) == {"ok": True, "answer": "not_kept"}


def test_keys_are_forgotten_in_time_though_no_command_with_a_key_comes() -> None:
    """A bounded number with each entry."""
    log = Log(QueueMachine)
    for number in range(FORGOTTEN_PER_ENTRY_MAX + 1):
        log(Enqueue("q", b"1"), f"k{number}")
    log.time_ms += KEEP_MS

    left = []
    for _ in range(2):
        log(Enqueue("q", b"1"))
        left.append(len(log.machine.idempotency))

    assert left == [1, 0]


def test_a_key_whose_time_is_over_is_new_though_its_row_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "FORGOTTEN_PER_ENTRY_MAX", 0)
    log = Log(QueueMachine)
    log(Enqueue("q", b"1"), "k")
    log.time_ms += KEEP_MS

    again = log(Enqueue("q", b"1"), "k")

    assert again == {"ok": True, "msg_id": "2"}


def test_a_delivery_is_kept_without_its_payloads() -> None:
    """Two messages of the largest legal size in one answer cannot be packed; the queue holds them anyhow."""
    log = Log(QueueMachine)
    payload = b'"' + b"x" * (4 * 1024 * 1024 - 40) + b'"'
    for _ in range(2):
        log(Enqueue("q", payload))

    first = log(Dequeue("q", max=2, visibility_ms=9_000), "k")
    again = log(Dequeue("q", max=2, visibility_ms=9_000), "k")

    assert [message["payload"] for message in first["messages"]] == [payload, payload]
    assert again == {**first, "replayed": True}
    assert log.machine.idempotency.bytes < 2_000


def test_an_item_of_the_largest_size_is_kept() -> None:
    """It is in no queue any more: the answer is all that there is of it."""
    log = Log(QueueMachine)
    payload = b'"' + b"x" * (4 * 1024 * 1024 - 40) + b'"'
    log(Enqueue("q", payload))

    first = log(Pop("q"), "k")
    again = log(Pop("q"), "k")

    assert first["item"] == payload
    assert again == {**first, "replayed": True}


def test_a_cycle_of_many_owners_with_long_names_can_be_refused_under_a_key() -> None:
    """Named in full, two thousand owners would fill a hundred answers like it; ten thousand, none could be packed."""
    log = Log(LockMachine)

    def name(kind: str, number: int) -> str:
        return f"{kind}{number}".ljust(256, "x")

    count = 2_000
    for number in range(count):
        log(Acquire(name("k", number), name("o", number)))
    for number in range(count - 1):
        log(Acquire(name("k", number + 1), name("o", number), wait_ms=3_600_000, waiter=f"w{number}"))

    refused = log(Acquire(name("k", 0), name("o", count - 1), wait_ms=3_600_000, waiter="last"), "key")

    assert (refused["reason"], refused["cycle_length"], len(refused["cycle"])) == ("deadlock", count, 16)
