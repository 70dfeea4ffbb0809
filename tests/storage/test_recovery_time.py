"""A start takes seconds, not minutes."""

import gc
import time
from pathlib import Path

from raft.core.ready import Persist
from raft.core.types import Entry, EntryKind
from raft.storage import open_storage

ENTRIES = 200_000
#: Processor time, so that a busy machine does not fail the test.
RECOVERY_SECONDS_MAX = 3.0


def test_200_000_entries_recover_within_3_seconds(tmp_path: Path) -> None:
    """What a node has to read at most between two snapshots, twice over."""
    storage, _ = open_storage(tmp_path)
    for first in range(1, ENTRIES + 1, 10_000):
        batch = tuple(
            Entry(index, 1, index, EntryKind.COMMAND, b"x" * 100) for index in range(first, first + 10_000)
        )
        storage.write([Persist(None, batch)])
    storage.close()
    del batch

    # What the tests before have left in memory is not to be searched for garbage on this one's time.
    gc.collect()
    gc.freeze()
    began = time.process_time()
    storage, recovered = open_storage(tmp_path)
    seconds = time.process_time() - began
    gc.unfreeze()
    storage.close()

    print(f"{ENTRIES} entries in {seconds:.2f} s")
    assert len(recovered.entries) == ENTRIES
    assert seconds < RECOVERY_SECONDS_MAX
