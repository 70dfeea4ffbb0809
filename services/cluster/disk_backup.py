"""A backup from the data directory of a node that does not run: for the case that no node is left to ask.

The rule: this does not change what it reads, not even by a lock file, and the backup says what it is: the state of
one disk.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.parsers import parse_node_id
from raft.storage.backup import Backup, BackupEncoder, BackupHead
from raft.storage.cluster import kept_cluster
from raft.storage.reading import reading
from services.cluster.backup_files import check_target, write_backup
from services.cluster.data_folders import one_group_folder, reading_under
from services.cluster.errors import ClusterError, UsageError
from services.version import VERSION

if TYPE_CHECKING:
    from services.offline.disks import Disk

#: The node's name in the backup if nobody says which node it was.
OFFLINE_NODE = "offline"
#: What such a backup does not promise.
CAVEAT = (
    "It is the state of one disk, not of the group: a write that only other nodes acknowledged is missing, and the "
    "last entries may never have been acknowledged."
)


def back_up_disk(root: Path, group: str, file: Path, *, node: str = "") -> Backup:
    """Write the state of `group` in a data directory to `file`, whole and checked or not at all.

    Args:
        root: a node's data directory or a group's folder; `group` may be empty if it holds only one.
        node: whose disk it is, if the directory does not say so.

    Raises:
        UsageError: the folder is not clear, or `file` cannot be written there.
        InTheWay: a node runs on it.
        ClusterError: it is damaged or cannot be read, or `file` cannot be written.
    """
    # Imported here: the other commands start fast because they do without the services.
    from services.offline.disks import load_disk, recorded_node

    check_target(file)
    _check_apart(file, root)
    node = checked_id(node)
    with reading_under(root):
        name, folder = one_group_folder(root, group)
        with reading(folder) as contents:
            disk = load_disk(contents, name)
    if disk.is_empty:
        raise ClusterError(f"{folder} holds no entry of the group {name}.")
    return write_backup(file, _pieces(disk, recorded_node(folder) or node or OFFLINE_NODE))


def checked_id(node: str) -> str:
    """The id that `--id` names; empty if it was not given.

    Raises:
        UsageError: it is no id.
    """
    try:
        return parse_node_id(node) if node else ""
    except ValueError as error:
        raise UsageError(f"--id: {error}.") from error


def _check_apart(file: Path, root: Path) -> None:
    if file.absolute().parent.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{file} lies in {root}, which is only read. Name a FILE elsewhere.")


def _pieces(disk: "Disk", node: str) -> Iterator[bytes]:
    # We do not know which numbers were given after this moment, so it counts as the time of the backup: numbers jump
    # forward by the time since then (services/offline/restore.py).
    cluster = kept_cluster(disk.directory.absolute().parent)
    head = BackupHead(disk.written_us // 1_000, disk.group, node, VERSION, cluster)
    encoder = BackupEncoder(head, disk.meta)
    yield encoder.begin()
    for chunk in disk.machine.snapshot():
        yield encoder.chunk(chunk)
    yield encoder.end()
