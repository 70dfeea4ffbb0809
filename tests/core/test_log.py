"""The log in memory: what each index means, what may replace what, and where two logs may meet."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.core.log import ENTRY_OVERHEAD_BYTES, RaftLog
from raft.core.types import Configuration, Entry, SnapshotMeta
from tests.core.replica import entries, entry

THREE = Configuration(("a", "b", "c"))


def make_log(*terms: int, snapshot: tuple[int, int] = (0, 0)) -> RaftLog:
    """A recovered log: these terms behind a snapshot at (index, term)."""
    meta = SnapshotMeta(snapshot[0], snapshot[1], 0, THREE)
    return RaftLog(meta, entries(*terms, first=snapshot[0] + 1))


def meta(index: int, term: int) -> SnapshotMeta:
    return SnapshotMeta(index, term, 0, THREE)


def test_what_the_disk_held_is_durable_and_nothing_of_it_is_committed_yet() -> None:
    """Paper Figure 2: the commit index starts anew; what stands behind a snapshot was committed."""
    log = make_log(1, 2, snapshot=(5, 1))

    assert (log.durable_index, log.submitted_index, log.last_index) == (7, 7, 7)
    assert (log.commit_index, log.applied_index) == (5, 5)
    assert (log.first_index, log.last_term) == (6, 2)


def test_recovered_entries_must_follow_the_snapshot() -> None:
    """A gap would be a bug of the storage: better no start than a log with a hole."""
    with pytest.raises(AssertionError):
        RaftLog(meta(5, 1), entries(1, first=7))


def test_terms_are_known_from_the_compaction_point_on() -> None:
    """The term of the last entry that is gone is kept: the next append's consistency check needs it (paper 7)."""
    log = make_log(2, 3, snapshot=(5, 1))

    assert [log.term_at(index) for index in range(4, 9)] == [None, 1, 2, 3, None]
    assert make_log().term_at(0) == 0


def test_up_to_date_compares_the_last_terms_and_only_then_the_lengths() -> None:
    """known bug 12: all pairs, against the paper's words (5.4.1)."""
    pairs = [(index, term) for index, term in product(range(1, 5), range(1, 5))]

    for (own_index, own_term), (index, term) in product(pairs, pairs):
        log = make_log(*[1] * (own_index - 1), own_term)
        if term != own_term:
            expected = term > own_term
        else:
            expected = index >= own_index
        assert log.is_up_to_date(index, term) is expected, (own_index, own_term, index, term)


def test_an_empty_log_finds_every_log_up_to_date() -> None:
    assert make_log().is_up_to_date(0, 0)
    assert make_log().is_up_to_date(1, 1)
    assert not make_log(1).is_up_to_date(0, 0)


def test_appending_in_the_middle_replaces_all_that_follows() -> None:
    """Paper 5.3: the conflicting entry and everything behind it; nothing of it stays durable or submitted."""
    log = make_log(1, 1, 1, 1)

    log.append([entry(3, 2)])

    assert [log.entry(index).term for index in (1, 2, 3)] == [1, 1, 2]
    assert (log.last_index, log.durable_index, log.submitted_index) == (3, 2, 2)


def test_a_committed_entry_is_never_replaced() -> None:
    """Paper 5.4.3: that would be a bug of ours, so it is an assertion."""
    log = make_log(1, 1, 1)
    log.commit_to(2)

    with pytest.raises(AssertionError):
        log.append([entry(2, 2)])


def test_appending_leaves_no_gap() -> None:
    with pytest.raises(AssertionError):
        make_log(1).append([entry(3, 1)])


def test_the_commit_index_never_falls() -> None:
    log = make_log(1, 1, 1)
    assert log.commit_to(2)

    assert not log.commit_to(1)
    assert not log.commit_to(2)
    assert log.commit_index == 2


def test_what_is_not_in_the_log_cannot_be_committed() -> None:
    """known bug 25: etcd's lagging commit; the callers bound what they pass."""
    with pytest.raises(AssertionError):
        make_log(1).commit_to(2)


def test_committed_entries_are_handed_out_once_and_in_order() -> None:
    """Paper 5.3: applied in log order."""
    log = make_log(1, 1, 1)
    log.commit_to(3)

    first = log.take_committed(entries_max=2, bytes_max=1 << 20)
    second = log.take_committed(entries_max=2, bytes_max=1 << 20)

    assert [e.index for e in first + second] == [1, 2, 3]
    assert log.take_committed(entries_max=2, bytes_max=1 << 20) == ()
    assert log.applied_index == 3


