"""Docker mode: one container for each node.

The compose files say what the containers are, so that `docker compose up` alone gives the same cluster. Compose
brings the cluster up and down. To look at one node, or to start, stop or kill it, we call its container directly,
because compose may also start or stop what depends on it. Only the engine records which container runs.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from common.config import PORT_VARIABLE_PREFIX
from services.cluster.backend import STOP_GRACE_SECONDS, NodeProcess
from services.cluster.engine import COMPOSE_FOLDER, Engine, call_docker, run_logged
from services.cluster.errors import ClusterError, InTheWay
from services.cluster.following import followed
from services.cluster.home import Cluster, Home
from services.cluster.log_view import LogView, by_time
from services.cluster.processes import is_port_free
from services.cluster.settings import ID_VARIABLE, SECRET_VARIABLE
from services.cluster.topology import SEPARATED, Node

#: Compose's name for our containers, networks and volumes; docker/.env has it for people who call compose themselves.
PROJECT_DEFAULT = "mufakat"

#: What the command shows while compose works.
DOING = {
    "build": "Building the image",
    "up": "Making the containers",
    "down": "Ending the containers",
}

#: The label that every container of a project has, and the label that names its service.
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"

#: Exit codes of a process that ended on a request to stop: its own 0, and 128 + SIGTERM.
STOPPED_EXIT_CODES = (0, 143)


class ImageNotBuilt(ClusterError):
    """The image cannot be built here; local mode may still work."""


class DockerBackend:
    """The nodes of one topology as containers of one compose project."""

    mode = "docker"

    def __init__(
        self, home: Home, cluster: Cluster, engine: Engine, *, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.cluster = cluster
        self.topology = cluster.nodes()
        self._home = home
        self._engine = engine
        self._environ = environ
        self._project = environ.get("COMPOSE_PROJECT_NAME") or PROJECT_DEFAULT
        #: The address of this machine on which the engine publishes client ports.
        self.publish = environ.get("MUFAKAT_PUBLISH") or "127.0.0.1"
        self.host = "127.0.0.1" if self.publish == "0.0.0.0" else self.publish

    def _compose(self, *arguments: str) -> int:
        file = (
            "docker-compose.yml"
            if self.topology.name == SEPARATED.name
            else f"docker-compose.{self.topology.name}.yml"
        )
        command = (*self._engine.compose, "-p", self._project, "-f", str(COMPOSE_FOLDER / file), *arguments)
        return run_logged(
            command,
            DOING[arguments[0]],
            log_path=self._home.root / f"compose-{arguments[0]}.log",
            environ=self.compose_environ(),
        )

    def compose_environ(self) -> dict[str, str]:
        """The caller's environment, and the variables that the compose files need."""
        ports = {
            f"{PORT_VARIABLE_PREFIX}{node.id.upper()}": str(node.client_port) for node in self.topology.nodes
        }
        return {
            **self._environ,
            **self.cluster.settings,
            **ports,
            ID_VARIABLE: self.cluster.id,
            "MUFAKAT_PUBLISH": self.publish,
            SECRET_VARIABLE: self._home.cluster_secret(self._environ),
        }

    def _containers(self) -> dict[str, dict[str, Any]]:
        """What the engine says about each node's container, by node id."""
        ids = call_docker(
            "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={PROJECT_LABEL}={self._project}"
        ).split()
        if not ids:
            return {}
        found = json.loads(call_docker("inspect", *ids))
        return {container["Config"]["Labels"][SERVICE_LABEL]: container for container in found}

    def _container_id(self, node: Node) -> str:
        container = self._containers().get(node.id)
        if container is None:
            raise ClusterError(
                f"The container of {node.id} is gone; it was removed by other means. "
                "`mufakat down` and `mufakat up` make it anew; what it stored is kept."
            )
        return str(container["Id"])

    def prepare(self) -> None:
        """Check that nothing of ours or of others is in the way, then build the image.

        Raises:
            InTheWay: containers of ours exist or a port is taken.
            ImageNotBuilt: the image could not be built.
        """
        existing = self._containers()
        if existing:
            raise InTheWay(
                f"Containers of the compose project {self._project!r} exist already "
                f"({', '.join(sorted(existing))}) and were not started by this command. Remove them "
                f"with `{' '.join(self._engine.compose)} -p {self._project} down` in docker/ first."
            )
        taken = [
            f"{node.client_port} ({node.id})"
            for node in self.topology.nodes
            if not is_port_free(self.publish, node.client_port)
        ]
        if taken:
            raise InTheWay(
                f"{'Port' if len(taken) == 1 else 'Ports'} {', '.join(taken)} on {self.publish}: taken by "
                "another program. End it, or move the whole cluster with `--port-offset 1000`."
            )
        if self._compose("build"):
            raise ImageNotBuilt(
                "The image could not be built; the lines above say why. If the base image cannot be "
                "fetched, name one that is here: MUFAKAT_BASE_IMAGE=NAME (Debian or alike, with "
                "Python 3.11 and venv)."
            )

    def start_all(self) -> None:
        if self._compose("up", "--detach", "--no-build"):
            raise ClusterError(
                "The containers could not be started; the lines above say why. `mufakat down` removes "
                "what was made."
            )

    def is_running(self) -> bool:
        return bool(self._containers())

    def end_leftovers(self) -> list[str]:
        # Containers that we did not start are in the way (`prepare`): we do not know whose they are.
        return []

    def end_all(self) -> None:
        self._down()

    def wipe(self) -> None:
        self._down("--volumes")

    def _down(self, *arguments: str) -> None:
        if self._compose("down", "--timeout", str(int(STOP_GRACE_SECONDS)), *arguments):
            raise ClusterError("The containers could not all be removed; the lines above say why.")

    def processes(self) -> dict[str, NodeProcess]:
        containers = self._containers()
        return {node.id: container_process(containers.get(node.id)) for node in self.topology.nodes}

    def process_of(self, node: Node) -> NodeProcess:
        return self.processes().get(node.id) or NodeProcess(None, "elsewhere")

    def start(self, node: Node) -> None:
        call_docker("start", self._container_id(node))

    def stop(self, *nodes: Node) -> set[str]:
        call_docker("stop", "--time", str(int(STOP_GRACE_SECONDS)), *map(self._container_id, nodes))
        containers = self._containers()
        return {node.id for node in nodes if container_process(containers.get(node.id)).state != "stopped"}

    def is_own(self, node: Node, data_dir: str) -> bool:
        # Every container has the same name for its volume.
        return True

    def kill(self, node: Node) -> None:
        call_docker("kill", self._container_id(node))

    def log_tail(self, node: Node, lines: int) -> list[str]:
        return call_docker(
            "logs", "--tail", str(lines), self._container_id(node), with_errors=True
        ).splitlines()

    def show_logs(self, nodes: Sequence[Node], *, follow: bool, lines: int, view: LogView) -> None:
        if not follow:
            view.show(by_time({node.id: self.log_tail(node, lines) for node in nodes}))
            return
        commands = {
            node.id: ("docker", "logs", "--tail", str(lines), "--follow", self._container_id(node)) for node in nodes
        }
        with followed(commands) as batches:
            for batch in batches:
                view.show(by_time(batch))


def container_process(container: dict[str, Any] | None) -> NodeProcess:
    """The state of a node's process, from what `docker inspect` says about its container; None if it has no
    container."""
    if container is None:
        return NodeProcess(None, "stopped")
    state = container["State"]
    if state["Running"]:
        return NodeProcess(int(state["Pid"]), "running")
    # A container that was made but not started has not died.
    was_stopped = state["Status"] == "created" or state["ExitCode"] in STOPPED_EXIT_CODES
    return NodeProcess(None, "stopped" if was_stopped else "dead")
