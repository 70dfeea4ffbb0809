"""The restore that is under way in a home: a journal tells an interrupted restore from a finished one.

    HOME/restoring.json    group, topology, backup, life and folders of the restore; mode 0600

    drafts written ──journal written──> published one by one ──journal removed──> done
                                          │ interrupted: the same restore continues, with the same life
                                          └ given up: what it published is removed, if no node started on it

The rule: the journal is durable before the first folder gets its name, and is removed after the last folder has its
name. While it is there, some nodes may hold the group and others may be empty, so none of them may start
(`unfinished_restore`).
"""

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from raft.storage.beside import RESTORING_SUFFIX
from raft.storage.files import RealFiles
from services.cluster.errors import ClusterError
from services.cluster.home import write_file

JOURNAL_NAME = "restoring.json"


@dataclass(frozen=True, slots=True)
class Restoring:
    """A restore into a local cluster."""

    group: str
    topology: str
    #: The backup: its path, and `Backup.checksum`.
    file: str
    checksum: int
    #: The life of the group that begins.
    life: str
    #: Node id to the folder of its group, relative to the home.
    folders: Mapping[str, str]

    def is_of(self, *, group: str, topology: str, checksum: int) -> bool:
        """Whether it is that restore."""
        return (self.group, self.topology, self.checksum) == (group, topology, checksum)

    def __str__(self) -> str:
        return (
            f"A restore of the group {self.group} into the {self.topology} topology was interrupted. "
            f"`mufakat restore {shlex.quote(self.file)} --topology {self.topology}` finishes it, with the file as it "
            "was; `mufakat restore --abandon` gives it up."
        )


def unfinished_restore(home_root: Path) -> str | None:
    """Why no node of this home may start, in words; None if no restore was interrupted."""
    try:
        under_way = read_journal(home_root)
    except ClusterError as error:
        return str(error)
    return None if under_way is None else str(under_way)


def restores_into(home_root: Path, topology: str) -> bool:
    """Whether a restore into this topology, or into an unknown one, was interrupted."""
    try:
        under_way = read_journal(home_root)
    except ClusterError:
        return True
    return under_way is not None and under_way.topology == topology


def read_journal(home_root: Path) -> Restoring | None:
    """The restore that is under way; None if none is.

    Raises:
        ClusterError: there is a journal, and it cannot be read.
    """
    path = home_root / JOURNAL_NAME
    try:
        restoring = Restoring(**json.loads(path.read_text(encoding="utf-8")))
        Path(*restoring.folders.values())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"{path} says that a restore was interrupted, and cannot be read. Move away the folders of the group "
            "that it was restoring, on every node, then delete the file."
        ) from error
    return restoring


def write_journal(home_root: Path, restoring: Restoring) -> None:
    """Note durably that this restore is under way. Raises OSError."""
    write_file(home_root / JOURNAL_NAME, json.dumps(asdict(restoring)) + "\n", mode=0o600)
    RealFiles().sync_directory(home_root)


def remove_journal(home_root: Path) -> None:
    """Note durably that no restore is under way any more. Raises OSError."""
    (home_root / JOURNAL_NAME).unlink(missing_ok=True)
    RealFiles().sync_directory(home_root)


def remove_drafts(home_root: Path) -> None:
    """Remove what interrupted restores have written and not published. The caller must hold the home exclusively."""
    for draft in home_root.glob(f"*/*/data/*{RESTORING_SUFFIX}"):
        shutil.rmtree(draft, ignore_errors=True)
