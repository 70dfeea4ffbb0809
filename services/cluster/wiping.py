"""Deleting what the nodes of a cluster stored.

Folders may be links: an operator may put `separated`, a node's folder, its data or a group on another disk. What such
a link leads to is deleted, and the link stays; any other link is only a file. The rule of the file: never say that
something is gone if it is still there.
"""

import os
from collections.abc import Callable
from pathlib import Path

from common.parsers import GROUPS
from services.cluster.errors import ClusterError, in_words

#: How many of the things that could not be deleted the message names.
NAMED_MAX = 3

#: Names of the links that are followed in a topology's folder, in a node's folder, in its data; None: all.
_FOLLOWED: tuple[frozenset[str] | None, ...] = (None, frozenset({"data"}), frozenset(GROUPS))


def wipe_nodes(topology_folder: Path) -> None:
    """Delete all data and logs of a topology's nodes.

    Raises:
        ClusterError: something is still there; the message names it.
    """
    problems: list[str] = []
    if _empty(topology_folder, 0, problems) and not topology_folder.is_symlink():
        _remove(topology_folder, os.rmdir, problems)
    if problems:
        more = f" And {len(problems) - NAMED_MAX} more." if len(problems) > NAMED_MAX else ""
        raise ClusterError(f"Not everything could be deleted. {' '.join(problems[:NAMED_MAX])}{more}")


def holds_anything(topology_folder: Path) -> bool:
    """Whether a topology's nodes still store anything; links that stay do not count."""
    return any(path.is_file() or (path.is_symlink() and not path.is_dir()) for path in topology_folder.glob("*/**/*"))


def _empty(folder: Path, depth: int, problems: list[str]) -> bool:
    """Delete what is in a folder, and note what could not be deleted. False if anything is left, even a link."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return False
    except OSError as error:
        problems.append(in_words(error))
        return False
    gone = True
    for entry in entries:
        path = Path(entry.path)
        if entry.is_symlink() and entry.is_dir() and _is_followed(entry.name, depth):
            _empty(path, depth + 1, problems)
            gone = False
        elif entry.is_dir(follow_symlinks=False):
            gone = _empty(path, depth + 1, problems) and _remove(path, os.rmdir, problems) and gone
        else:
            gone = _remove(path, os.unlink, problems) and gone
    return gone


def _is_followed(name: str, depth: int) -> bool:
    if depth >= len(_FOLLOWED):
        return False
    names = _FOLLOWED[depth]
    return names is None or name in names


def _remove(path: Path, remove: Callable[[Path], None], problems: list[str]) -> bool:
    try:
        remove(path)
    except OSError as error:
        if os.path.lexists(path):
            problems.append(in_words(error))
            return False
    return True
