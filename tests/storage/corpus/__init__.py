"""Data directories as earlier versions left them, one for each format version: what newer code must go on reading.

`python -m tests.storage.corpus` writes the one of the present version, where it is not there yet. A directory that
is in the repository is never made anew.
"""

from dataclasses import replace
from pathlib import Path

from raft.core.ready import Persist
from raft.core.types import EntryKind, HardState, SnapshotMeta
from raft.storage import open_storage
from raft.storage.record import FORMAT_VERSION
from tests.storage.builders import SEGMENT_BYTES, entry, meta, write_of

ROOT = Path(__file__).parent
#: Known since format 2.
LIFE = "g0006449c1d2e3f-9c0d1e77a1b2"
CHUNKS = [b"first chunk of the snapshot", b"", b"second chunk " * 20]


def place(index: int, format: int = FORMAT_VERSION) -> SnapshotMeta:
    """What the snapshots in the corpus of a format stand for."""
    known = meta(index)
    return replace(known, configuration=replace(known.configuration, life=LIFE)) if format >= 2 else known


def write_corpus(directory: Path) -> None:
    """Every kind of record and file: three segments left of four, two snapshots, a sealed end."""
    storage, _ = open_storage(directory, segment_bytes=SEGMENT_BYTES)
    storage.write([Persist(HardState(1, "node1"), (entry(1, kind=EntryKind.NOOP, data=b""),))])
    storage.write([write_of(2, 8, size=700)])
    storage.save_snapshot(place(4), [b"an older snapshot"])
    storage.mark_snapshot(place(4))
    storage.write([write_of(9, 14, size=700)])
    storage.save_snapshot(place(9), CHUNKS)
    storage.mark_snapshot(place(9))
    storage.compact(8)
    storage.write([write_of(13, 13, term=2, hard_state=HardState(3, "node2"))])
    storage.write([Persist(None, (entry(14, 3, b"node1,node2", EntryKind.CONFIGURATION),))])
    storage.write([Persist(None, (entry(15, 3, b"", EntryKind.ADVANCE),))])
    storage.close()
    (directory / "LOCK").unlink()


def main() -> None:
    directory = ROOT / f"format{FORMAT_VERSION}"
    if directory.exists():
        print(f"{directory} is there and stays as it is")
        return
    write_corpus(directory)
    print(f"wrote {directory}")
