"""Local mode: one detached process for each node, on this machine.

There is no supervisor process. A command that needs to know whether a node runs looks at its data directory, which
the process holds as long as it lives (`services.node.process_file`). So nothing restarts a node that was killed,
there is no supervisor that could crash, and commands find a node by its data, whatever happened to the command that
started it.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.config import VARIABLE_PREFIX
from common.start_mark import start_mark
from raft.storage.errors import DataDirectoryInUse
from services.cluster.backend import STOP_GRACE_SECONDS, NodeProcess
from services.cluster.errors import ClusterError, InTheWay, in_words
from services.cluster.home import Cluster, Home
from services.cluster.log_tail import LogTail
from services.cluster.log_view import LogView, by_time
from services.cluster.printing import echo
from services.cluster.probe import ask_health, of_cluster
from services.cluster.processes import Process, end_all, holder, is_port_free, kill_all, spawn
from services.cluster.settings import ID_VARIABLE, SECRET_VARIABLE
from services.cluster.topology import Node, Topology
from services.cluster.wiping import wipe_nodes
from services.node.process_file import look, reserve

#: The nodes of a local cluster listen here and nowhere else.
LOCAL_HOST = "127.0.0.1"

#: How often the command looks at log files that it follows.
FOLLOW_SECONDS = 0.25

#: The command that starts a node's process.
SERVE_COMMAND = (sys.executable, "-m", "services.cli", "serve")


class LocalBackend:
    """The nodes of one cluster as processes, with all their files under one home folder."""

    mode = "local"
    host = LOCAL_HOST

    def __init__(
        self,
        home: Home,
        cluster: Cluster,
        *,
        environ: Mapping[str, str] = os.environ,
        command: Sequence[str] = SERVE_COMMAND,
    ) -> None:
        self.cluster = cluster
        self.topology: Topology = cluster.nodes()
        self._home = home
        self._environ = environ
        self._command = tuple(command)

    def _folder(self, node: Node) -> Path:
        return self._home.node_folder(self.topology, node)

    def data_dir(self, node: Node) -> Path:
        """Where the node keeps its log and snapshots."""
        return Path(node.data_dir) if node.data_dir else self._folder(node) / "data"

    def log_path(self, node: Node) -> Path:
        """The file that the node logs to; it also gets everything else that the node writes to its output."""
        return self._folder(node) / "node.log"

    def prepare(self) -> None:
        """Check that no other program listens on the ports of the nodes that do not run.

        Raises:
            InTheWay: a port is taken.
        """
        processes = self.processes()
        taken = {
            f"{port} ({node.id})": port
            for node in self.topology.nodes
            for port in (node.client_port, node.peer_port)
            if not processes[node.id].is_running and not is_port_free(LOCAL_HOST, port)
        }
        if taken:
            some = "Port" if len(taken) == 1 else "Ports"
            raise InTheWay(
                f"{some} {', '.join(taken)} on {LOCAL_HOST}: taken by {_who_listens(taken.values())}. End it, or "
                "move the whole cluster to other ports with `--port-offset 1000`."
            )

    def node_environ(self, node: Node) -> dict[str, str]:
        """The environment of a node's process: the caller's, the settings of the cluster, and who the node is. No
        setting of the caller reaches it (`services.cluster.settings`)."""
        cluster = ",".join(
            f"{other.id}={LOCAL_HOST}:{other.client_port}" for other in self.topology.companions(node)
        )
        of_the_caller = {name: text for name, text in self._environ.items() if not name.startswith(VARIABLE_PREFIX)}
        return {
            **of_the_caller,
            **self.cluster.settings,
            ID_VARIABLE: self.cluster.id,
            SECRET_VARIABLE: self._home.cluster_secret(self._environ),
            "MUFAKAT_NODE_ID": node.id,
            "MUFAKAT_GROUPS": ",".join(node.groups),
            "MUFAKAT_CLUSTER": cluster,
            "MUFAKAT_SITE": self.topology.site(lambda other: f"{LOCAL_HOST}:{other.client_port}"),
            "MUFAKAT_DATA_DIR": str(self.data_dir(node)),
            "MUFAKAT_LOG_FILE": str(self.log_path(node)),
            **({"MUFAKAT_JOIN": "true"} if self._joins(node) else {}),
        }

    def _joins(self, node: Node) -> bool:
        """Whether the node must not begin a group: it was added to one, or its disk is empty and another one here is
        not. Two nodes that have lost their disks would be a majority, and would begin without the data that the third
        still holds."""
        if node.id in self.topology.added:
            return True
        others = [other for other in self.topology.nodes if other.groups == node.groups and other != node]
        return any(
            not self._has_log(node, group) and any(self._has_log(other, group) for other in others)
            for group in node.groups
        )

    def _has_log(self, node: Node, group: str) -> bool:
        return any((self.data_dir(node) / group).glob("*.wal"))

    def start_all(self) -> None:
        processes = self.processes()
        for node in self.topology.nodes:
            if not processes[node.id].is_running:
                self.start(node)

    def start(self, node: Node) -> None:
        folder = self._folder(node)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # From here on somebody holds the data directory: we, then the process, even if we are killed in between.
            lock = reserve(self.data_dir(node))
        except DataDirectoryInUse as error:
            raise InTheWay(
                f"{node.id} runs already: {self.data_dir(node)} is held by its process or by a command at work on it."
            ) from error
        except OSError as error:
            raise ClusterError(f"{node.id} cannot be started: {in_words(error)}") from error
        try:
            environ = self.node_environ(node)
            spawn(self._command, environ=environ, folder=folder, log_path=self.log_path(node), lock=lock)
        except OSError as error:
            raise ClusterError(f"{node.id} cannot be started: {in_words(error)}") from error
        finally:
            lock.close()

    def processes(self) -> dict[str, NodeProcess]:
        return {node.id: self.process_of(node) for node in self.topology.nodes}

    def process_of(self, node: Node) -> NodeProcess:
        if node not in self.topology.nodes and not node.data_dir:
            return NodeProcess(None, "elsewhere")
        try:
            seen = look(self.data_dir(node))
        except OSError as error:
            return NodeProcess(None, "unknown", in_words(error))
        if seen.is_held:
            # The note may name another process than the one that holds the directory.
            is_its = seen.record is not None and start_mark(seen.record.pid) == seen.record.started
            return NodeProcess(seen.record.pid if seen.record and is_its else None, "running")
        return NodeProcess(None, "dead" if seen.is_left_behind else "stopped")

    def is_own(self, node: Node, data_dir: str) -> bool:
        # A copy of this home has the same id, and may have been started on the same ports.
        return node not in self.topology.nodes or data_dir == str(self.data_dir(node))

    def stop(self, *nodes: Node) -> set[str]:
        processes = {node.id: process for node in nodes if (process := self._holder(node)) is not None}
        killed = end_all(processes, grace_seconds=STOP_GRACE_SECONDS)
        for node in nodes:
            self._note_stopped(node)
        return killed

    def kill(self, node: Node) -> None:
        process = self._holder(node)
        if process is not None:
            # Its note stays, so that the node is shown as dead, not as stopped.
            kill_all([process])

    def end_all(self) -> None:
        # All at the same time: if they stopped one after the other, they would elect leaders and lose them again.
        found, problems = self._running()
        for name in sorted(end_all(found, grace_seconds=STOP_GRACE_SECONDS)):
            echo(f"{name} did not stop within {STOP_GRACE_SECONDS:.0f} s and was killed.")
        for node in self.topology.nodes:
            self._note_stopped(node)
        if problems:
            raise ClusterError(f"All others are ended; whether a node runs there is not known: {' '.join(problems)}")

    def is_running(self) -> bool:
        found, problems = self._running()
        return bool(found or problems)

    def end_leftovers(self) -> list[str]:
        names = sorted(self._running()[0])
        if names:
            self.end_all()
        return names

    def _running(self) -> tuple[dict[str, Process], list[str]]:
        """Every process that holds a data directory of this home or of an added node, by the node's id, or by its
        topology and id if the topology is another one; and why some directories cannot be read."""
        found, problems = {}, []
        for folder, name in self._data_dirs().items():
            try:
                process = holder(folder)
            except TimeoutError:
                raise
            except OSError as error:
                problems.append(in_words(error))
                continue
            if process is not None:
                found[name] = process
        return found, problems

    def _data_dirs(self) -> dict[Path, str]:
        """Every data directory that exists, and the name of its node."""
        others = {
            folder: f"{folder.parent.parent.name}/{folder.parent.name}" for folder in self._home.data_folders()
        }
        return others | {self.data_dir(node): node.id for node in self.topology.nodes}

    def wipe(self) -> None:
        wipe_nodes(self._home.root / self.topology.name)

    def _holder(self, node: Node) -> Process | None:
        if node not in self.topology.nodes and not node.data_dir:
            raise ClusterError(
                f"{node.id} was not started from here, and nothing is known of its process. End it where it runs."
            )
        return holder(self.data_dir(node))

    def _note_stopped(self, node: Node) -> None:
        """Note that the node was stopped, so that it is not shown as dead, if it could not note that itself."""
        data_dir = self.data_dir(node)
        # If this cannot be written, or somebody has started the node meanwhile, its real state is shown.
        with contextlib.suppress(OSError, DataDirectoryInUse):
            if look(data_dir).is_left_behind:
                lock = reserve(data_dir)
                try:
                    lock.leave()
                finally:
                    lock.close()

    def log_tail(self, node: Node, lines: int) -> list[str]:
        tail = LogTail(self.log_path(node))
        try:
            found = [*tail.last_lines(lines), *tail.rest()]
        finally:
            tail.close()
        return found[-lines:] if lines else []

    def show_logs(self, nodes: Sequence[Node], *, follow: bool, lines: int, view: LogView) -> None:
        if not follow:
            view.show(by_time({node.id: self.log_tail(node, lines) for node in nodes}))
            return
        tails = {node.id: LogTail(self.log_path(node)) for node in nodes}
        view.show(by_time({node_id: tail.last_lines(lines) for node_id, tail in tails.items()}))
        while True:
            time.sleep(FOLLOW_SECONDS)
            view.show(by_time({node_id: tail.new_lines() for node_id, tail in tails.items()}))


def _who_listens(ports: Iterable[int]) -> str:
    """Who listens on these ports, from the first that says it: for example a node of another cluster."""
    for port in ports:
        known = ask_health(LOCAL_HOST, port)
        if not isinstance(known, str):
            node, cluster = known
            return f"{node} of {of_cluster(cluster)}"
    return "another program"
