"""Local mode: one detached process a node, on this machine.

There is no supervisor process. A node is known by its `pid.json`; whoever needs to know whether it runs looks
there and at the process table. So nothing restarts a node that was killed, and nothing is left to crash.
"""

import itertools
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.config import SettingsError, load_settings
from services.cluster.backend import STOP_GRACE_SECONDS, NodeProcess
from services.cluster.environ import shared_variables
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.home import Home, read_json, write_file
from services.cluster.printing import echo, echo_log_line
from services.cluster.processes import Process, await_stop, is_port_free, kill_process, spawn, stop_process
from services.cluster.topology import Node, Topology

#: The nodes of a local cluster listen here and nowhere else.
LOCAL_HOST = "127.0.0.1"

#: A log file that has grown beyond this is set aside when its node starts; one older file is kept.
LOG_BYTES_MAX = 16 * 1024 * 1024

#: How much of a log file's end is read to show its last lines.
TAIL_BYTES = 256 * 1024

#: How often followed log files are looked at.
FOLLOW_SECONDS = 0.25

#: What a node's process is started with.
SERVE_COMMAND = (sys.executable, "-m", "services.cli", "serve")


class LocalBackend:
    """The nodes of one topology as processes, with all that they leave behind under one home folder."""

    mode = "local"
    host = LOCAL_HOST

    def __init__(
        self,
        home: Home,
        topology: Topology,
        *,
        environ: Mapping[str, str] = os.environ,
        command: Sequence[str] = SERVE_COMMAND,
    ) -> None:
        self.topology = topology
        self._home = home
        self._environ = environ
        self._command = tuple(command)

    def _folder(self, node: Node) -> Path:
        return self._home.node_folder(self.topology, node)

    def _pid_path(self, node: Node) -> Path:
        return self._folder(node) / "pid.json"

    def log_path(self, node: Node) -> Path:
        """The file that takes what the node writes to its output."""
        return self._folder(node) / "node.log"

    def _process(self, node: Node) -> Process | None:
        """The process that was last started for the node and was not stopped; it may have ended since."""
        value = read_json(self._pid_path(node))
        return None if value is None else Process(int(value["pid"]), str(value["started"]))

    def prepare(self) -> None:
        """See that the settings make sense and that nobody else listens where the nodes are to listen.

        Raises:
            UsageError: a MUFAKAT_* variable is wrong.
            InTheWay: a port is taken.
        """
        try:
            load_settings(self.node_environ(self.topology.nodes[0]))
        except SettingsError as error:
            raise UsageError(f"{error}.") from error
        taken = [
            f"{port} ({node.id})"
            for node in self.topology.nodes
            for port in (node.client_port, node.peer_port)
            if not is_port_free(LOCAL_HOST, port)
        ]
        if taken:
            some = "Port" if len(taken) == 1 else "Ports"
            raise InTheWay(
                f"{some} {', '.join(taken)} on {LOCAL_HOST}: taken by another program. End it, or move "
                "the whole cluster to other ports with `--port-offset 1000`."
            )

    def node_environ(self, node: Node) -> dict[str, str]:
        """The environment of a node's process: the caller's, and who the node is."""
        cluster = ",".join(
            f"{other.id}={LOCAL_HOST}:{other.client_port}" for other in self.topology.companions(node)
        )
        return shared_variables(self._environ) | {
            "MUFAKAT_NODE_ID": node.id,
            "MUFAKAT_GROUPS": ",".join(node.groups),
            "MUFAKAT_CLUSTER": cluster,
            "MUFAKAT_DATA_DIR": str(self._folder(node) / "data"),
            "MUFAKAT_CLUSTER_SECRET": self._home.cluster_secret(self._environ),
        }

    def start_all(self) -> None:
        for node in self.topology.nodes:
            self.start(node)

    def start(self, node: Node) -> None:
        folder = self._folder(node)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log_path = self.log_path(node)
        if log_path.exists() and log_path.stat().st_size > LOG_BYTES_MAX:
            os.replace(log_path, log_path.with_name("node.log.1"))
        try:
            process = spawn(self._command, environ=self.node_environ(node), folder=folder, log_path=log_path)
        except OSError as error:
            raise ClusterError(f"{node.id} cannot be started: {error}.") from error
        write_file(self._pid_path(node), f'{{"pid": {process.pid}, "started": "{process.started}"}}\n')

    def processes(self) -> dict[str, NodeProcess]:
        return {node.id: self._node_process(node) for node in self.topology.nodes}

    def _node_process(self, node: Node) -> NodeProcess:
        process = self._process(node)
        if process is None:
            return NodeProcess(None, "stopped")
        return NodeProcess(process.pid, "running") if process.is_alive() else NodeProcess(None, "dead")

    def stop(self, node: Node) -> bool:
        process = self._process(node)
        in_good_order = process is None or stop_process(process, grace_seconds=STOP_GRACE_SECONDS)
        self._pid_path(node).unlink(missing_ok=True)
        return in_good_order

    def kill(self, node: Node) -> None:
        process = self._process(node)
        if process is not None:
            # The pid file stays, so that the node is shown as dead, not as stopped.
            kill_process(process)

    def end_all(self, *, wipe: bool) -> None:
        # All at the same time: one after the other they would go on electing leaders only to lose them.
        found = [(node, self._process(node)) for node in self.topology.nodes]
        for _, process in found:
            if process is not None:
                process.send(signal.SIGTERM)
        for node, process in found:
            if process is not None and not await_stop(process, grace_seconds=STOP_GRACE_SECONDS):
                echo(f"{node.id} did not stop within {STOP_GRACE_SECONDS:.0f} s and was killed.")
            self._pid_path(node).unlink(missing_ok=True)
        if wipe:
            self._home.wipe(self.topology)

    def log_tail(self, node: Node, lines: int) -> list[str]:
        try:
            with open(self.log_path(node), "rb") as file:
                file.seek(max(0, os.path.getsize(file.name) - TAIL_BYTES))
                return file.read().decode("utf-8", "replace").splitlines()[-lines:] if lines else []
        except FileNotFoundError:
            return []

    def show_logs(self, nodes: Sequence[Node], *, follow: bool, lines: int) -> None:
        positions = {node.id: _size(self.log_path(node)) for node in nodes}
        for node in nodes:
            for line in self.log_tail(node, lines):
                echo_log_line(node.id, line)
        for _ in itertools.count() if follow else ():
            time.sleep(FOLLOW_SECONDS)
            for node in nodes:
                positions[node.id] = self._show_new(node, positions[node.id])

    def _show_new(self, node: Node, position: int) -> int:
        """Print the whole lines added to a node's log since `position`; returns the new position."""
        path = self.log_path(node)
        size = _size(path)
        if size < position:
            position = 0
        if size == position:
            return position
        with open(path, "rb") as file:
            file.seek(position)
            whole, newline, _ = file.read(size - position).rpartition(b"\n")
        for line in whole.decode("utf-8", "replace").splitlines():
            echo_log_line(node.id, line)
        return position + len(whole) + len(newline)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
