"""Looking at a data directory tells what a start would find, and changes nothing."""

from pathlib import Path

from raft.core.types import HardState
from raft.storage import CorruptLog, CorruptSnapshot
from raft.storage.beside import DAMAGED_SUFFIX, RECOVERED_SUFFIX, put_aside
from raft.storage.dump import Found, data_directories, dump, verify
from raft.storage.record import FORMAT_VERSION
from tests.storage.builders import meta, reopen, segments, write_of


def filled(directory: Path) -> None:
    """Two snapshots, several segments, a replaced suffix."""
    storage, _ = reopen(directory)
    storage.write([write_of(1, 6, size=700, hard_state=HardState(1, "node1"))])
    storage.save_snapshot(meta(3), [b"three"])
    storage.mark_snapshot(meta(3))
    storage.write([write_of(6, 9, term=2, size=700, hard_state=HardState(2))])
    storage.save_snapshot(meta(7, 2), [b"seven", b"more"])
    storage.mark_snapshot(meta(7, 2))
    storage.write([write_of(10, 10, term=2)])
    storage.close()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_sound_directory_verifies_and_is_told_record_by_record(tmp_path: Path) -> None:
    filled(tmp_path)
    before = contents(tmp_path)

    verification = verify(tmp_path)
    lines = list(dump(tmp_path))

    assert verification.ok
    assert (verification.hard_state, verification.snapshot) == (HardState(2), meta(7, 2))
    assert (verification.first_index, verification.last_index, verification.notes) == (8, 10, ())
    assert "entries 8 to 10" in str(verification)
    assert any("HARD_STATE  term 1, vote node1" in line for line in lines)
    assert any("ENTRY       10@2 COMMAND 4 bytes, time 1010" in line for line in lines)
    assert any("7@2, time 1007, voters node1 node2 node3, learners node4" in line for line in lines)
    assert any(line.endswith("SEAL") for line in lines)
    assert not any("??" in line for line in lines)
    assert contents(tmp_path) == before


def test_a_running_nodes_directory_can_be_looked_at(tmp_path: Path) -> None:
    """No lock is taken."""
    storage, _ = reopen(tmp_path)
    storage.write([write_of(1, 3)])

    verification = verify(tmp_path)
    storage.close()

    assert (verification.ok, verification.last_index) == (True, 3)


def test_a_torn_end_is_noted_and_not_cut(tmp_path: Path) -> None:
    filled(tmp_path)
    last = segments(tmp_path)[-1]
    last.write_bytes(last.read_bytes().rstrip(b"\0") + b"MR torn")
    before = contents(tmp_path)

    verification = verify(tmp_path)
    lines = list(dump(tmp_path))

    assert verification.ok
    assert "cuts 7 bytes" in verification.notes[0]
    assert any("?? 7 bytes that are no record" in line for line in lines)
    assert contents(tmp_path) == before


def test_damage_is_named_and_what_follows_is_still_told(tmp_path: Path) -> None:
    filled(tmp_path)
    first = segments(tmp_path)[0]
    content = bytearray(first.read_bytes())
    content[900] ^= 1
    first.write_bytes(content)

    verification = verify(tmp_path)
    lines = list(dump(tmp_path))

    assert isinstance(verification.problem, CorruptLog)
    assert verification.problem.path == str(first)
    assert "DAMAGED" in str(verification)
    assert any("bytes that are no record" in line for line in lines)
    assert verification.problem.offset <= 900
    assert any("6@1 COMMAND" in line for line in lines)


def test_a_damaged_snapshot_is_noted_or_a_problem_as_the_log_allows(tmp_path: Path) -> None:
    filled(tmp_path)
    newest, older = sorted(tmp_path.glob("*.snapshot"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-1])

    with_older = verify(tmp_path)
    older.unlink()
    without = verify(tmp_path)

    assert (with_older.ok, with_older.snapshot) == (True, meta(3))
    assert f"stands in for {newest.name}" in str(with_older)
    assert isinstance(without.problem, CorruptSnapshot)


def test_a_snapshot_of_a_newer_format_is_named(tmp_path: Path) -> None:
    filled(tmp_path)
    newest = max(tmp_path.glob("*.snapshot"))
    content = bytearray(newest.read_bytes())
    content[8] = FORMAT_VERSION + 1
    newest.write_bytes(content)

    verification = verify(tmp_path)

    assert f"has format {FORMAT_VERSION + 1}" in str(verification.problem)


def test_a_nodes_root_is_looked_at_group_by_group(tmp_path: Path) -> None:
    for group in ("lock", "queue"):
        filled(tmp_path / group)
    (tmp_path / "logs").mkdir()

    assert data_directories(tmp_path) == Found((tmp_path / "lock", tmp_path / "queue"))
    assert data_directories(tmp_path / "lock") == Found((tmp_path / "lock",))


def test_what_was_put_aside_or_is_being_written_is_no_group_and_is_named(tmp_path: Path) -> None:
    """A node that was repaired is sound, whatever lies beside its groups."""
    for name in ("lock", "queue", "cache", "drafts.restoring"):
        filled(tmp_path / name)
    damaged = put_aside(tmp_path / "queue", DAMAGED_SUFFIX)
    recovered = put_aside(tmp_path / "cache", RECOVERED_SUFFIX)

    found = data_directories(tmp_path)

    assert found == Found((tmp_path / "lock",), (recovered, tmp_path / "drafts.restoring", damaged))
    assert data_directories(damaged) == Found((damaged,))


def test_two_directories_put_aside_in_one_second_have_two_names(tmp_path: Path) -> None:
    asides = []
    for _ in range(3):
        filled(tmp_path / "lock")
        asides.append(put_aside(tmp_path / "lock", DAMAGED_SUFFIX))

    assert len(set(asides)) == 3
    assert sorted(tmp_path.iterdir()) == sorted(asides)
