"""Deleting what the nodes of a cluster stored.

Folders may be links: an operator puts `separated`, a node's folder or its data on another disk. What lies behind such
a link is deleted and the link stays. The rule of the file: nothing is said to be gone that is there still.
"""

import os
from collections.abc import Callable
from pathlib import Path

from services.cluster.errors import ClusterError, in_words

#: How deep links are followed: topology, node, data, group. What a node stores has no links below.
LINK_DEPTH_MAX = 3
#: How many of the things that could not be deleted are named.
NAMED_MAX = 3


def wipe_nodes(topology_folder: Path) -> None:
    """Delete all data and logs of a topology's nodes.

    Raises:
        ClusterError: something is there still; the message names it.
    """
    problems: list[str] = []
    if _empty(topology_folder, 0, problems) and not topology_folder.is_symlink():
        _remove(topology_folder, os.rmdir, problems)
    if problems:
        more = f" And {len(problems) - NAMED_MAX} more." if len(problems) > NAMED_MAX else ""
        raise ClusterError(f"Not everything could be deleted. {' '.join(problems[:NAMED_MAX])}{more}")


def _empty(folder: Path, depth: int, problems: list[str]) -> bool:
    """Delete what is in a folder, and note what could not be. False where anything is left, be it a link."""
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
        if entry.is_symlink() and entry.is_dir() and depth < LINK_DEPTH_MAX:
            _empty(path, depth + 1, problems)
            gone = False
        elif entry.is_dir(follow_symlinks=False):
            gone = _empty(path, depth + 1, problems) and _remove(path, os.rmdir, problems) and gone
        else:
            gone = _remove(path, os.unlink, problems) and gone
    return gone


def _remove(path: Path, remove: Callable[[Path], None], problems: list[str]) -> bool:
    try:
        remove(path)
    except OSError as error:
        if os.path.lexists(path):
            problems.append(in_words(error))
            return False
    return True
