"""Bringing a cluster up and taking it down, and finding the one that is up."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.cluster.backend import Backend
from services.cluster.containers import DockerBackend, ImageNotBuilt
from services.cluster.engine import Engine, NoEngine, detect_engine
from services.cluster.errors import ClusterError, InTheWay
from services.cluster.home import Home, Record
from services.cluster.local import SERVE_COMMAND, LocalBackend
from services.cluster.printing import echo
from services.cluster.status import cluster_status, status_table
from services.cluster.waiting import wait_ready


@dataclass(frozen=True, slots=True)
class Request:
    """What `up` was asked for."""

    topology: str
    #: "local", "docker", or None: whichever is possible.
    mode: str | None = None
    port_offset: int = 0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the commands work in; tests bring their own."""

    home: Home
    environ: Mapping[str, str]
    #: How the program was called, to be shown in advice.
    program: str = "mufakat"
    detect: Callable[[], Engine | NoEngine] = detect_engine
    #: What the process of a node is started with in local mode.
    serve_command: tuple[str, ...] = SERVE_COMMAND

    def backend(self, record: Record) -> Backend:
        """The way in which a recorded cluster runs.

        Raises:
            ClusterError: it runs in containers and no engine answers.
        """
        if record.mode == "local":
            return LocalBackend(self.home, record.nodes(), environ=self.environ, command=self.serve_command)
        engine = self.detect()
        if isinstance(engine, NoEngine):
            raise ClusterError(f"The cluster runs in containers, but {engine.reason}.")
        return DockerBackend(self.home, record.nodes(), engine, environ=self.environ)

    def require_backend(self) -> Backend:
        """The cluster that is up.

        Raises:
            NoCluster: none is.
        """
        return self.backend(self.home.require_record())


def choose_mode(surroundings: Surroundings, asked: str | None) -> str:
    """Which mode to use, said aloud with the reason.

    Raises:
        ClusterError: the one that was asked for is not to be had here.
    """
    if asked == "local":
        _check_local_possible()
        echo("Mode: local, as asked.")
        return "local"
    engine = surroundings.detect()
    if isinstance(engine, Engine):
        echo(f"Mode: docker, {'as asked' if asked else 'because ' + engine.describe()}.")
        return "docker"
    if asked == "docker":
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
        InTheWay: another cluster is up, this one is half up, or a port is taken.
        ClusterError: it could not be started, or was not ready in time.
    """
    home = surroundings.home
    with home.exclusive():
        record = home.record()
        backend = _up_again(surroundings, record, request) if record else _up_anew(surroundings, request)
    seconds = wait_ready(backend, backend.topology.nodes)
    echo(f"All {len(backend.topology.nodes)} nodes are ready ({seconds:.1f} s).")
    return backend


def _up_anew(surroundings: Surroundings, request: Request) -> Backend:
    mode = choose_mode(surroundings, request.mode)
    backend = surroundings.backend(Record(mode, request.topology, request.port_offset))
    try:
        backend.prepare()
    except ImageNotBuilt as error:
        if request.mode:
            raise
        echo(f"{error}\nMode: local after all, because the image could not be built.")
        backend = surroundings.backend(Record("local", request.topology, request.port_offset))
        backend.prepare()
    # Before the first node starts: `down` must find what an interrupted `up` left behind.
    surroundings.home.write_record(Record(backend.mode, request.topology, request.port_offset))
    echo(f"Starting {len(backend.topology.nodes)} nodes ({request.topology} topology).")
    backend.start_all()
    return backend


def _up_again(surroundings: Surroundings, record: Record, request: Request) -> Backend:
    """`up` where a cluster is recorded already: the same one is fine, anything else is in the way."""
    wanted = Record(request.mode or record.mode, request.topology, request.port_offset)
    if wanted != record:
        raise InTheWay(
            f"A cluster is up already: {_describe(record)}; you asked for {_describe(wanted)}. Take it "
            "down first with `mufakat down` (`make down`)."
        )
    backend = surroundings.backend(record)
    processes = backend.processes()
    missing = [node_id for node_id, process in processes.items() if not process.is_running]
    if not missing:
        echo(f"The cluster is up already ({_describe(record)}).")
    elif len(missing) == len(processes):
        echo(f"The cluster was up before ({_describe(record)}) and no node runs. Starting them all.")
        for node in backend.topology.nodes:
            backend.start(node)
    else:
        states = ", ".join(f"{node_id} ({processes[node_id].state})" for node_id in missing)
        raise InTheWay(
            f"The cluster is half up ({_describe(record)}): {states}. `mufakat start "
            f"{' '.join(missing)}` starts what is missing, `mufakat down` ends the rest."
        )
    return backend


def _describe(record: Record) -> str:
    offset = f", ports moved by {record.port_offset}" if record.port_offset else ""
    return f"{record.topology}, {record.mode} mode{offset}"


def down(surroundings: Surroundings, *, wipe: bool) -> None:
    """Stop every node and forget the cluster; with `wipe`, delete what it stored.

    Raises:
        NoCluster: none is up.
    """
    home = surroundings.home
    with home.exclusive():
        record = home.require_record()
        surroundings.backend(record).end_all(wipe=wipe)
        home.forget_record()
    echo(f"The cluster is down ({_describe(record)}). What it stored is {'deleted' if wipe else 'kept'}.")


def summary(surroundings: Surroundings, backend: Backend) -> str:
    """What stands under a successful `up`: the nodes, and three things to try."""
    return f"{status_table(cluster_status(backend))}\n\nTry next:\n{_next_steps(surroundings, backend)}"


def _next_steps(surroundings: Surroundings, backend: Backend) -> str:
    node = backend.topology.members("lock")[0]
    steps = (
        f"curl -s http://{backend.host}:{node.client_port}/lock/acquire -H 'Content-Type: application/json' "
        '-d \'{"key": "A", "client_id": "client1"}\'',
        f"{surroundings.program} status",
        f"{surroundings.program} kill-leader --group lock",
    )
    return "\n".join(f"  {step}" for step in steps)
