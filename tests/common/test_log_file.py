"""common/log_file.py: the log of a node that runs for months, on a disk that may be full."""

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.log_file import LogFile
from common.logs import configure_logs, get_logger


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def test_a_log_rolls_over_while_it_is_written_and_keeps_one_older_file(tmp_path: Path) -> None:
    """Goal: however long a node runs, its log takes twice the limit at most, and no line is cut."""
    path = tmp_path / "node.log"
    configure_logs(file=str(path), file_bytes_max=4_096, node="node1")

    for number in range(200):
        get_logger("x").info("line", number=number)

    older, newer = path.with_name("node.log.1"), path
    assert sorted(each.name for each in tmp_path.iterdir()) == ["node.log", "node.log.1"]
    assert all(0 < each.stat().st_size <= 4_096 for each in (older, newer))
    numbers = [json.loads(line)["number"] for each in (older, newer) for line in each.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 200))


def test_a_log_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text('{"event": "before"}\n')

    configure_logs(file=str(path), file_bytes_max=4_096)
    get_logger("x").info("after")

    assert events(path) == ["before", "after"]


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        configure_logs(file=str(tmp_path / "nowhere" / "node.log"))


PRINTING = """
import os, sys
from common.logs import configure_logs, get_logger
configure_logs(file=sys.argv[1], file_bytes_max=4096)
for number in range(200):
    get_logger("x").info("line", number=number)
    print("printed", number, flush=True)
    os.write(2, b"written\\n")
"""


@pytest.mark.parametrize("shares", [True, False])
def test_what_a_process_prints_into_its_log_moves_along_at_each_roll_over(tmp_path: Path, shares: bool) -> None:
    """Goal: an interpreter's last words stand at the end of the log, and not in a file that was set aside. Output
    that goes elsewhere stays there."""
    path = tmp_path / "node.log"
    output = path if shares else tmp_path / "terminal"

    with open(output, "ab") as stream:
        subprocess.run(
            [sys.executable, "-c", PRINTING, str(path)], stdout=stream, stderr=stream, check=True, timeout=60,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip

    lines = path.read_text().splitlines()
    if shares:
        assert lines[-2:] == ["printed 199", "written"]
        assert path.with_name("node.log.1").stat().st_size <= 4_096 + 100
    else:
        assert all(line.startswith("{") for line in lines)
        assert len(output.read_text().splitlines()) == 400


class Disk:
    """The system's write, which takes `room` bytes until it has none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 40
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_costs_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: no exception, no traceback for each line; and afterwards the log says what it lacks, in whole lines."""
    path = tmp_path / "node.log"
    configure_logs(file=str(path), file_bytes_max=1 << 20)
    logger = get_logger("x")
    disk = Disk(monkeypatch)
    logger.info("before")

    disk.room = 20
    for _ in range(5):
        logger.info("lost")
    disk.room = 1 << 40
    logger.info("after")
    logger.info("later")

    lines = path.read_text().splitlines()
    assert json.loads(lines[0])["event"] == "before"
    assert len(lines[1]) == 20
    lost, after, later = (json.loads(line) for line in lines[2:])
    assert lost["event"] == "5 lines of this log were lost: the disk took none"
    assert (after["event"], later["event"]) == ("after", "later")
    assert capfd.readouterr() == ("", "")


def test_a_file_that_cannot_be_renamed_grows_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a folder that has become read-only costs no line."""
    path = tmp_path / "node.log"
    configure_logs(file=str(path), file_bytes_max=4_096)

    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refuse)
    for _ in range(200):
        get_logger("x").info("line")

    assert events(path) == ["line"] * 200


def test_a_stream_that_takes_nothing_is_no_reason_to_complain(capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: a terminal that is gone, a pipe whose reader ended."""

    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return False

    configure_logs(stream=Gone())  # type: ignore[arg-type]

    get_logger("x").info("unheard")

    assert capfd.readouterr() == ("", "")


def test_a_line_that_cannot_be_made_ends_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: a fault in a line of a library's is told once, on stderr, as ever."""
    handler = LogFile(str(tmp_path / "node.log"), bytes_max=0)

    handler.emit(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    handler.close()

    assert "Logging error" in capfd.readouterr().err
