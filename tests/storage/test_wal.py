"""What is written to the log comes back, through rotation, replacement, compaction and restart."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raft.core.ready import Persist
from raft.core.types import Entry, EntryKind, HardState
from raft.storage import CorruptLog, DataDirectoryInUse, open_storage
from tests.storage.builders import (
    crash,
    entries,
    entry,
    indexes,
    meta,
    recover,
    reopen,
    segments,
    write_of,
)


def test_a_new_directory_is_fresh_and_empty(tmp_path: Path) -> None:
    """A node must be able to tell that its disk is new, or was wiped (known bug 63)."""
    storage, recovered = reopen(tmp_path / "deep" / "data")
    storage.close()
    again = recover(tmp_path / "deep" / "data")

    assert (True, HardState(), None, []) == (
        recovered.fresh,
        recovered.hard_state,
        recovered.snapshot,
        recovered.entries,
    )
    assert not again.fresh


def test_entries_of_every_kind_come_back_as_they_were(tmp_path: Path) -> None:
    """Data may be empty, binary, or look like a record of the log itself."""
    written = (
        entry(1, kind=EntryKind.NOOP, data=b""),
        entry(2, data=bytes(range(256)) * 8),
        entry(3, kind=EntryKind.CONFIGURATION, data=b"MR\x03\x00" * 9),
        entry(4, kind=EntryKind.ADVANCE, data=b""),
        Entry(5, 2**60, 2**62, EntryKind.COMMAND, bytes(3000)),
    )
    storage, _ = reopen(tmp_path)
    storage.write([Persist(None, written)])
    crash(storage)

    recovered = recover(tmp_path)

    assert list(written) == recovered.entries


def test_hard_state_survives_with_the_vote(tmp_path: Path) -> None:
    """Paper Figure 2: term and vote are durable before anyone hears of them (known bugs 1 and 2)."""
    storage, _ = reopen(tmp_path)
    storage.write([Persist(HardState(3, "node2"), ()), Persist(HardState(4, "nœud"), ())])
    crash(storage)

    recovered = recover(tmp_path)

    assert HardState(4, "nœud") == recovered.hard_state


def test_hard_state_survives_the_segments_it_was_written_in(tmp_path: Path) -> None:
    """Compaction drops the segment with the vote; the next one must have carried it."""
    storage, _ = reopen(tmp_path)
    storage.write([Persist(HardState(7, "node3"), ())])
    for index in range(1, 20):
        storage.write([write_of(index, index, size=1000)])
    storage.save_snapshot(meta(18), [b"state"])
    storage.mark_snapshot(meta(18))
    storage.compact(18)
    crash(storage)

    recovered = recover(tmp_path)

    assert segments(tmp_path)[0].name != "0000000000000001.wal"
    assert (HardState(7, "node3"), meta(18), [19]) == (
        recovered.hard_state,
        recovered.snapshot,
        indexes(recovered),
    )


def test_a_later_entry_of_the_same_index_replaces_the_rest(tmp_path: Path) -> None:
    """Paper 5.3: a conflicting entry and all that follow it go, also over a restart and a segment's end."""
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 10, size=1000)])
    storage.write([write_of(11, 12, size=1000)])
    storage.write([write_of(4, 5, term=2)])
    crash(storage)
    storage, first = reopen(tmp_path)
    storage.write([write_of(6, 6, term=3)])
    crash(storage)

    second = recover(tmp_path)

    assert indexes(first) == [1, 2, 3, 4, 5]
    assert [item.term for item in second.entries] == [1, 1, 1, 2, 2, 3]


