"""The cluster of a node's data: the file CLUSTER in its data directory, beside the folders of its groups.

Two clusters may have nodes with the same names, the same ports and the same secret. So a cluster has an id, and a
node keeps the first id that its settings say or that it learns. The rule of the file: it is written once and never
changed, and a node whose settings say another id does not start.
"""

import re
from pathlib import Path

from common.parsers import CLUSTER_ID_LENGTH_MAX
from raft.storage.errors import CorruptStorage, WrongCluster
from raft.storage.files import Files, RealFiles
from raft.storage.small_file import read_line, write_line

CLUSTER_NAME = "CLUSTER"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,%d}" % CLUSTER_ID_LENGTH_MAX)


def check_cluster(directory: Path, told: str, *, files: Files | None = None) -> tuple[str, str]:
    """The cluster of a node with this data directory, and the one that the directory says; empty if neither says one.
    This writes nothing.

    Args:
        told: what the settings say; may be empty.

    Raises:
        WrongCluster: the two differ, or the file cannot be read.
        OSError: the disk does not do as asked.
    """
    path = directory / CLUSTER_NAME
    files = files if files is not None else RealFiles()
    try:
        kept = read_line(files, path, _ID, "cluster id")
    except FileNotFoundError:
        kept = ""
    except CorruptStorage as error:
        raise WrongCluster(
            f"{path} holds no id of a cluster",
            "write the id of the cluster that this data is of into it; `/status` of the other nodes tells it",
        ) from error
    if kept and told and kept != told:
        raise WrongCluster(
            f"the data in {directory} is of the cluster {kept}, and MUFAKAT_CLUSTER_ID says {told}",
            f"set MUFAKAT_CLUSTER_ID to {kept} or leave it out, or name another directory with MUFAKAT_DATA_DIR",
        )
    return kept or told, kept


def kept_cluster(directory: Path) -> str:
    """The cluster that the directory says; empty if it says none that can be read."""
    try:
        return read_line(RealFiles(), directory / CLUSTER_NAME, _ID, "cluster id")
    except (CorruptStorage, OSError):
        return ""


def keep_cluster(directory: Path, id: str, *, files: Files | None = None) -> None:
    """Note durably that the data in this directory is of this cluster. The directory must be there. Raises
    OSError."""
    write_line(files if files is not None else RealFiles(), directory / CLUSTER_NAME, id)
