"""Backups as earlier versions wrote them, one of each service for each format version: newer code must go on reading
them, with the same answers.

`python -m tests.services.backups` writes those of the present version, where they are not there yet. A file that is
in the repository is never made anew.
"""

from pathlib import Path

from raft.core.types import Configuration, SnapshotMeta
from raft.storage.backup import BackupEncoder, BackupHead
from raft.storage.record import FORMAT_VERSION
from services.catalogue import SERVICES
from services.replicated.machine import ReplicatedMachine
from tests.services.test_replicated_snapshots import LIVES, live

ROOT = Path(__file__).parent
#: Somewhen; the present time would make a different file each time.
TAKEN_MS = 1_700_000_000_000
INDEX = 99
#: Known since format 2.
LIFE = "g0006449c1d2e3f-9c0d1e77a1b2"


def backup_of(group: str) -> bytes:
    """A backup of a group that has lived."""
    machine = ReplicatedMachine(SERVICES[group].machine)
    life = LIVES[group][0]()
    live(machine, life, first_index=1)
    place = SnapshotMeta(INDEX, 3, life[-1][0], Configuration(("node1", "node2", "node3"), life=LIFE))
    encoder = BackupEncoder(BackupHead(TAKEN_MS, group, "node1", "0.1.0"), place)
    return b"".join([encoder.begin(), *map(encoder.chunk, machine.snapshot()), encoder.end()])


def main() -> None:
    for group in LIVES:
        path = ROOT / f"format{FORMAT_VERSION}-{group}.backup"
        if path.exists():
            print(f"{path} is there and stays as it is")
        else:
            path.write_bytes(backup_of(group))
            print(f"wrote {path}")
