"""The judge of the cache's clients: for each rule a record that breaks it, and one that is just legal."""

from typing import Any

import pytest

from tests.shell.cache_judge import judge
from tests.shell.cache_record import Deed, Lease, Notice, Record, Watch

MS = 1_000
S = 1_000_000


def deed(kind: Any, key: str, asked_ms: int, told_ms: int | None, value: Any = None, **more: Any) -> Deed:
    told_us = None if told_ms is None else told_ms * MS
    fate = "unknown" if told_ms is None else "done"
    return Deed("c", kind, key, asked_ms * MS, value, told_us=told_us, **{"fate": fate, **more})


def found(*deeds: Deed, leases: tuple[Lease, ...] = (), told: tuple[Notice, ...] = (), prefix: str = "") -> str:
    record = Record()
    record.deeds += deeds
    record.leases += leases
    if told:
        record.watches.append(Watch("w", prefix, list(told)))
    return "\n".join(judge(record))


WROTE = deed("write", "key0.0", 0, 10, "a", version=5)


# Order and versions


def test_a_read_of_what_was_replaced_is_found() -> None:
    later = deed("write", "key0.0", 20, 30, "b", version=6)
    assert "had version 6" in found(WROTE, later, deed("read", "key0.0", 31, 40, "a", version=5))
    assert not found(WROTE, later, deed("read", "key0.0", 29, 40, "a", version=5))


def test_an_order_that_cannot_be_is_found() -> None:
    removed = deed("remove", "key0.0", 20, 30)
    assert "was never so" in found(WROTE, removed, deed("read", "key0.0", 31, 40, "a", version=5))
    assert not found(WROTE, removed, deed("read", "key0.0", 30, 40, "a", version=5))
    assert not found(WROTE, deed("remove", "key0.0", 20, None), deed("read", "key0.0", 31, 40))


def test_a_write_that_is_not_there_is_found() -> None:
    assert "was never so" in found(WROTE, deed("read", "key0.0", 11, 20))
    assert not found(deed("write", "key0.0", 0, None, "a"), deed("read", "key0.0", 11, 20))
    not_done = deed("write", "key0.0", 0, None, "a", fate="not done")
    assert "was never so" in found(not_done, deed("read", "key0.0", 11, 20, "a", version=5))


@pytest.mark.parametrize(("expects", "is_legal"), [("a", True), (None, False)])
def test_a_swap_finds_what_it_expects(expects: str | None, is_legal: bool) -> None:
    assert bool(found(WROTE, deed("swap", "key0.0", 20, 30, "b", expects=expects, version=6))) is not is_legal


def test_a_swap_is_refused_only_where_something_else_is_there() -> None:
    refused = deed("swap", "key0.0", 20, 30, "c", expects="a", fate="refused", version=5)
    assert not found(WROTE, deed("swap", "key0.0", 20, 30, "c", expects="b", fate="refused", version=5))
    assert found(WROTE, refused, deed("write", "key0.0", 40, 50, "d", version=5))
    unseen = deed("swap", "key0.0", 20, 30, "c", expects="a", fate="refused", version=6)
    assert "was never so" in found(WROTE, unseen)
    assert not found(WROTE, unseen, deed("write", "key0.0", 15, None, "b"))


def test_a_removal_says_whether_something_was_there() -> None:
    assert "was never so" in found(WROTE, deed("remove", "key0.0", 20, 30, found=False))
    assert not found(WROTE, deed("remove", "key0.0", 9, 30, found=False))


def test_a_value_goes_no_earlier_than_its_time_to_live() -> None:
    wrote = deed("write", "ttl0.0", 0, 10, "a", version=5, ttl_s=1.0)
    assert "was never so" in found(wrote, deed("read", "ttl0.0", 900, 960))
    assert not found(wrote, deed("read", "ttl0.0", 900, 971))
    assert not found(wrote, deed("read", "ttl0.0", 5_000, 5_001, "a", version=5))


def test_a_version_is_of_one_value_and_a_value_of_one_version() -> None:
    assert "is both" in found(WROTE, deed("write", "key0.0", 5, 30, "b", version=5))
    assert "has the versions" in found(WROTE, deed("read", "key0.0", 20, 30, "a", version=7))
    assert not found(WROTE, deed("write", "key1.0", 0, 10, "b", version=5))


def test_what_is_stale_was_written_once() -> None:
    later = deed("write", "key0.0", 20, 30, "b", version=6)
    assert not found(WROTE, later, deed("read", "key0.0", 40, 50, "a", version=5, is_stale=True))
    assert "never was" in found(WROTE, deed("read", "key0.0", 15, 19, "b", version=6, is_stale=True), later)


# Counters


def test_an_increment_is_neither_lost_nor_done_twice() -> None:
    first, second = deed("incr", "count0.0", 0, 10, 1, version=5), deed("incr", "count0.0", 0, 12, 2, version=6)
    assert not found(first, second, deed("read", "count0.0", 20, 30, 2, version=6))
    assert "at least" in found(first, second, deed("read", "count0.0", 20, 30, 1, version=5))
    assert "at most" in found(first, second, deed("read", "count0.0", 20, 30, 3, version=7))
    assert "twice" in found(first, deed("incr", "count0.0", 0, 12, 1, version=5))


def test_an_increment_of_which_nothing_is_known_may_count() -> None:
    unknown = deed("incr", "count0.0", 0, None)
    for told in (1, 2):
        assert not found(unknown, deed("incr", "count0.0", 20, 30, told, version=4 + told))
    assert "at most" in found(unknown, deed("incr", "count0.0", 20, 30, 3, version=7))


# Leases


