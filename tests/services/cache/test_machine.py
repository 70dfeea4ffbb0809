"""The cache's machine alone, command by command."""

import pytest

from common.wire import pack, unpack
from services.cache.replicated.commands import Delete, Fill, FillMany, Incr, Put, PutMany
from services.cache.replicated.limits import LINE_OVERHEAD_BYTES
from services.cache.replicated.machine import CacheMachine
from services.cache.replicated.store import SWEPT_PER_ENTRY_MAX, SWEPT_PER_KEY
from tests.services.cache.tools import Log, copy, observable


def _filled(value: bytes, state: str, version: int) -> dict:
    return {"hit": True, "val": value, "state": state, "version": version, "source": "fill"}


ABSENT = {"hit": False, "val": None, "state": "I"}


# Values, versions and states


def test_a_put_makes_the_writer_the_owner() -> None:
    log = Log()

    answer = log.apply(Put("k", b"1", "node1"))

    assert answer == {"ok": True, "version": 1, "state": "M"}
    assert log.states("k") == "MII"


def test_the_second_reader_shares_with_the_writer() -> None:
    log = Log()
    log.apply(Put("k", b'{"a": 1}', "node1"))

    answer = log.apply(Fill("k", "node3"))

    assert answer == _filled(b'{"a": 1}', "S", 1)
    assert log.states("k") == "SIS"


def test_the_writer_that_reads_stays_the_owner() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1"))

    assert log.apply(Fill("k", "node1")) == _filled(b"1", "M", 1)
    assert log.states("k") == "MII"


def test_a_write_takes_the_line_from_all_others() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1"))
    log.apply(Fill("k", "node2"))

    log.apply(Put("k", b"2", "node3"))

    assert log.states("k") == "IIM"
    (transition,) = log.transitions
    assert (transition.cause, transition.version_before, transition.version_after) == ("write", 1, 3)
    assert transition.before.holders == (("node1", "S"), ("node2", "S"))
    assert transition.after.holders == (("node3", "M"),)


def test_reading_an_absent_key_changes_nothing() -> None:
    log = Log()

    assert log.apply(Fill("k", "node1")) == ABSENT
    assert log.states("k") == "III"
    assert log.transitions == []


def test_a_fill_that_changes_no_state_tells_of_no_transition() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1"))

    log.apply(Fill("k", "node1"))

    assert log.transitions == []


def test_a_delete_makes_the_line_invalid_everywhere() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1"))

    assert log.apply(Delete("k")) == {"ok": True, "deleted": True}
    assert log.states("k") == "III"
    assert [transition.cause for transition in log.transitions] == ["delete"]
    assert log.apply(Delete("k")) == {"ok": True, "deleted": False}


def test_a_command_of_another_service_is_a_programmers_error() -> None:
    with pytest.raises(KeyError):
        Log().apply(object())


# if_version


def test_if_version_writes_over_exactly_that_version() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1"))

    assert log.apply(Put("k", b"2", "node1", if_version=1))["ok"]
    refused = log.apply(Put("k", b"3", "node1", if_version=1))

    assert refused == {"ok": False, "reason": "version_mismatch", "key": "k", "version": 2}
    assert log.machine.line("k").value == b"2"
    assert log.transitions == []


def test_if_version_zero_writes_only_where_the_key_is_absent() -> None:
    log = Log()

    assert log.apply(Put("k", b"1", "node1", if_version=0))["ok"]
    assert log.apply(Put("k", b"2", "node1", if_version=0))["version"] == 1


def test_an_expired_line_counts_as_absent_for_if_version() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1", ttl_ms=10))

    assert log.apply(Put("k", b"2", "node1", if_version=0), after_ms=10)["ok"]


def test_a_delete_with_another_version_is_refused() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1"))

    refused = log.apply(Delete("k", if_version=7))

    assert refused == {"ok": False, "reason": "version_mismatch", "key": "k", "version": 1}
    assert log.apply(Delete("k", if_version=1))["deleted"]


# incr


