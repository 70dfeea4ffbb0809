"""Backups of a group: from a cluster that runs, and into one that does not run yet."""

import contextlib
import http.client
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from common.clock import wall_us
from common.parsers import join_address, parse_cluster
from raft.life import made_us
from raft.storage import StorageError
from raft.storage.backup import Backup, verify_backup
from raft.storage.beside import RESTORING_SUFFIX, publish, real
from raft.storage.files import RealFiles
from raft.storage.storage import LOCK_NAME
from services.cluster.backend import Backend
from services.cluster.backup_files import check_target, describe_backup, write_backup
from services.cluster.calls import Calls, address_of, admin_headers
from services.cluster.data_folders import reading_under
from services.cluster.errors import ClusterError, InTheWay, UsageError, reason, unreadable
from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo
from services.cluster.restoring import (
    Restoring,
    read_journal,
    remove_drafts,
    remove_journal,
    unfinished_restore,
    write_journal,
)
from services.cluster.roster import Roster, Seat
from services.cluster.topology import TOPOLOGIES, Topology
from services.cluster.waiting import look_while_electing

if TYPE_CHECKING:
    from services.offline.restore import RestorableGroup

Loaded = TypeVar("Loaded")

#: How long we wait for the next bytes of a backup from a node.
READ_TIMEOUT_SECONDS = 60.0
PIECE_BYTES = 1 << 20
#: Of a refusal.
ANSWER_BYTES_MAX = 4_096

__all__ = ["abandon_restore", "restore_cluster", "restore_node", "take_backup", "unfinished_restore"]


def take_backup(surroundings: Surroundings, group: str, file: Path, *, address: str = "") -> Backup:
    """Ask a node for a backup of `group` and write it to `file`, whole and checked or not at all.

    Args:
        address: host:port of the node to ask; empty: a ready one of the cluster that is up here.

    Raises:
        NoCluster, UsageError: there is nobody to ask, or `file` cannot be written (`check_target`).
        ClusterError: the node refused, or the answer is not whole.
    """
    check_target(file)
    if address:
        asked, headers = address_of(address), admin_headers(surroundings.environ)
    else:
        asked, headers = _ready_member(surroundings.require_backend(), group)
    path = f"/admin/backup?{urlencode({'group': group})}"
    return write_backup(file, _download(asked, path, headers))


def _ready_member(backend: Backend, group: str) -> tuple[tuple[str, int], dict[str, str]]:
    """The address of a member that is ready, and the headers to send. It waits if a member runs and the group may be
    electing."""
    calls = Calls(backend)

    def ready_ones(now: Roster) -> list[Seat]:
        members = ((seat, seat.answer) for seat in now.members(group))
        return [seat for seat, told in members if told and (here := told.groups.get(group)) and here.ready]

    ready, now = look_while_electing(ready_ones, backend, group)
    if not ready:
        told = [f"{seat.node.id} {seat.told}" for seat in now.members(group) if isinstance(seat.told, str)]
        why = f" ({'; '.join(told)})" if told else ""
        raise ClusterError(f"No node of the group {group!r} is ready{why}. `mufakat status` shows why.")
    return calls.address(ready[0].node), calls.headers


def _download(address: tuple[str, int], path: str, headers: dict[str, str]) -> Iterator[bytes]:
    """What a node answers, piece by piece.

    Raises:
        ClusterError: it refused, or its answer broke off.
    """
    named = join_address(*address)
    connection = http.client.HTTPConnection(*address, timeout=READ_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ClusterError(f"{named} answered {response.status}: {_detail(response.read(ANSWER_BYTES_MAX))}")
        while piece := response.read(PIECE_BYTES):
            yield piece
    except http.client.HTTPException as error:
        raise ClusterError(f"The backup broke off: {error!r}. Nothing was written; try again.") from error
    except (OSError, ValueError) as error:
        # ValueError: a host name that cannot be looked up.
        raise ClusterError(f"No backup was written: {named} cannot be asked: {reason(error)}.") from error
    finally:
        connection.close()


def _detail(text: bytes) -> str:
    """The sentence of a refusal; the text itself if it is not one of our refusals."""
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, TypeError, KeyError):
        return text.decode("utf-8", "replace")


