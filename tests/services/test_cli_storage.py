"""The commands that look at stored data, as they are called: one sentence and an exit code, never a trace."""

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raft.storage.beside import DAMAGED_SUFFIX, put_aside
from raft.storage.files import RealFiles
from services.cli.main import main
from tests.storage.builders import segments
from tests.storage.test_dump import filled


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def told(result: Result) -> str:
    """What was printed, in one line; fails where it is a trace."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return " ".join(result.output.split())


# wal verify, wal dump


def test_a_node_that_was_repaired_verifies_as_clean(tmp_path: Path) -> None:
    """What was put aside is mentioned, and checked where it is named itself."""
    filled(tmp_path / "a node" / "lock")
    filled(tmp_path / "a node" / "queue")
    aside = put_aside(tmp_path / "a node" / "queue", DAMAGED_SUFFIX)
    content = bytearray(segments(aside)[0].read_bytes())
    content[900] ^= 1
    segments(aside)[0].write_bytes(content)

    node, itself = run("wal", "verify", tmp_path / "a node"), run("wal", "verify", aside)
    dumped = run("wal", "dump", tmp_path / "a node")

    assert (node.exit_code, itself.exit_code, dumped.exit_code) == (0, 1, 0)
    assert "DAMAGED" not in node.output and "DAMAGED" in itself.output
    for result in (node, dumped):
        assert f"note: not looked at, because no node opens it: '{aside}'" in told(result)


def test_where_only_something_put_aside_is_left_it_is_named(tmp_path: Path) -> None:
    filled(tmp_path / "lock")
    aside = put_aside(tmp_path / "lock", DAMAGED_SUFFIX)

    result = run("wal", "verify", tmp_path)

    assert result.exit_code == 2
    assert told(result).endswith(f"To look at what was put aside there, name it: {aside}.")


@pytest.mark.parametrize("command", ["verify", "dump"])
def test_a_file_that_may_not_be_read_is_named_in_one_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "lock")

    def refuse(self: RealFiles, path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(RealFiles, "open_readonly", refuse)
    result = run("wal", command, tmp_path)

    assert result.exit_code == 1
    assert f"{tmp_path / 'lock'}" in told(result)
    assert told(result).endswith("cannot be read: permission denied.")


def test_a_folder_in_the_place_of_a_segment_is_named_in_one_sentence(tmp_path: Path) -> None:
    filled(tmp_path / "lock")
    last = segments(tmp_path / "lock")[-1]
    last.unlink()
    last.mkdir()

    result = run("wal", "verify", tmp_path)

    assert result.exit_code == 1
    assert told(result) == f"{last} cannot be read: is a directory."