@pytest.mark.parametrize(
    ("before", "by", "after"), [(b"5", 3, b"8"), (b"-5", 5, b"0"), (b"0", -1, b"-1"), (b"-0", 1, b"1")]
)
def test_incr_adds_to_a_whole_number(before: bytes, by: int, after: bytes) -> None:
    log = Log()
    log.apply(Put("k", before, "node1"))

    answer = log.apply(Incr("k", by, "node2"))

    assert answer == {"ok": True, "value": int(after), "version": 2, "state": "M"}
    assert log.machine.line("k").value == after
    assert log.states("k") == "IMI"


def test_incr_counts_an_absent_key_as_zero() -> None:
    assert Log().apply(Incr("k", 4, "node1"))["value"] == 4


@pytest.mark.parametrize("value", [b'"5"', b"5.0", b"5e1", b"null", b"[]", b"true", b"9223372036854775808"])
def test_incr_refuses_what_is_no_whole_number_of_64_bits(value: bytes) -> None:
    log = Log()
    log.apply(Put("k", value, "node1"))

    answer = log.apply(Incr("k", 1, "node1"))

    assert answer == {"ok": False, "reason": "not_an_integer", "key": "k", "version": 1}
    assert log.machine.line("k").value == value


def test_incr_refuses_to_leave_64_bits() -> None:
    log = Log()
    log.apply(Put("k", b"9223372036854775806", "node1"))

    assert log.apply(Incr("k", 1, "node1"))["value"] == 2**63 - 1
    refused = log.apply(Incr("k", 1, "node1"))

    assert refused == {"ok": False, "reason": "out_of_range", "key": "k", "value": 2**63 - 1}


def test_incr_keeps_the_expiry_unless_it_brings_its_own() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1", ttl_ms=100))

    log.apply(Incr("k", 1, "node1"), after_ms=50)
    assert log.machine.line("k").expires_at == 1100
    log.apply(Incr("k", 1, "node1", ttl_ms=100))
    assert log.machine.line("k").expires_at == 1150


# Time to live


def test_a_line_is_gone_from_its_expiry_on_whether_or_not_it_was_swept() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1", ttl_ms=1001))

    assert log.apply(Fill("k", "node2"), after_ms=1000)["hit"]
    assert log.apply(Fill("k", "node2"), after_ms=1) == ABSENT
    assert [transition.cause for transition in log.transitions] == ["expire"]
    assert log.machine.statistics().expired == 1


def test_advance_sweeps_what_expired_and_says_when_it_will() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1", ttl_ms=1000))
    due_ms = log.machine.next_due_ms()

    log.advance(due_ms - log.time_ms)

    assert log.machine.statistics().lines == 0
    assert log.machine.next_due_ms() is None
    (transition,) = log.transitions
    assert (transition.cause, transition.after.holders) == ("expire", ())


def test_a_line_that_expired_but_was_not_swept_is_not_shown() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1", ttl_ms=10_001))

    log.advance(10_001)

    assert log.machine.statistics().lines == 1
    assert log.machine.line("k") is None


def test_a_rewrite_without_ttl_lives_on() -> None:
    log = Log()
    log.apply(Put("k", b"1", "node1", ttl_ms=100))
    log.apply(Put("k", b"2", "node1"))

    log.advance(1_000_000)

    assert log.machine.line("k").value == b"2"
    assert log.machine.next_due_ms() is None


def test_a_mass_expiry_is_swept_in_bounded_steps() -> None:
    """Goal: one entry never takes as long as a million lines would; what is left is due at once."""
    log = Log()
    for number in range(SWEPT_PER_ENTRY_MAX + 10):
        log.apply(Put(f"k{number}", b"1", "node1", ttl_ms=1000))

    log.advance(5000)
    assert log.machine.statistics().lines == 10
    assert log.machine.next_due_ms() <= log.time_ms
    log.advance(0)
    assert log.machine.statistics().lines == 0


