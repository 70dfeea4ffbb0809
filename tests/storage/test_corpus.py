"""Data directories of every format version so far are read by this one."""

import shutil
from pathlib import Path

import pytest

from raft.core.types import EntryKind, HardState
from raft.storage import open_storage
from raft.storage.dump import verify
from raft.storage.record import FORMAT_VERSION
from tests.storage.builders import SEGMENT_BYTES, entries, entry, recover
from tests.storage.corpus import CHUNKS, ROOT, place, write_corpus

OLD = sorted(path for path in ROOT.iterdir() if path.name.startswith("format"))


@pytest.mark.parametrize("corpus", OLD, ids=lambda path: path.name)
def test_an_old_directory_is_read_and_written_on(corpus: Path, tmp_path: Path) -> None:
    """An upgrade must not need a new cluster."""
    directory = Path(shutil.copytree(corpus, tmp_path / "data"))
    looks = verify(directory)

    storage, recovered = open_storage(directory, segment_bytes=SEGMENT_BYTES)
    loaded = storage.load_snapshot()
    content = list(loaded[1]) if loaded is not None else []
    storage.write([])
    storage.close()

    wanted = place(9, int(corpus.name.removeprefix("format")))
    assert looks.ok
    assert (recovered.hard_state, recovered.snapshot, content) == (HardState(3, "node2"), wanted, CHUNKS)
    assert recovered.entries == [
        *entries(10, 12, size=700),
        entry(13, 2),
        entry(14, 3, b"node1,node2", EntryKind.CONFIGURATION),
        entry(15, 3, b"", EntryKind.ADVANCE),
    ]
    assert recover(directory).entries == recovered.entries


def test_the_present_format_is_in_the_corpus_and_is_still_written_so(tmp_path: Path) -> None:
    """A change of the format must come with a new version number and a new directory in the corpus."""
    kept = ROOT / f"format{FORMAT_VERSION}"
    write_corpus(tmp_path / "data")

    written = {path.name: path.stat().st_size for path in (tmp_path / "data").iterdir()}

    assert written == {path.name: path.stat().st_size for path in kept.iterdir()}
    for path in kept.glob("*.snapshot"):
        assert (tmp_path / "data" / path.name).read_bytes() == path.read_bytes()