def restore_cluster(surroundings: Surroundings, file: Path, topology_name: str = "") -> None:
    """Write `file` as the beginning of its group on every node of a local cluster that is down. If the same restore
    was interrupted, this continues it.

    Args:
        topology_name: of the cluster; empty: the one in which it ran last, or the one that has data, else the first.

    Raises:
        InTheWay: a cluster is up, a node already holds something of that group, or another restore is unfinished.
        ClusterError: the file is damaged, or cannot be written.
    """
    from services.offline.restore import is_empty, life_of, write_group

    home = surroundings.home
    with home.exclusive():
        _check_down(home)
        topology = _topology(home, topology_name)
        topology_name = topology.name
        name, under_way = _restore_under_way(home, file, topology_name)
        members = topology.members(name)
        folders = {node.id: home.node_folder(topology, node) / "data" / name for node in members}
        filled = {id: folder for id, folder in folders.items() if not is_empty(folder)}
        published = {id for id, folder in filled.items() if under_way and life_of(folder) == under_way.life}
        group = _load_again(file, under_way, [folders[id] for id in published])
        of_others = [folder for folder in _group_folders(home, topology, name) if folder not in folders.values()]
        others = [folder for folder in of_others if not is_empty(folder)]
        _check_empty([*others, *(folder for id, folder in filled.items() if id not in published)])
        remove_drafts(home.root)
        for folder in folders.values():
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        restoring = Restoring(
            group=name,
            topology=topology_name,
            file=str(file.absolute()),
            checksum=group.backup.checksum,
            life=group.life,
            folders={id: str(folder.relative_to(home.root)) for id, folder in folders.items()},
        )
        missing = [folder for id, folder in folders.items() if id not in published]
        _write(
            write_group, group, missing, list(folders), before_publishing=lambda: write_journal(home.root, restoring)
        )
        remove_journal(home.root)
    echo(describe_backup(group.backup))
    if under_way:
        echo(f"This restore was interrupted before and is finished now, as life {group.life}.")
    echo(
        f"Restored on {', '.join(folders)}. Start the cluster: `mufakat up --mode local --topology {topology_name}`."
    )


def _topology(home: Home, name: str) -> Topology:
    cluster = home.cluster()
    last = cluster.record.topology if cluster and cluster.record else home.stored_topology()
    return TOPOLOGIES[name or last or next(iter(TOPOLOGIES))]


def _group_folders(home: Home, topology: Topology, group: str) -> list[Path]:
    """The group's folder of every node in that topology, including nodes that were added to it."""
    cluster = home.cluster()
    added = [Path(node.data_dir) for node in cluster.added.get(topology.name, ())] if cluster else []
    folders = [folder for folder in home.data_folders() if folder.parents[1].name == topology.name]
    return [folder / group for folder in (*folders, *added) if str(folder) != "."]


def abandon_restore(surroundings: Surroundings) -> None:
    """Give up the restore that was interrupted: remove what it has written, so that its nodes are empty again.

    Raises:
        InTheWay: a cluster is up, or a node has started on the restored data.
        ClusterError: the restored data cannot be read or removed.
    """
    from services.offline.restore import is_empty, life_of, was_started

    home = surroundings.home
    with home.exclusive(), contextlib.ExitStack() as locks:
        _check_down(home)
        under_way = read_journal(home.root)
        if under_way is None:
            remove_drafts(home.root)
            echo("No restore is unfinished. Nothing was removed.")
            return
        published = {}
        with reading_under(home.root):
            for id, path in under_way.folders.items():
                folder = home.root / path
                if not is_empty(folder) and life_of(folder) == under_way.life:
                    locks.callback(RealFiles().lock(folder / LOCK_NAME).close)
                    published[id] = folder
            started = [id for id, folder in published.items() if was_started(folder)]
            if started:
                raise InTheWay(
                    f"It cannot be given up: {', '.join(started)} has started on what was restored, and may have "
                    f"acknowledged writes since. {under_way}"
                )
            for folder in map(real, published.values()):
                # Rename it first: half of a folder must not count as a folder. A link must lead to something again.
                draft = folder.with_name(folder.name + RESTORING_SUFFIX)
                publish(folder, draft)
                shutil.rmtree(draft)
                folder.mkdir(mode=0o700)
            remove_drafts(home.root)
            remove_journal(home.root)
    removed = f"What it had written on {', '.join(published)} is removed" if published else "It had written nothing"
    echo(f"The restore of the group {under_way.group} is given up. {removed}.")