def lease(token: int, asked_ms: int, told_ms: int, client: str = "c", **more: Any) -> Lease:
    return Lease("key0.0", client, token, asked_ms * MS, told_ms * MS, 1.0, **more)


def test_two_leases_do_not_run_at_once() -> None:
    one = lease(3, 0, 10)
    assert "ran at once" in found(deed("read", "key0.0", 0, 10), leases=(one, lease(4, 20, 960, "d")))
    assert not found(deed("read", "key0.0", 0, 10), leases=(one, lease(4, 20, 971, "d")))
    assert not found(deed("remove", "key0.0", 12, None), leases=(one, lease(4, 20, 30, "d")))
    assert "ran at once" in found(deed("remove", "key0.0", 31, None), leases=(one, lease(4, 20, 30, "d")))


def test_a_lease_that_others_asked_for_runs_from_what_stands_before_it() -> None:
    before = deed("write", "key1.0", 500, 510, "a", version=2)
    inherited = lease(3, 0, 600, is_own=False)
    later = lease(4, 600, 1_000, "d")
    assert not found(deed("read", "key0.0", 0, 10), leases=(inherited, later))
    reads = (before, deed("read", "key0.0", 0, 10))
    assert "ran at once" in found(*reads, leases=(inherited, later))
    assert not found(*reads, leases=(inherited, lease(4, 600, 1_471, "d")))


def test_a_lease_is_one_clients() -> None:
    read = deed("read", "key0.0", 0, 10)
    assert "two clients" in found(read, leases=(lease(3, 0, 10), lease(3, 0, 10, "d")))
    assert not found(read, leases=(lease(3, 0, 10), lease(3, 20, 30)))


def test_a_fill_is_refused_where_something_came_in_between() -> None:
    fill = deed("fill", "key0.0", 40, 50, "b", version=7, lease=3)
    wrote = deed("write", "key0.0", 11, 20, "a", version=4)
    gone = deed("remove", "key0.0", 22, 30)
    assert "was done although" in found(wrote, gone, fill, leases=(lease(3, 0, 10),))
    assert not found(fill, leases=(lease(3, 0, 10),))
    touching = deed("remove", "key0.0", 10, 20, found=False)
    assert not found(touching, fill, leases=(lease(3, 0, 10),))


def test_a_fill_is_not_refused_for_nothing() -> None:
    refused = deed("fill", "key0.0", 40, 50, "b", fate="refused", lease=3)
    assert "was refused although" in found(refused, leases=(lease(3, 0, 10),))
    assert not found(refused, deed("remove", "key0.0", 20, None), leases=(lease(3, 0, 10),))
    again = lease(3, 800, 810, is_own=False)
    retold = deed("fill", "key0.0", 980, 990, "b", fate="refused", lease=3)
    assert not found(retold, leases=(lease(3, 0, 10), again))
    late = deed("fill", "key0.0", 40, 980, "b", fate="refused", lease=3)
    assert not found(late, leases=(lease(3, 0, 10),))


# Watchers


def notice(name: str, index: int, number: int = 0, version: int = 0, before: int = 0, **more: Any) -> Notice:
    return Notice(name, 0, (index, number), "key0.0" if version or before else "", version, before, **more)


READY = notice("ready", 4, 9)


def test_each_change_follows_the_one_before() -> None:
    first = notice("write", 5, version=5)
    assert not found(told=(READY, first, notice("write", 7, version=7, before=5)))
    assert "of no gap" in found(told=(READY, first, notice("write", 7, version=7, before=6)))
    gap = notice("gap", 6, 9, reason="snapshot")
    assert not found(told=(READY, first, gap, notice("write", 7, version=7, before=6)))
    assert not found(told=(READY, first, Notice("lost", 0), READY, notice("write", 7, version=7, before=6)))


def test_nothing_is_told_twice() -> None:
    first, filled = notice("write", 5, version=5), notice("fill", 6, version=5, before=5)
    assert not found(told=(READY, first, notice("ready", 5), filled))
    assert "told of (5, 0) already" in found(told=(READY, first, notice("ready", 5), first))
    assert "goes on from" in found(told=(READY, first, notice("ready", 4, 9), filled))
    assert "told of (5, 0) already" in found(told=(READY, first, notice("gap", 4, 9, reason="slow")))


def test_a_change_has_the_version_that_its_cause_gives_it() -> None:
    first = notice("write", 5, version=5)
    assert "another version" in found(told=(READY, notice("write", 5, version=6)))
    assert "another version" in found(told=(READY, first, notice("delete", 6, version=6, before=5)))
    assert not found(told=(READY, first, notice("delete", 6, before=5), notice("write", 7, version=7)))


def test_a_watcher_is_told_of_what_it_asked_for_alone() -> None:
    told = (READY, notice("write", 5, version=5))
    assert "it watches 'tagged'" in found(told=told, prefix="tagged")
    assert not found(told=told, prefix="key")


def test_what_was_told_once_is_not_forgotten() -> None:
    assert "has forgotten" in found(told=(READY, notice("gap", 6, 9, reason="future")))
    assert not found(told=(READY, notice("gap", 6, 9, reason="history")))


def test_a_write_between_two_events_was_told_or_is_in_a_gap() -> None:
    wrote, later = deed("write", "key1.0", 0, 10, "a", version=5), notice("write", 8, version=8)
    assert "and not of" in found(wrote, told=(READY, later))
    assert not found(wrote, told=(READY, notice("gap", 6, 9, reason="snapshot"), later))
    assert not found(wrote, told=(notice("ready", 5, 9), later))
    told = Notice("write", 0, (5, 0), "key1.0", 5)
    assert not found(wrote, told=(READY, told, later))
    assert not found(wrote, told=(READY, later), prefix="key0")
