"""services/node/ended.py: what the last line of a node's log says and advises, for what goes wrong with disks."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raft.storage import StorageError, open_storage
from raft.storage.files import RealFile, RealFiles
from services.node.ended import advice_for, describe

BROKEN_DISK = ("dmesg", "SMART")


def failure(call: Callable[[], object]) -> BaseException:
    with pytest.raises((OSError, StorageError)) as raised:
        call()
    return raised.value


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_want_of_descriptors_is_not_the_disks_fault(number: int) -> None:
    """Goal: whoever looks why the node is gone must not look at the disk."""
    advice = advice_for(OSError(number, os.strerror(number)))

    assert "ulimit -n" in advice
    assert "dmesg" not in advice


@pytest.mark.parametrize("number", [errno.EIO, errno.ENXIO, errno.ENODEV])
def test_a_disk_that_does_not_work_is_to_be_looked_at(number: int) -> None:
    advice = advice_for(OSError(number, os.strerror(number), "/data/1.wal"))

    assert all(word in advice for word in BROKEN_DISK)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "chown"),
        (errno.EPERM, "chown"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "a file stands where a folder must be"),
        (errno.EEXIST, "a file stands where a folder must be"),
        (errno.EISDIR, "a folder stands where a file must be"),
        (errno.ENOENT, "deleted"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.ENOSPC, "Free some space"),
        (errno.EINVAL, "Mend what the error names"),
    ],
)
def test_other_errors_of_the_file_system_get_a_sentence_of_their_own(number: int, said: str) -> None:
    """Goal: nobody replaces a disk because a folder belongs to root."""
    error = OSError(number, os.strerror(number), "/data/lock/1.wal")

    assert said in advice_for(error)
    assert "SMART" not in advice_for(error)
    assert describe(error) == f"/data/lock/1.wal: {os.strerror(number)}"


def test_a_data_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    error = failure(lambda: open_storage(tmp_path / "data" / "lock"))

    assert describe(error) == f"{tmp_path}/data/lock: Not a directory"
    assert "a file stands where a folder must be" in advice_for(error)


def test_a_groups_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()

    error = failure(lambda: open_storage(tmp_path / "lock"))

    assert describe(error) == f"{tmp_path}/lock: File exists"
    assert "a file stands where a folder must be" in advice_for(error)


def test_a_folder_whose_name_is_too_long_is_named(tmp_path: Path) -> None:
    error = failure(lambda: open_storage(tmp_path / ("x" * 300) / "lock"))

    assert str(tmp_path) in describe(error)
    assert "too long" in advice_for(error)


def test_a_segment_that_is_a_folder_is_named(tmp_path: Path) -> None:
    """Opening a folder for reading works; it is the read that fails, and that has no name of its own."""
    open_storage(tmp_path)[0].close()
    segment = next(tmp_path.glob("*.wal"))
    segment.unlink()
    segment.mkdir()

    error = failure(lambda: open_storage(tmp_path))

    assert describe(error) == f"{segment}: Is a directory"


def test_a_segment_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode 000, or somebody else's. Tests may run as root, who may read all: so the system is made to refuse."""
    open_storage(tmp_path)[0].close()
    segment = next(tmp_path.glob("*.wal"))
    os_open = os.open

    def refuse(path: object, *arguments: object) -> int:
        if path == segment:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return os_open(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)

    error = failure(lambda: open_storage(tmp_path))

    assert describe(error) == f"{segment}: Permission denied"
    assert "chown" in advice_for(error)


@pytest.mark.parametrize(("number", "said"), [(errno.EACCES, "chown"), (errno.EROFS, "mounted read-only")])
def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    """In somebody else's folder, or on a read-only disk."""

    def refuse(path: object, *arguments: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)

    error = failure(lambda: open_storage(tmp_path / "data" / "lock"))

    assert describe(error) == f"{tmp_path}/data: {os.strerror(number)}"
    assert said in advice_for(error)


@pytest.mark.parametrize("call", ["pread", "pwrite", "fdatasync", "ftruncate", "posix_fallocate", "fstat"])
def test_every_call_on_an_open_file_fails_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The system names a file where it is opened, and nowhere else."""
    if not hasattr(os, call):
        pytest.skip("not on this system")
    path = tmp_path / "1.wal"
    file = RealFile(path, os.O_RDWR | os.O_CREAT)

    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    uses = {
        "pread": lambda: file.read(0, 1), "pwrite": lambda: file.write(0, b"x"), "fdatasync": file.sync,
        "ftruncate": lambda: file.truncate(0), "posix_fallocate": lambda: file.preallocate(1), "fstat": file.size,
    }  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        error = failure(uses[call])
    file.close()

    assert describe(error) == f"{path}: Input/output error"


def test_a_directory_that_cannot_be_synced_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)

    error = failure(lambda: RealFiles().sync_directory(tmp_path))

    assert describe(error) == f"{tmp_path}: Input/output error"


def serve(folder: Path, *flags: str) -> tuple[int, str]:
    """A node that is to end by itself: its exit code, and all that it wrote to its output."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "serve", "--client-port", "0", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return done.returncode, done.stdout + done.stderr


def last_line(log: str) -> dict[str, str]:
    assert "Traceback" not in log
    return json.loads(log.splitlines()[-1])


@pytest.mark.cluster
def test_a_node_whose_data_directory_is_a_file_ends_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    code, output = serve(tmp_path, "--data-dir", str(tmp_path / "data"))

    last = last_line(output)
    assert code == 1
    assert last["error"] == f"{tmp_path}/data: File exists"
    assert "MUFAKAT_DATA_DIR" in last["advice"]


@pytest.mark.cluster
def test_a_node_whose_port_is_taken_says_which(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = serve(
            tmp_path, "--cluster", "node1=127.0.0.1:8000", "--client-port", str(port), "--peer-port", "1"
        )

    last = last_line(output)
    assert code == 1
    assert last["error"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "another program listens there" in last["advice"]


@pytest.mark.cluster
def test_a_node_that_listens_at_an_unknown_name_says_so(tmp_path: Path) -> None:
    code, output = serve(tmp_path, "--listen-host", "nohost.invalid")

    last = last_line(output)
    assert code == 1
    assert last["error"].startswith("cannot listen on nohost.invalid:8000: ")
    assert "MUFAKAT_LISTEN_HOST" in last["advice"]


@pytest.mark.cluster
def test_a_node_that_cannot_write_its_log_file_ends_with_one_sentence(tmp_path: Path) -> None:
    log = tmp_path / "nowhere" / "node.log"

    code, output = serve(tmp_path, "--log-file", str(log))

    last = last_line(output)
    assert code == 1
    assert "MUFAKAT_LOG_FILE" in last["advice"]
    assert last["error"] == f"{log}: No such file or directory"


@pytest.mark.cluster
def test_the_last_line_of_a_log_file_says_why_the_node_ended(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    log = tmp_path / "node.log"

    code, output = serve(tmp_path, "--data-dir", str(tmp_path / "data"), "--log-file", str(log))

    assert (code, output) == (1, "")
    assert last_line(log.read_text())["event"] == "ended, because going on was not safe"
