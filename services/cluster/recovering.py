"""`mufakat recover`: says what a disk holds and what may be lost, asks, and makes a group of one from it.

The rule: find out whose disk it is and what it holds, for every group, before you ask, and change nothing before the
answer. Only a recovery that was interrupted after an earlier answer is finished first.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raft.core.types import Configuration
from raft.life import described_life
from raft.storage import StorageError
from raft.storage.beside import RECOVERING_SUFFIX
from raft.storage.files import RealFiles
from raft.storage.reading import read_directory, shared
from raft.storage.storage import LOCK_NAME
from services.cluster.data_folders import group_folders, reading_under
from services.cluster.disk_backup import checked_id
from services.cluster.errors import ClusterError, UsageError, reason
from services.cluster.printing import echo
from services.node.process_file import PROCESS_NAME

if TYPE_CHECKING:
    from services.offline.disks import Disk

#: What may be lost, and what cannot be undone.
WARNING = (
    "What only the other disks hold will be lost, even where it was acknowledged. The last entries here may never "
    "have been acknowledged, and will count. {node} will be the only member, in a new life: the other disks will be "
    "refused. If a majority of the nodes can still be started, do that instead."
)


@dataclass(frozen=True, slots=True)
class Found:
    """One group's disk, and the node that it belongs to."""

    disk: "Disk"
    node: str


def recover(root: Path, group: str, *, node: str, agree: Callable[[], bool]) -> None:
    """Make a group of one from the content of a data directory or a group's folder.

    Args:
        group: of a data directory, only this one; empty: all that it holds.
        node: whose disk it is, if nothing else says that.
        agree: whether to go on; called once everything was said.

    Raises:
        UsageError: the folder is not clear, or its node is unknown.
        InTheWay: a node runs on it.
        ClusterError: it is damaged or cannot be written, or the operator did not agree.
    """
    node, root = checked_id(node), root.absolute()
    with reading_under(root), contextlib.ExitStack() as locks:
        for folder in {root, root.parent}:
            locks.enter_context(_no_process(folder))
        finished = _finish(root, group)
        folders = group_folders(root, group)
        for name, folder in folders.items():
            _check_name(name, folder)
            locks.callback(RealFiles().lock(folder / LOCK_NAME).close)
        found = [_look(name, folder, node) for name, folder in folders.items()]
        told = [each for each in found if _tell(each)]
        if told:
            echo(WARNING.format(node=told[0].node))
            if not agree():
                raise ClusterError("Nothing was changed.")
            _carry_out(told)
    if told or finished:
        _tell_next(found)
    else:
        echo(f"There is nothing to recover: start {found[0].node}.")


@contextlib.contextmanager
def _no_process(folder: Path) -> Iterator[None]:
    """No node's process holds the directory, and none takes it meanwhile."""
    with shared(folder / PROCESS_NAME):
        yield


def _finish(root: Path, group: str) -> list[str]:
    """Finish recoveries that were interrupted after the old directory was put aside; returns their groups."""
    from services.offline.recovery import finish_recovery

    folders = [root]
    if root.is_dir():
        drafts = [path.name for path in root.iterdir() if RECOVERING_SUFFIX in path.name]
        links = [path.name for path in root.iterdir() if path.is_symlink()]
        names = {*(name.partition(RECOVERING_SUFFIX)[0] for name in drafts), *links}
        folders = [root / name for name in sorted(names)]
    finished = [folder.name for folder in folders if group in ("", folder.name) and finish_recovery(folder)]
    for name in finished:
        echo(f"{name}: a recovery was interrupted, and is finished now.")
    return finished


def _check_name(group: str, folder: Path) -> None:
    if folder.absolute().name != group:
        raise UsageError(
            f"No node opens {folder}: the folder of the group {group} has to be called {group}, in the data "
            "directory of its node. Give it this name first."
        )