def test_entries_are_handed_to_the_disk_once() -> None:
    log = make_log(1)
    log.append(entries(1, 1, first=2))

    assert [e.index for e in log.take_unsubmitted()] == [2, 3]
    assert log.take_unsubmitted() == ()


def test_replaced_entries_are_handed_to_the_disk_again() -> None:
    """known bug 27's neighbour: memory and disk must not go different ways."""
    log = make_log(1)
    log.append(entries(1, 1, first=2))
    log.take_unsubmitted()

    log.append([entry(2, 2)])

    assert [(e.index, e.term) for e in log.take_unsubmitted()] == [(2, 2)]


def test_only_what_the_disk_was_given_can_be_durable() -> None:
    log = make_log(1)
    log.append([entry(2, 1)])

    with pytest.raises(AssertionError):
        log.on_durable(2)
    log.take_unsubmitted()
    assert log.on_durable(2)
    assert not log.on_durable(1)


def test_a_slice_holds_at_least_one_entry_and_stays_within_both_bounds() -> None:
    """An entry larger than the bound still has to be sent."""
    log = RaftLog(SnapshotMeta(), [entry(i, 1, b"x" * 10) for i in range(1, 6)])

    assert [e.index for e in log.slice(2, entries_max=9, bytes_max=1)] == [2]
    assert [e.index for e in log.slice(2, entries_max=9, bytes_max=20)] == [2, 3]
    assert [e.index for e in log.slice(2, entries_max=2, bytes_max=1000)] == [2, 3]
    assert [e.index for e in log.slice(2, entries_max=9, bytes_max=1000, end=4)] == [2, 3, 4]


def test_a_compacted_entry_is_not_sliced() -> None:
    with pytest.raises(AssertionError):
        make_log(1, snapshot=(5, 1)).slice(5, entries_max=1, bytes_max=1)


# Compaction


def compacted(*, retain: int = 0) -> RaftLog:
    log = make_log(1, 1, 2, 2)
    log.commit_to(3)
    log.take_committed(entries_max=9, bytes_max=99)
    log.compact(meta(3, 2), 3 + 1 - retain)
    return log


def test_compaction_forgets_up_to_the_snapshot_and_keeps_its_term() -> None:
    log = compacted()

    assert (log.first_index, log.last_index) == (4, 4)
    assert log.term_at(3) == 2
    assert log.snapshot.index == 3


def test_compaction_keeps_what_is_asked_for() -> None:
    """Followers a little behind are then fed from memory instead of a snapshot."""
    assert compacted(retain=2).first_index == 2


def test_compaction_stops_at_what_is_durable() -> None:
    """known bug 52's neighbour: an entry that is not on disk yet must not be forgotten."""
    log = RaftLog(SnapshotMeta(configuration=THREE), [])
    log.append(entries(1, 1, 1))
    log.take_unsubmitted()
    log.on_durable(2)
    log.commit_to(3)
    log.take_committed(entries_max=9, bytes_max=99)

    log.compact(meta(3, 1), 4)

    assert log.first_index == 3


def test_a_snapshot_of_what_was_not_applied_is_a_bug() -> None:
    log = make_log(1, 1)

    with pytest.raises(AssertionError):
        log.compact(meta(2, 1), 3)


def test_an_older_snapshot_changes_nothing() -> None:
    """known bug 41."""
    log = compacted()

    log.compact(meta(2, 1), 3)

    assert log.snapshot.index == 3
    assert log.first_index == 4


def test_a_log_can_be_compacted_to_its_very_end() -> None:
    """known bug 49: last index and term are still known, so appends and votes go on."""
    log = make_log(1, 1)
    log.commit_to(2)
    log.take_committed(entries_max=9, bytes_max=99)

    log.compact(meta(2, 1), 3)

    assert (log.last_index, log.last_term) == (2, 1)
    log.append([entry(3, 2)])
    assert log.last_index == 3


def test_a_restored_log_begins_behind_the_snapshot_and_is_not_durable_yet() -> None:
    log = make_log(1, 1, 1)

    log.restore(meta(7, 3))

    assert (log.first_index, log.last_index, log.last_term) == (8, 7, 3)
    assert (log.commit_index, log.applied_index, log.durable_index) == (7, 7, 0)


