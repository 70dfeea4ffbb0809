"""Backups of a group, from a cluster that runs and into one that does not run yet."""

import http.client
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

from common.parsers import parse_cluster
from raft.storage import StorageError
from raft.storage.backup import Backup
from services.cluster.backend import Backend
from services.cluster.backup_files import check_target, describe_backup, write_backup
from services.cluster.calls import Calls, address_of, admin_headers
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo
from services.cluster.roster import Roster, Seat
from services.cluster.topology import TOPOLOGIES, Topology
from services.cluster.waiting import look_while_electing

#: How long a node may let us wait for the next bytes of a backup.
READ_TIMEOUT_SECONDS = 60.0
PIECE_BYTES = 1 << 20


def take_backup(surroundings: Surroundings, group: str, file: Path, *, address: str = "") -> Backup:
    """Ask a node for a backup of `group` and write it to `file`, whole and checked or not at all.

    Args:
        address: host:port of the node to ask; empty: a ready one of the cluster that is up here.

    Raises:
        NoCluster, UsageError: there is nobody to ask, or `file` cannot be written (`check_target`).
        ClusterError: the node refused, or what came is not whole.
    """
    check_target(file)
    if address:
        asked, headers = address_of(address), admin_headers(surroundings.environ)
    else:
        asked, headers = _ready_member(surroundings.require_backend(), group)
    path = f"/admin/backup?{urlencode({'group': group})}"
    return write_backup(file, _download(asked, path, headers))


def _ready_member(backend: Backend, group: str) -> tuple[tuple[str, int], dict[str, str]]:
    """The address of a member that is ready, and what to send along; waits where one runs and the group may be
    electing."""
    backend.topology.members(group)
    calls = Calls(backend)

    def ready_ones(now: Roster) -> list[Seat]:
        members = [seat for seat in now.members(group) if seat.answer]
        return [seat for seat in members if (told := seat.answer.groups.get(group)) and told.ready]

    ready, now = look_while_electing(ready_ones, backend)
    if not ready:
        told = [f"{seat.node.id} {seat.told}" for seat in now.members(group) if isinstance(seat.told, str)]
        why = f" ({'; '.join(told)})" if told else ""
        raise ClusterError(f"No node of the group {group!r} is ready{why}. `mufakat status` shows why.")
    return calls.address(ready[0].node), calls.headers


def _download(address: tuple[str, int], path: str, headers: dict[str, str]) -> Iterator[bytes]:
    """What a node answers, piece by piece.

    Raises:
        ClusterError: it refused, or it broke off.
    """
    host, port = address
    connection = http.client.HTTPConnection(host, port, timeout=READ_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            told = response.read(4096).decode("utf-8", "replace")
            raise ClusterError(f"{host}:{port} answered {response.status} to {path}: {told}")
        while piece := response.read(PIECE_BYTES):
            yield piece
    except http.client.HTTPException as error:
        raise ClusterError(f"The backup broke off: {error!r}. Nothing was written; try again.") from error
    except OSError as error:
        raise ClusterError(f"No backup was written: {host}:{port} cannot be asked: {error}.") from error
    finally:
        connection.close()


def restore_cluster(surroundings: Surroundings, file: Path, topology_name: str) -> None:
    """Write `file` as the beginning of its group on every node of a local cluster that is down.

    Raises:
        InTheWay: a cluster is up, or a node holds something of that group already.
        ClusterError: the file is damaged, or cannot be written.
    """
    from services.restore import is_empty, load_backup, write_group

    home = surroundings.home
    with home.exclusive():
        if home.record() is not None:
            raise InTheWay("A cluster is up. Take it down first: `mufakat down`.")
        group = _load(load_backup, file)
        name = group.backup.head.group
        topology: Topology = TOPOLOGIES[topology_name]
        members = topology.members(name)
        folders = {node.id: home.node_folder(topology, node) / "data" / name for node in members}
        _check_empty([folder for folder in folders.values() if not is_empty(folder)])
        for folder in folders.values():
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(write_group, group, list(folders.values()), [node.id for node in members])
    echo(describe_backup(group.backup))
    echo(
        f"Restored on {', '.join(node.id for node in members)}. Start the cluster: "
        f"`mufakat up --topology {topology_name}`."
    )


def restore_node(file: Path, data_dir: Path, cluster: str, *, life: str = "") -> None:
    """Write `file` into the data directory of one node that does not run. To be done for every node of the group,
    with the same file, the same members and the same life, before the first of them starts.

    Args:
        life: what the restore on the first of the nodes has named.

    Raises: as `restore_cluster`; UsageError where `cluster` cannot be read.
    """
    from services.restore import is_empty, load_backup, write_group

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


def _load(load_backup, file: Path, *, life: str = ""):
    try:
        return load_backup(file, life=life)
    except StorageError as error:
        raise ClusterError(f"The backup cannot be used: {error}.") from error
    except OSError as error:
        raise ClusterError(f"The backup cannot be read: {error}.") from error


def _write(write_group, group, folders: Sequence[Path], voters: Sequence[str]) -> None:
    try:
        write_group(group, *folders, voters=voters)
    except (StorageError, OSError) as error:
        raise ClusterError(f"Nothing was restored into {', '.join(map(str, folders))}: {error}.") from error


def _check_empty(filled: Sequence[Path]) -> None:
    if filled:
        raise InTheWay(
            f"A backup is restored into an empty cluster only, and there is data in "
            f"{', '.join(map(str, filled))}. If nobody needs it, move it away or delete it first."
        )