def _look(group: str, folder: Path, given: str) -> Found:
    """Read one disk.

    Raises:
        StorageError, OSError: it cannot be read.
        UsageError: its node is unknown.
        ClusterError: it holds nothing.
    """
    from services.offline.disks import load_disk

    disk = load_disk(read_directory(folder), group)
    if disk.is_empty:
        raise ClusterError(f"{folder} holds no entry of the group {group}: there is nothing to recover.")
    return Found(disk, _whose(folder, disk.meta.configuration, given))


def _whose(folder: Path, configuration: Configuration, given: str) -> str:
    """The member whose disk it is: from the node's own record, else from `given`, else from the path."""
    from services.offline.disks import recorded_node

    members = configuration.members
    recorded = recorded_node(folder)
    if recorded and given not in ("", recorded):
        raise UsageError(f"{folder} is the disk of {recorded}, as its node has recorded. Leave `--id` out.")
    where = folder.absolute().parent
    by_path = where.parent.name if where.name == "data" and where.parent.name in members else ""
    node = recorded or given or by_path
    some = ", ".join(members) or "not known"
    if not node:
        raise UsageError(f"It cannot be told whose disk {folder} is: say it with `--id`. Its members are {some}.")
    if members and node not in members:
        raise UsageError(
            f"{node} is no member of the group as {folder} has it; its members are {some}. Say with `--id` whose "
            "disk it is."
        )
    return node


def _tell(found: Found) -> bool:
    """Say what a disk holds. False if there is nothing to recover."""
    from services.offline.recovery import is_alone

    disk, meta = found.disk, found.disk.meta
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(disk.written_us / 1_000_000))
    learners = f", learners {', '.join(meta.configuration.learners)}" if meta.configuration.learners else ""
    echo(
        f"{disk.group}: {disk.directory}, the disk of {found.node}: up to index {meta.index} of term {meta.term}, "
        f"last written {written}; voters {', '.join(meta.configuration.voters) or 'not known'}{learners}; life "
        f"{described_life(meta.configuration.life)}."
    )
    if is_alone(disk, found.node):
        echo(f"{disk.group}: {found.node} is its only member already. Nothing has to be recovered.")
        return False
    return True


def _carry_out(found: list[Found]) -> None:
    from services.offline.recovery import carry_out, plan_recovery

    for recovery in [plan_recovery(each.disk, each.node) for each in found]:
        try:
            aside = carry_out(recovery)
        except (StorageError, OSError) as error:
            where = recovery.disk.directory
            raise ClusterError(
                f"The recovery of {where} broke off: {reason(error)}. The same command goes on with it."
            ) from error
        echo(f"{recovery.disk.group}: recovered, as life {recovery.life}. The former disk is kept in {aside}.")


def _tell_next(found: list[Found]) -> None:
    """Say what the operator has to do now."""
    echo(f"Next: start {found[0].node} alone and wait until it is ready. Then, for each other node: move its folder")
    echo("of each group that was recovered away, start it, and take it in:")
    for command in _commands(found) or ["mufakat member add ID HOST:PORT"]:
        echo(f"  {command}")
    echo("Where an old folder was left, its node says that its data is of another life, and takes no part.")


def _commands(found: list[Found]) -> list[str]:
    """The commands that add the former members again; one command for all groups, if the groups had the same
    members."""
    by_group = {each.disk.group: _former(each) for each in found}
    if len(by_group) > 1 and len(set(by_group.values())) == 1:
        return [f"mufakat member add {id} {address}" for id, address in next(iter(by_group.values()))]
    return [
        f"mufakat member add {id} {address} --group {group}"
        for group, former in by_group.items()
        for id, address in former
    ]


def _former(found: Found) -> tuple[tuple[str, str], ...]:
    """The other members, each with its address."""
    members = found.disk.meta.configuration
    return tuple((id, members.address_of(id) or "HOST:PORT") for id in members.members if id != found.node)