def test_nothing_older_is_restored() -> None:
    """known bug 41."""
    log = make_log(1, 1, 1)
    log.commit_to(3)

    with pytest.raises(AssertionError):
        log.restore(meta(3, 1))


# Where two logs meet

TERMS = st.lists(st.integers(1, 4), max_size=12).map(sorted)


@settings(max_examples=50)
@given(TERMS, st.integers(0, 14), st.integers(0, 5))
def test_the_conflict_hint_is_the_highest_entry_of_at_most_that_term(
    terms: list[int], index: int, term: int
) -> None:
    """Against the definition."""
    log = make_log(*terms)

    expected = max(
        (i for i in range(1, min(index, len(terms)) + 1) if terms[i - 1] <= term),
        default=0,
    )

    hint = log.conflict_hint(index, term)
    assert hint == (expected, terms[expected - 1] if expected else 0)


@settings(max_examples=50)
@given(TERMS, TERMS)
def test_two_hints_never_skip_the_point_where_the_logs_meet(own: list[int], leaders: list[int]) -> None:
    """Paper 5.3: the back-up may overshoot where they meet only downward. Here the follower hints and the leader
    answers with the next probe, until the previous entry matches."""
    follower, leader = make_log(*own), make_log(*leaders)
    agree = next(
        (i for i in range(min(len(own), len(leaders)), 0, -1) if own[:i] == leaders[:i]),
        0,
    )
    previous, probes = leader.last_index, 0

    while follower.term_at(previous) != leader.term_at(previous):
        hint_index, hint_term = follower.conflict_hint(previous, leader.term_at(previous))
        meet, _ = leader.conflict_hint(hint_index, hint_term)
        assert meet < previous
        previous, probes = meet, probes + 1

    assert previous >= agree
    assert probes <= 2 * (len(set(own)) + len(set(leaders))) + 1


def test_a_hint_ends_at_the_compaction_point() -> None:
    """known bug 23: up to there everything is committed and agrees with every later leader."""
    log = make_log(3, 3, snapshot=(5, 2))

    assert log.conflict_hint(7, 2) == (5, 2)
    assert log.conflict_hint(4, 1) == (5, 2)


def test_entries_are_found_by_index_after_compaction() -> None:
    log = make_log(2, 3, snapshot=(5, 1))

    assert [log.entry(index).index for index in (6, 7)] == [6, 7]
    for index in (5, 8):
        with pytest.raises(AssertionError):
            log.entry(index)


def test_cluster_time_of_the_last_entry_survives_compaction_and_restore() -> None:
    """A new leader continues from it (the design, section 4)."""
    log = RaftLog(SnapshotMeta(), [Entry(1, 1, 700, entry(1, 1).kind, b"")])
    log.commit_to(1)
    log.take_committed(entries_max=1, bytes_max=1)

    log.compact(SnapshotMeta(1, 1, 700, THREE), 2)

    assert log.last_time_ms == 700
    log.restore(SnapshotMeta(9, 1, 900, THREE))
    assert log.last_time_ms == 900


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 300)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_bytes_are_counted_as_if_they_were_added_up_anew(steps: list[tuple[int, int, int]]) -> None:
    """However entries are appended, replaced and compacted away."""
    log = RaftLog(meta(3, 1), entries(1, 1, first=4))
    for action, place, size in steps:
        if action == 0 and log.last_index > log.commit_index:
            log.append([entry(max(log.commit_index + 1, log.last_index - place), 1, b"r" * size)])
        elif action == 1:
            log.take_unsubmitted()
            log.on_durable(log.last_index)
            log.commit_to(log.last_index)
            log.take_committed(entries_max=1_000, bytes_max=1 << 20)
            log.compact(meta(log.applied_index, 1), log.applied_index + 1 - place)
        elif action == 2 and place == 9:
            log.restore(meta(log.last_index + 5, 1))
        else:
            log.append([entry(log.last_index + 1, 1, b"a" * size)])

        held = [log.entry(index) for index in range(log.first_index, log.last_index + 1)]
        sizes = [len(each.data) + ENTRY_OVERHEAD_BYTES for each in held]
        assert sum(sizes) == log.memory_bytes
        assert sum(len(each.data) for each in held) == log.data_bytes(log.compacted_index, log.last_index)
        first = log.first_within(log.last_index, entries_max=place, bytes_max=5 * size)
        fitting = [n for n in range(len(sizes) + 1) if n <= place and sum(sizes[len(sizes) - n :]) <= 5 * size]
        assert log.last_index + 1 - max(fitting) == first
