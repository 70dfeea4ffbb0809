"""A backup out of a data directory whose node does not run: for when nobody is left to be asked.

The rule: what is read is not changed, not even by a lock file, and the file says what it is: the state of one disk.
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

#: What stands for the node where nobody says which one it was.
OFFLINE_NODE = "offline"
#: What such a backup is not.
CAVEAT = (
    "It is the state of one disk, not of the group: a write that only other nodes acknowledged is missing, and the "
    "last entries may never have been acknowledged."
)


def back_up_disk(root: Path, group: str, file: Path, *, node: str = "") -> Backup:
    """Write what a data directory holds of `group` to `file`, whole and checked or not at all.

    Args:
        root: a node's data directory or a group's folder; `group` may be empty where it holds one only.
        node: whose disk it is, where the directory does not say so.

    Raises:
        UsageError: it cannot be told which folder is meant, or `file` cannot be written there.
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
    """The id that `--id` names; empty where it was not given.

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
    # What was given after this moment is not known, so it counts as the one at which the backup was taken: numbers
    # leap by the time since then (services/offline/restore.py).
    cluster = kept_cluster(disk.directory.absolute().parent)
    head = BackupHead(disk.written_us // 1_000, disk.group, node, VERSION, cluster)
    encoder = BackupEncoder(head, disk.meta)
    yield encoder.begin()
    for chunk in disk.machine.snapshot():
        yield encoder.chunk(chunk)
    yield encoder.end()