def _check_down(home: Home) -> None:
    if home.record() is not None:
        raise InTheWay("A cluster is up. Take it down first: `mufakat down`.")


def _restore_under_way(home: Home, file: Path, topology: str) -> tuple[str, Restoring | None]:
    """The group of `file`, and the interrupted restore that continues with it; None if none was interrupted.

    Raises:
        InTheWay: another restore was interrupted.
    """
    under_way = read_journal(home.root)
    backup = _load(verify_backup, file)
    if under_way and not under_way.is_of(
        group=backup.head.group, topology=topology, checksum=backup.checksum
    ):
        raise InTheWay(f"Another restore has to be finished first. {under_way}")
    return backup.head.group, under_way


def _load_again(file: Path, under_way: Restoring | None, published: Sequence[Path]) -> "RestorableGroup":
    """The backup; if a restore is under way, with the life of that restore."""
    from services.offline.restore import LIFE_AGE_US_MAX, load_backup, was_started

    if under_way is None:
        return _load(load_backup, file)
    with reading_under(file):
        has_begun = any(map(was_started, published))
    if not has_begun and wall_us() - made_us(under_way.life) > LIFE_AGE_US_MAX:
        # The numbers depend on the life: since then another restore may have used those that it would begin with.
        raise InTheWay(
            f"A restore of the group {under_way.group} was interrupted, and that is more than a day ago: it has to "
            "begin anew. `mufakat restore --abandon` gives it up; then restore."
        )
    return _load(load_backup, file, life=under_way.life, has_begun=has_begun)


def restore_node(file: Path, data_dir: Path, cluster: str, *, life: str = "") -> None:
    """Write `file` into the data directory of one node that does not run. Do this for every node of the group, with
    the same file, the same members and the same life, before the first of them starts.

    Args:
        life: the life that the restore on the first of the nodes has named.

    Raises: as `restore_cluster`; UsageError if `cluster` cannot be read.
    """
    from services.offline.restore import is_empty, load_backup, write_group

    try:
        voters = sorted(parse_cluster(cluster))
    except ValueError as error:
        raise UsageError(f"--cluster: {error}.") from error
    group = _load(load_backup, file, life=life)
    folder = data_dir / group.backup.head.group
    _check_empty([] if is_empty(folder) else [folder])
    _write(write_group, group, [folder], voters)
    echo(describe_backup(group.backup))
    echo(f"Restored into {folder} with the members {', '.join(voters)}, as life {group.life}.")
    if not life and len(voters) > 1:
        echo(f"Now the same on the other nodes, with `--life {group.life}`; before the first of them starts.")


def _load(load: Callable[..., Loaded], file: Path, **how: Any) -> Loaded:
    if not file.is_file():
        # Reading a pipe, for example, would wait without end.
        raise UsageError(f"{file} is no regular file. Name the file of a backup.")
    try:
        return load(file, **how)
    except StorageError as error:
        raise ClusterError(f"The backup cannot be used: {error}.") from error
    except OSError as error:
        raise ClusterError(f"The backup cannot be used: {unreadable(error, file)}.") from error


def _write(
    write_group: Callable[..., Any], group: Any, folders: Sequence[Path], voters: Sequence[str], **how: Any
) -> None:
    try:
        write_group(group, *folders, voters=voters, **how)
    except (StorageError, OSError) as error:
        raise ClusterError(
            f"The restore into {', '.join(map(str, folders))} broke off: {reason(error)}. The same command goes on "
            "with it."
        ) from error


def _check_empty(filled: Sequence[Path]) -> None:
    if filled:
        raise InTheWay(
            f"A backup is restored into an empty cluster only, and there is data in "
            f"{', '.join(map(str, filled))}. If nobody needs it, move it away or delete it first."
        )