def test_a_command_sweeps_little_beside_its_own_work() -> None:
    """Goal: who asks behind the end of a million lines does not wait for all of that. Yet more goes than comes."""
    log = Log()
    items = tuple((f"k{number}", b"1", 1000, None) for number in range(1000))
    for _ in range(2):
        log.apply(PutMany(items, "node1"))
    log.time_ms += 5000

    log.apply(Put("a", b"1", "node1"))
    after_one = log.machine.statistics().lines
    log.apply(PutMany(tuple((f"l{number}", b"1", 1000, None) for number in range(1000)), "node1"))

    assert after_one == 1000 - SWEPT_PER_KEY + 1
    assert log.machine.statistics().lines == 1 + 1000


# Several keys


def test_mput_writes_all_or_none() -> None:
    log = Log()
    log.apply(Put("b", b"0", "node1"))

    refused = log.apply(PutMany((("a", b"1", None, None), ("b", b"2", None, 0)), "node2"))
    assert refused == {"ok": False, "reason": "version_mismatch", "key": "b", "version": 1}
    assert (log.states("a"), log.states("b")) == ("III", "MII")

    done = log.apply(PutMany((("b", b"2", None, 1), ("a", b"1", 50, 0)), "node2"))
    assert done == {"ok": True, "version": 3, "state": "M"}
    assert (log.states("a"), log.states("b")) == ("IMI", "IMI")


def test_mfill_answers_every_key_and_takes_the_lines() -> None:
    log = Log()
    log.apply(Put("a", b"1", "node1"))

    answer = log.apply(FillMany(("b", "a", "a"), "node2"))

    assert answer == {"ok": True, "items": {"a": _filled(b"1", "S", 1), "b": ABSENT}}


# Eviction


def test_the_least_recently_written_or_filled_line_is_evicted() -> None:
    log = Log(CacheMachine(lines_max=2))
    log.apply(Put("a", b"1", "node1"))
    log.apply(Put("b", b"1", "node1"))
    log.apply(Fill("a", "node1"))

    log.apply(Put("c", b"1", "node1"))

    assert log.machine.page("", "", 10) == ["a", "c"]
    assert [(t.cause, t.key) for t in log.transitions] == [("write", "c"), ("evict", "b")]
    assert log.machine.statistics().evicted == 1


def test_lines_are_evicted_until_the_bytes_fit() -> None:
    log = Log(CacheMachine(bytes_max=30 + 3 * LINE_OVERHEAD_BYTES))
    for key in "abc":
        log.apply(Put(key, b"x" * 9, "node1", ttl_ms=1000))

    log.apply(Put("d", b"x" * 14, "node1"))

    assert log.machine.page("", "", 10) == ["c", "d"]
    assert log.machine.statistics().bytes == 25 + 2 * 350


def test_the_newest_line_is_never_evicted() -> None:
    log = Log(CacheMachine(bytes_max=10))
    log.apply(Put("a", b"1", "node1"))

    log.apply(Put("big", b"x" * 20, "node1"))

    assert log.machine.page("", "", 10) == ["big"]


#: What a line of 8 bytes counts for; the bytes of 4,000 of these; and a value for which 3,001 of them must go.
SMALL_BYTES = 8 + LINE_OVERHEAD_BYTES
FULL_BYTES = 4_000 * SMALL_BYTES
LARGE = b"x" * (3_000 * SMALL_BYTES - LINE_OVERHEAD_BYTES)


def _full_of_small_lines() -> Log:
    """4,000 lines of 8 bytes fill the store."""
    log = Log(CacheMachine(bytes_max=FULL_BYTES))
    for number in range(4_000):
        log.apply(Put(f"{number:07}", b"1", "node1"))
    assert log.machine.statistics().evicted == 0
    return log


def test_one_entry_evicts_a_bounded_number_of_lines() -> None:
    """A value for which 3,000 lines must go; the rest is due at once, and the bound holds again in the end."""
    log = _full_of_small_lines()

    log.apply(Put("large", LARGE, "node1"))
    evicted = [log.machine.statistics().evicted]
    while log.machine.next_due_ms() is not None:
        assert log.machine.next_due_ms() <= log.time_ms
        log.advance(0)
        evicted.append(log.machine.statistics().evicted)

    assert evicted == [1_000, 2_000, 3_000, 3_001]
    assert log.machine.statistics().bytes <= FULL_BYTES
    assert log.machine.line("large") is not None


