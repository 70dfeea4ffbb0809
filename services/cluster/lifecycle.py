"""Bringing a cluster up and taking it down, and finding the one that is up."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from services.cluster.backend import Backend
from services.cluster.containers import DockerBackend, ImageNotBuilt
from services.cluster.engine import Engine, NoEngine, detect_engine
from services.cluster.errors import ClusterError, InTheWay
from services.cluster.home import DOWN, STARTING, UP, Cluster, Home, Record, new_cluster
from services.cluster.local import SERVE_COMMAND, LocalBackend
from services.cluster.printing import echo
from services.cluster.restoring import remove_journal, restores_into, unfinished_restore
from services.cluster.roster import roster
from services.cluster.settings import settle
from services.cluster.status import cluster_status, status_text
from services.cluster.topology import TOPOLOGIES
from services.cluster.waiting import wait_ready
from services.cluster.wiping import holds_anything, wipe_nodes


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller of `up` asked for. None: as the cluster ran last."""

    #: If it never ran: the first of `TOPOLOGIES`.
    topology: str | None = None
    #: "local" or "docker"; if it never ran: the one that is possible.
    mode: str | None = None
    port_offset: int | None = None

    def record(self, last: Record | None, mode: str, *, stored: str = "") -> Record:
        """How the cluster shall run, in that mode.

        Args:
            stored: the topology that has data, if it is exactly one.
        """
        topology = self.topology or (last.topology if last else stored or next(iter(TOPOLOGIES)))
        offset = self.port_offset if self.port_offset is not None else last.port_offset if last else 0
        return Record(mode, topology, offset)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the commands use around them; tests bring their own."""

    home: Home
    environ: Mapping[str, str]
    #: How the program was called, for advice.
    program: str = "mufakat"
    detect: Callable[[], Engine | NoEngine] = detect_engine
    #: The command that starts a node's process in local mode.
    serve_command: tuple[str, ...] = SERVE_COMMAND

    def backend(self, cluster: Cluster) -> Backend:
        """The backend with which a cluster runs, or ran last.

        Raises:
            ClusterError: it runs in containers and no engine answers.
        """
        assert cluster.record is not None
        if cluster.record.mode == "local":
            return LocalBackend(self.home, cluster, environ=self.environ, command=self.serve_command)
        engine = self.detect()
        if isinstance(engine, NoEngine):
            raise ClusterError(f"The cluster runs in containers, but {engine.reason}.")
        return DockerBackend(self.home, cluster, engine, environ=self.environ)

    def require_backend(self) -> Backend:
        """The cluster that is up.

        Raises:
            NoCluster: none is.
        """
        return self.backend(self.home.require_cluster())

    def settled(self, cluster: Cluster) -> Cluster:
        """The cluster as its nodes shall be started: with its settings. The environment must not differ from them.

        Raises:
            UsageError, InTheWay: a variable is wrong, or differs from the kept one.
            ClusterError: a restore was interrupted; some nodes have the group and others do not.
        """
        unfinished = unfinished_restore(self.home.root)
        if unfinished is not None:
            raise ClusterError(unfinished)
        settled = settle(cluster, self.environ, self.home.cluster_path)
        if cluster.state != DOWN and not self.home.kept_secret() and self.backend(cluster).is_running():
            raise ClusterError(
                f"The secret of this cluster is gone from {self.home.root}, and nodes run that use it. "
                "Bring `cluster_secret` back, or `mufakat down` and `mufakat up`: then another one is made."
            )
        self.home.cluster_secret(self.environ)
        return settled


def choose_mode(surroundings: Surroundings, asked: str | None, last: str | None = None) -> str:
    """Which mode to use; this also prints it, with the reason.

    Args:
        asked: the mode that the caller asked for.
        last: the mode in which the cluster ran before: its data is there.

    Raises:
        ClusterError: the mode that was asked for, or in which the cluster ran, is not possible here.
    """
    wanted, why = asked or last, "as asked" if asked else "as before"
    if wanted == "local":
        _check_local_possible()
        echo(f"Mode: local, {why}.")
        return "local"
    engine = surroundings.detect()
    if isinstance(engine, Engine):
        echo(f"Mode: docker, {why if wanted else 'because ' + engine.describe()}.")
        return "docker"
    if wanted == "docker":
        raise ClusterError(
            f"Docker mode cannot be used: {engine.reason}. Local mode needs no Docker: "
            "`mufakat up --mode local` (`make up MODE=local`)."
        )
    _check_local_possible()
    echo(f"Mode: local, because {engine.reason}.")
    return "local"


def _check_local_possible() -> None:
    if os.name == "nt":
        raise ClusterError(
            "Local mode needs Linux or macOS. On Windows use Docker: `cd docker`, then "
            "`docker compose up --build`."
        )


def up(surroundings: Surroundings, request: Request) -> Backend:
    """Bring a cluster up and wait until all of it is ready.

    Raises:
        InTheWay: another cluster is up, this one is half up, a port is taken, or the environment says something else
            than the cluster's settings.
        ClusterError: it could not be started, or was not ready in time.
    """
    home = surroundings.home
    with home.exclusive():
        cluster = surroundings.settled(home.cluster() or home.begin())
        if cluster.record is None or cluster.state == DOWN:
            backend = _up_anew(surroundings, cluster, request)
        else:
            backend = _up_again(surroundings, cluster, request)
        backend = surroundings.backend(replace(backend.cluster, state=UP))
    nodes = [node for node in backend.topology.nodes if backend.process_of(node).is_running]
    seconds, found = wait_ready(backend, nodes)
    ids = {node.id for node in nodes}
    removed = [seat.node.id for seat in found.seats if seat.is_removed and seat.node.id in ids]
    echo(f"All {len(nodes) - len(removed)} nodes are ready ({seconds:.1f} s).")
    if removed:
        echo(f"{', '.join(removed)}: no member any more. `mufakat member add` takes it back, `mufakat stop` ends it.")
    return backend


def _up_anew(surroundings: Surroundings, cluster: Cluster, request: Request) -> Backend:
    mode = choose_mode(surroundings, request.mode, cluster.record.mode if cluster.record else None)
    backend = _prepared(surroundings, cluster, request, mode)
    _warn_of_other_data(surroundings.home, cluster, backend)
    _start(surroundings.home, backend)
    return backend


def _prepared(surroundings: Surroundings, cluster: Cluster, request: Request, mode: str) -> Backend:
    """The backend of the cluster as it shall run, after a check that nothing is in its way."""
    record = request.record(cluster.record, mode, stored=surroundings.home.stored_topology())
    wanted = replace(cluster, record=record, state=STARTING)
    backend = surroundings.backend(wanted)
    for name in backend.end_leftovers():
        echo(f"{name} ran still from before and was stopped.")
    if mode != "local":
        end_unknown(surroundings.home, surroundings.environ)
    try:
        backend.prepare()
    except ImageNotBuilt as error:
        if request.mode or cluster.record:
            raise
        echo(f"{error}\nMode: local after all, because the image could not be built.")
        return _prepared(surroundings, cluster, replace(request, mode="local"), "local")
    return backend


def _start(home: Home, backend: Backend) -> None:
    """Start the nodes that do not run. Before the first one starts, write down that they are being started, and after
    the last that they were started. So `down` finds what an interrupted `up` left behind, and the next `up`
    continues."""
    home.keep(replace(backend.cluster, state=STARTING))
    echo(f"Starting {len(backend.topology.nodes)} nodes ({backend.topology.name} topology).")
    backend.start_all()
    home.keep(replace(backend.cluster, state=UP))


def _warn_of_other_data(home: Home, cluster: Cluster, backend: Backend) -> None:
    """Warn if the cluster will not find what was stored before."""
    folder = home.root / backend.topology.name
    if backend.mode == "docker" and any(folder.glob("*/data/*/")):
        echo(
            f"Note: what local mode stored, in {folder}, is not in the containers. For that cluster: `mufakat down`, "
            f"then `mufakat up --mode local --topology {backend.topology.name}`."
        )
    last = cluster.record
    if backend.mode == "local" and last and last.mode == "docker" and last.topology == backend.topology.name:
        echo(
            "Note: this cluster ran in containers before, and what it stored there is not here. For that cluster: "
            f"`mufakat down`, then `mufakat up --mode docker --topology {backend.topology.name}`."
        )


def _up_again(surroundings: Surroundings, cluster: Cluster, request: Request) -> Backend:
    """`up` if a cluster is recorded already: the same one is fine, anything else is in the way."""
    record = cluster.record
    assert record is not None
    wanted = request.record(record, request.mode or record.mode)
    if wanted != record:
        raise InTheWay(
            f"A cluster is up already: {record}; you asked for {wanted}. Take it "
            "down first with `mufakat down` (`make down`)."
        )
    backend = surroundings.backend(cluster)
    processes = backend.processes()
    missing = [node_id for node_id, process in processes.items() if not process.is_running]
    if cluster.state == STARTING and missing:
        echo(f"The last `up` did not come to its end ({record}). Going on with it.")
        _check_ports(backend)
        _start(surroundings.home, backend)
    elif not missing:
        echo(f"The cluster is up already ({record}).")
        if cluster.state != UP:
            surroundings.home.keep(replace(cluster, state=UP))
    elif len(missing) == len(processes):
        echo(f"The cluster was up before ({record}) and no node runs. Starting them all.")
        _check_ports(backend)
        _start(surroundings.home, backend)
    elif set(missing) <= (removed := {seat.node.id for seat in roster(backend).seats if seat.is_removed}):
        echo(f"The cluster is up already ({record}). {', '.join(sorted(removed))} is no member any more.")
    else:
        states = ", ".join(f"{node_id} ({processes[node_id].state})" for node_id in missing)
        raise InTheWay(
            f"The cluster is half up ({record}): {states}. `mufakat start "
            f"{' '.join(missing)}` starts what is missing, `mufakat down` ends the rest."
        )
    return backend


def _check_ports(backend: Backend) -> None:
    if isinstance(backend, LocalBackend):
        backend.prepare()


def down(surroundings: Surroundings, *, wipe: bool) -> None:
    """Stop every node that runs here; with `wipe`, delete what the cluster stored, even if it is down already.

    Raises:
        NoCluster: there is nothing to stop and nothing to delete.
        ClusterError: not everything could be deleted, or cluster.json cannot be read; the nodes are ended.
    """
    home = surroundings.home
    if not home.root.is_dir():
        home.require_cluster()
    with home.exclusive():
        try:
            cluster = home.cluster()
        except ClusterError:
            end_unknown(home, surroundings.environ)
            raise
        if cluster is None or cluster.record is None:
            _down_unrecorded(surroundings, wipe=wipe, is_known=cluster is not None)
            return
        backend = surroundings.backend(cluster)
        was_down = cluster.state == DOWN and not backend.is_running()
        if was_down and not wipe:
            home.require_cluster()
        backend.end_all()
        if backend.mode != "local":
            end_unknown(home, surroundings.environ)
        home.note_down()
        if wipe:
            backend.wipe()
            _forget(home, cluster, backend.topology.name)
    state = "was down already" if was_down else "is down"
    echo(f"The cluster {state} ({cluster.record}). What it stored is {'deleted' if wipe else 'kept'}.")
    for node in cluster.added_here() if wipe else ():
        if node.data_dir and Path(node.data_dir).exists():
            echo(f"What {node.id} stored in {node.data_dir} is left: it was not started by this command.")


def _down_unrecorded(surroundings: Surroundings, *, wipe: bool, is_known: bool) -> None:
    """`down` if nothing says what ran: it finds the running nodes by their data. A cluster that never ran has
    settings."""
    home = surroundings.home
    ended = end_unknown(home, surroundings.environ)
    stored = [name for name in TOPOLOGIES if (home.root / name).exists()]
    if not ended and not (wipe and (stored or is_known)):
        home.require_cluster()
    if wipe:
        for name in stored:
            wipe_nodes(home.root / name)
        remove_journal(home.root)
        home.forget()
    echo(f"What it stored is {'deleted' if wipe else 'kept'}.")


def end_unknown(home: Home, environ: Mapping[str, str]) -> list[str]:
    """End every node that runs on a data directory of this home; returns which."""
    cluster = replace(new_cluster(), record=Record("local", next(iter(TOPOLOGIES))))
    ended = LocalBackend(home, cluster, environ=environ).end_leftovers()
    for name in ended:
        echo(f"{name} ran here and was stopped.")
    return ended


def _forget(home: Home, cluster: Cluster, topology: str) -> None:
    """Forget a wiped cluster, unless there is data of its other topology."""
    if restores_into(home.root, topology):
        remove_journal(home.root)
    if any(holds_anything(home.root / name) for name in TOPOLOGIES):
        home.keep(replace(cluster, state=DOWN).with_added_here(()))
    else:
        home.forget()


def summary(surroundings: Surroundings, backend: Backend) -> str:
    """What a successful `up` prints at its end: the nodes, and three things to try."""
    return f"{status_text(backend, cluster_status(backend))}\n\nTry next:\n{_next_steps(surroundings, backend)}"


def _next_steps(surroundings: Surroundings, backend: Backend) -> str:
    node = backend.topology.members("lock")[0]
    steps = (
        f"curl -s http://{backend.host}:{node.client_port}/lock/acquire -H 'Content-Type: application/json' "
        '-d \'{"key": "A", "client_id": "client1"}\'',
        f"{surroundings.program} status",
        f"{surroundings.program} kill-leader --group lock",
    )
    return "\n".join(f"  {step}" for step in steps)