def test_one_batch_holds_many_writes_in_order(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    storage.write(
        [
            write_of(1, 3, hard_state=HardState(1, "node1")),
            Persist(None, ()),
            write_of(3, 4, term=2, hard_state=HardState(2)),
        ]
    )
    crash(storage)

    recovered = recover(tmp_path)

    assert HardState(2) == recovered.hard_state
    assert [*entries(1, 2), *entries(3, 4, term=2)] == recovered.entries


def test_compaction_drops_only_segments_that_a_snapshot_covers(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    for index in range(1, 21):
        storage.write([write_of(index, index, size=1000)])
    storage.save_snapshot(meta(10), [b"state"])
    storage.mark_snapshot(meta(10))
    before = storage.statistics().segments
    storage.compact(10)
    after = storage.statistics().segments
    crash(storage)

    recovered = recover(tmp_path)

    assert 1 < after < before
    assert meta(10) == recovered.snapshot
    assert list(range(11, 21)) == indexes(recovered)


def test_replaced_entries_do_not_keep_their_segment(tmp_path: Path) -> None:
    """Segments whose high entries were replaced are dropped with the rest; recovery must not miss them."""
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 40, size=200)])
    storage.write([write_of(10, 12, term=2, size=1000)])
    storage.write([write_of(13, 14, term=2, size=1000)])
    storage.save_snapshot(meta(12, 2), [b"state"])
    storage.mark_snapshot(meta(12, 2))
    storage.compact(9)
    crash(storage)

    recovered = recover(tmp_path)

    assert segments(tmp_path)[0].name == "0000000000000002.wal"
    assert list(entries(13, 14, term=2, size=1000)) == recovered.entries


def test_a_leaders_snapshot_replaces_the_whole_log(tmp_path: Path) -> None:
    """Paper 7: what lies before goes, and so does a conflicting suffix behind it (known bug 42)."""
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 30, size=500)])
    storage.save_snapshot(meta(20, 4), [b"state"])
    storage.write([write_of(21, 22, term=4, snapshot=meta(20, 4), hard_state=HardState(4))])
    crash(storage)

    recovered = recover(tmp_path)

    assert (meta(20, 4), list(entries(21, 22, term=4))) == (recovered.snapshot, recovered.entries)
    assert len(segments(tmp_path)) == 1


def test_an_empty_write_touches_nothing(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    before = storage.log_bytes

    written = storage.write([Persist(None, ())])

    assert (0, before) == (written, storage.log_bytes)
    storage.close()


def test_a_gap_is_an_error_of_the_caller_and_is_not_written(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 3)])

    with pytest.raises(AssertionError):
        storage.write([write_of(5, 6)])
    with pytest.raises(AssertionError):
        storage.write([Persist(None, (entry(4), entry(6)))])

    crash(storage)
    assert indexes(recover(tmp_path)) == [1, 2, 3]


def test_a_segment_gone_from_the_middle_or_the_front_is_refused(tmp_path: Path) -> None:
    """An operator's rm must not look like a shorter log."""
    storage, _ = reopen(tmp_path)
    for index in range(1, 21):
        storage.write([write_of(index, index, size=1000)])
    storage.close()
    middle = segments(tmp_path)[2]
    content = middle.read_bytes()

    middle.unlink()
    with pytest.raises(CorruptLog) as caught:
        reopen(tmp_path)
    middle.write_bytes(content)
    segments(tmp_path)[0].unlink()
    with pytest.raises(CorruptLog, match="missing"):
        reopen(tmp_path)

    assert str(middle) == caught.value.path


def test_snapshots_without_a_log_are_refused(tmp_path: Path) -> None:
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 3)])
    storage.save_snapshot(meta(3), [b"state"])
    storage.mark_snapshot(meta(3))
    storage.close()
    for path in segments(tmp_path):
        path.unlink()

    with pytest.raises(CorruptLog, match="no log"):
        reopen(tmp_path)


def test_the_directory_is_private_and_locked_within_the_process(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    storage, _ = reopen(directory)

    with pytest.raises(DataDirectoryInUse, match=str(directory)):
        reopen(directory)
    storage.close()
    recover(directory)

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    """Known bug 64. SIGKILL must free the directory: the lock belongs to the process."""
    script = (
        "import sys; from pathlib import Path; from raft.storage import open_storage\n"
        "storage, _ = open_storage(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"

            with pytest.raises(DataDirectoryInUse):
                open_storage(tmp_path)
        finally:
            holder.kill()

    storage, _ = open_storage(tmp_path)
    storage.close()