def test_a_store_whose_evictions_are_behind_takes_no_more() -> None:
    """So it is never over its bound by more than a sixteenth and one entry. What frees room is always taken."""
    log = _full_of_small_lines()
    log.apply(Put("large", LARGE, "node1"))

    refused = [
        log.apply(command)
        for command in (Put("a", b"1", "node1"), Incr("b", 1, "node1"), PutMany((("c", b"1", None, None),), "node1"))
    ]
    log.apply(Delete("large"))
    done = log.apply(Put("a", b"1", "node1"))

    assert [answer.get("reason") for answer in refused] == ["overloaded", None, None]
    assert done["ok"]


def test_a_full_store_is_restored_as_it_was() -> None:
    """In the midst of its evictions, too."""
    log = _full_of_small_lines()
    log.apply(Put("large", LARGE, "node1"))

    restored = Log(copy(log.machine, bytes_max=FULL_BYTES))
    restored.index, restored.time_ms = log.index, log.time_ms

    for _ in range(4):
        log.advance(0)
        restored.advance(0)
        assert observable(restored.machine) == observable(log.machine)


# Snapshots


def _busy_log() -> Log:
    log = Log(CacheMachine(lines_max=40))
    for step in range(300):
        node = f"node{1 + step % 3}"
        log.apply(Put(f"k{step * 7 % 60}", b"%d" % step, node, ttl_ms=(step % 5) * 400 or None), after_ms=3)
        log.apply(Fill(f"k{step * 11 % 60}", f"node{1 + step // 3 % 3}"))
        if step % 10 == 0:
            log.apply(Delete(f"k{step % 60}"))
            items = tuple((f"k{n}", b"1", 500, None) for n in (step % 7, 9, 8))
            log.apply(PutMany(items, node))
    return log


def test_a_restored_machine_is_equal_in_every_respect() -> None:
    log = _busy_log()

    assert observable(copy(log.machine, lines_max=40)) == observable(log.machine)


def test_a_restored_machine_goes_on_as_the_first_one() -> None:
    """Goal: orders that no snapshot row holds (recency, buckets) come out the same, seen by what follows."""
    first = _busy_log()
    second = Log(copy(first.machine, lines_max=40))
    second.index, second.time_ms = first.index, first.time_ms

    for step in range(200):
        for log in (first, second):
            command = Put(f"n{step % 50}", b"1", "node1") if step % 2 else Fill(f"k{step % 60}", "node2")
            log.apply(command, after_ms=9)
        assert observable(second.machine) == observable(first.machine)


def test_a_snapshot_is_of_the_moment_when_it_was_asked_for() -> None:
    log = _busy_log()
    expected = list(log.machine.snapshot())

    records = log.machine.snapshot()
    for number in range(60):
        log.apply(Put(f"k{number}", b"changed", "node3"), after_ms=50)

    assert list(records) == expected


def test_restoring_replaces_what_was_there() -> None:
    log = _busy_log()

    log.machine.restore(list(CacheMachine().snapshot()))

    assert observable(log.machine) == observable(CacheMachine())


def test_each_line_is_a_record_of_a_snapshot_and_packs() -> None:
    """Goal: whoever sends a snapshot can cut it into chunks anywhere between lines."""
    log = _busy_log()

    records = unpack(pack(list(log.machine.snapshot())))

    assert sum(record[0] == "line" for record in records) == log.machine.statistics().lines
    restored = CacheMachine(lines_max=40)
    restored.restore(records)
    assert observable(restored) == observable(log.machine)


@pytest.mark.parametrize("records", [[], [["line", "k"]], [["machine", 0, 0, 0], ["queue", "q"]]])
def test_a_snapshot_of_something_else_is_refused(records: list) -> None:
    with pytest.raises(ValueError):
        CacheMachine().restore(records)
