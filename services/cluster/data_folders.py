"""The data directories that offline commands get: which group's folder a path means, and what of it cannot be read.

DIR is always one of two: a node's data directory, with one folder for each group, or one group's folder.
"""

import contextlib
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.parsers import GROUPS
from raft.storage import DataDirectoryInUse, StorageError
from raft.storage.dump import Found, data_directories
from services.cluster.errors import ClusterError, InTheWay, UsageError, unreadable


def quoted(paths: Iterable[Path]) -> str:
    """Paths for a sentence, each quoted for a shell."""
    return ", ".join(shlex.quote(str(path)) for path in paths)


@contextlib.contextmanager
def reading_under(root: Path) -> Iterator[None]:
    """Turns an error about the files under `root` into a sentence that names one of them."""
    try:
        yield
    except DataDirectoryInUse as error:
        raise InTheWay(f"A node runs on it: {error}. Stop it first.") from error
    except StorageError as error:
        raise ClusterError(f"{error}.") from error
    except OSError as error:
        raise ClusterError(f"{unreadable(error, root)}.") from error


def found_in(root: Path) -> Found:
    """The directories with a log that `root` leads to, at least one.

    Raises:
        UsageError: there is none.
        OSError: a directory cannot be read.
    """
    if not root.is_dir():
        raise UsageError(f"There is no folder {root}.")
    found = data_directories(root)
    if found.groups:
        return found
    problem = f"There is no log in {root} nor in the folder of a group in it."
    if found.beside:
        problem += f" To look at what was put aside there, name it: {quoted(found.beside)}."
    raise UsageError(problem)


def group_folders(root: Path, group: str = "") -> dict[str, Path]:
    """The folders that `root` leads to, by group; only that of `group`, if it is named.

    Raises:
        UsageError: there is none, or its group is unknown.
        OSError: a directory cannot be read.
    """
    if group and group not in GROUPS:
        raise UsageError(f"There is no group {group!r}; the groups are {', '.join(GROUPS)}.")
    found = found_in(root)
    if found.groups == (root,):
        return {_group_of(root, group): root}
    by_name = {path.name: path for path in found.groups}
    folders = {name: by_name[name] for name in GROUPS if name in by_name and group in ("", name)}
    if not folders:
        raise UsageError(f"{root} holds nothing of {f'the group {group}' if group else 'any group'}.")
    return folders


def one_group_folder(root: Path, group: str = "") -> tuple[str, Path]:
    """As `group_folders`, but there must be exactly one."""
    folders = group_folders(root, group)
    if len(folders) > 1:
        raise UsageError(f"{root} holds the groups {', '.join(folders)}: say which one with `--group`.")
    return next(iter(folders.items()))


def _group_of(folder: Path, group: str) -> str:
    """The group of a folder that was named itself: `lock`, or `lock.damaged-20260131T120000`."""
    told = folder.absolute().name.partition(".")[0]
    if told not in GROUPS:
        if not group:
            raise UsageError(f"The name of {folder} does not tell its group: say it with `--group`.")
        return group
    if group not in ("", told):
        raise UsageError(f"{folder} is of the group {told}, not {group}.")
    return told
