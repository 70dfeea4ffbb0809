"""What a way of running nodes must be able to do; there are two, `local` and `containers`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.cluster.home import Cluster
from services.cluster.log_view import LogView
from services.cluster.topology import Node, Topology

#: How long a node may take to stop by itself before it is killed.
STOP_GRACE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """Whether a node's process runs."""

    #: Process id on this machine; None if none runs, or if one was only just started.
    pid: int | None
    #: "running"; "stopped" (somebody stopped it); "dead" (it was killed or ended by itself); "elsewhere" (it was not
    #: started from here, and nothing is known about its process); "unknown" (its data directory cannot be read).
    state: str
    #: Why it is unknown.
    problem: str = ""

    @property
    def is_running(self) -> bool:
        return self.state == "running"


class Backend(Protocol):
    """One way of running the nodes of a cluster."""

    #: "local" or "docker".
    mode: str
    cluster: Cluster
    #: The nodes that the commands manage: the topology's, and those that were added on this machine.
    topology: Topology
    #: The host at which this machine reaches the nodes' client ports.
    host: str

    def prepare(self) -> None:
        """Everything that must happen before the first node can start; may take minutes.

        Raises:
            ClusterError: it cannot be done.
        """

    def start_all(self) -> None:
        """Start every node that does not run; returns before they are ready."""

    def is_running(self) -> bool:
        """Whether any node runs, even one that is not of this topology."""

    def end_leftovers(self) -> list[str]:
        """Stop nodes that run although the cluster is down; returns which."""

    def end_all(self) -> None:
        """Stop every node, even one that is not of this topology."""

    def wipe(self) -> None:
        """Delete what the nodes stored. None may run.

        Raises:
            ClusterError: something is left; the message names it.
        """

    def processes(self) -> dict[str, NodeProcess]:
        """The state of each node's process, by node id in the topology's order."""

    def process_of(self, node: Node) -> NodeProcess:
        """The state of the process of one node, which may be outside the topology."""

    def start(self, node: Node) -> None:
        """Start one node that does not run; returns before it is ready."""

    def stop(self, *nodes: Node) -> set[str]:
        """Stop nodes in good order, all at the same time; returns those that had to be killed in the end.

        Raises:
            ClusterError: nothing is known about the process of one.
        """

    def kill(self, node: Node) -> None:
        """End one node at once, as a power cut would. Raises as `stop`."""

    def is_own(self, node: Node, data_dir: str) -> bool:
        """Whether the process that answers as `node`, from that data directory, is the one that is managed here."""

    def log_tail(self, node: Node, lines: int) -> list[str]:
        """The last lines that the node wrote."""

    def show_logs(self, nodes: Sequence[Node], *, follow: bool, lines: int, view: LogView) -> None:
        """Show the last lines of each node as one log; with `follow`, continue until interrupted.

        Raises:
            BrokenPipeError: nobody reads the output.
        """
