"""A data directory is read as its node would, unchanged, and not beside a node that writes."""

import errno
import os
from pathlib import Path

import pytest

from raft.core.types import HardState
from raft.storage import DataDirectoryInUse, open_storage
from raft.storage.files import RealFiles
from raft.storage.reading import reading
from tests.storage.builders import meta, segments
from tests.storage.test_dump import contents, filled


def test_it_gives_what_a_start_would_recover_and_changes_nothing(tmp_path: Path) -> None:
    """A torn end is left out and not cut."""
    filled(tmp_path)
    last = segments(tmp_path)[-1]
    last.write_bytes(last.read_bytes().rstrip(b"\0") + b"MR torn")
    before = contents(tmp_path)

    with reading(tmp_path) as found:
        chunks = list(found.chunks())
    after = contents(tmp_path)
    storage, recovered = open_storage(tmp_path)
    storage.close()

    assert after == before
    assert (found.hard_state, found.snapshot) == (HardState(2), meta(7, 2))
    assert (found.hard_state, found.snapshot) == (recovered.hard_state, recovered.snapshot)
    assert found.entries == recovered.entries
    assert (found.last_index, found.last_term, chunks) == (10, 2, [b"seven", b"more"])


def test_a_directory_that_a_node_holds_is_refused_and_one_that_is_read_is_not_opened(tmp_path: Path) -> None:
    filled(tmp_path)
    storage, _ = open_storage(tmp_path)
    with pytest.raises(DataDirectoryInUse), reading(tmp_path):
        pass
    storage.close()

    with reading(tmp_path), reading(tmp_path), pytest.raises(DataDirectoryInUse):
        open_storage(tmp_path)


def test_no_lock_is_made_and_none_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a disk has none; on a folder that is not ours none can be had."""
    filled(tmp_path)

    def refuse(self: RealFiles, path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(RealFiles, "lock_shared", refuse)
        with reading(tmp_path) as not_ours:
            pass
    (tmp_path / "LOCK").unlink()
    with reading(tmp_path) as copied:
        pass

    assert not_ours.last_index == copied.last_index == 10
    assert not (tmp_path / "LOCK").exists()
