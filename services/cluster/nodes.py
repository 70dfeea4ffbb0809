"""Commands for single nodes of a cluster that is up: start, stop, kill, kill the leader."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from services.cluster.backend import Backend, NodeProcess
from services.cluster.errors import ClusterError
from services.cluster.home import DOWN, UP, Cluster, Home
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo
from services.cluster.probe import GroupTold
from services.cluster.roster import roster
from services.cluster.topology import Node
from services.cluster.waiting import look_while_electing, wait_live

#: How long the others may take to elect a leader after the leader was killed.
NEW_LEADER_SECONDS_MAX = 30.0

#: Pause between two looks for the new leader; the reported time is not more exact than this.
POLL_SECONDS = 0.01


def start_nodes(surroundings: Surroundings, node_ids: Sequence[str]) -> None:
    """Start nodes that do not run, with the settings of the cluster, and wait until each answers. A node that runs is
    left alone. If the cluster is down, it is then up with these nodes alone.

    Raises:
        UsageError: there is no node of that id.
        InTheWay: the environment says something else than the settings of the cluster.
        ClusterError: a node ended, or did not answer in time.
    """
    home = surroundings.home
    _known_cluster(home)
    with home.exclusive():
        backend = surroundings.backend(surroundings.settled(_known_cluster(home)))
        nodes = [backend.topology.node(node_id) for node_id in dict.fromkeys(node_ids)]
        missing = []
        for node in nodes:
            process = backend.process_of(node)
            if process.is_running:
                echo(f"{node.id} runs already{_pid(process)}.")
            else:
                missing.append(node)
        if backend.cluster.state == DOWN and missing:
            home.keep(replace(backend.cluster, state=UP))
        for node in missing:
            backend.start(node)
    for node in missing:
        wait_live(backend, node)
        echo(f"{node.id} runs{_pid(backend.process_of(node))} and answers on {backend.host}:{node.client_port}.")


def _known_cluster(home: Home) -> Cluster:
    """The cluster that is or was up. Raises NoCluster."""
    cluster = home.cluster()
    return cluster if cluster is not None and cluster.record is not None else home.require_cluster()


def stop_nodes(surroundings: Surroundings, node_ids: Sequence[str]) -> None:
    """Stop nodes in good order: each finishes its work and hands over what it leads.

    Raises:
        UsageError: there is no node of that id.
    """

    def stop(backend: Backend, nodes: Sequence[Node]) -> dict[str, str]:
        killed, late = backend.stop(*nodes), "did not stop in time and was killed"
        return {node.id: late if node.id in killed else "was stopped" for node in nodes}

    _end_nodes(surroundings, node_ids, stop)


def kill_nodes(surroundings: Surroundings, node_ids: Sequence[str]) -> None:
    """Kill nodes at once, as a power cut would (SIGKILL).

    Raises:
        UsageError: there is no node of that id.
    """

    def kill(backend: Backend, nodes: Sequence[Node]) -> dict[str, str]:
        for node in nodes:
            backend.kill(node)
        return {node.id: "was killed" for node in nodes}

    _end_nodes(surroundings, node_ids, kill)


def _end_nodes(
    surroundings: Surroundings, node_ids: Sequence[str], end: Callable[[Backend, Sequence[Node]], dict[str, str]]
) -> None:
    backend = surroundings.require_backend()
    with surroundings.home.exclusive():
        nodes = find_nodes(backend, node_ids)
        processes = {node.id: backend.process_of(node) for node in nodes}
        # Also nodes about which nothing is known: the command says that, too.
        told = end(backend, [node for node in nodes if processes[node.id].state not in ("stopped", "dead")])
        for node in nodes:
            if node.id in told:
                echo(f"{node.id} {told[node.id]}. {_way_back(surroundings, backend, node)}")
            else:
                echo(f"{node.id} does not run ({processes[node.id].state}).")


def find_nodes(backend: Backend, node_ids: Sequence[str]) -> list[Node]:
    """The nodes of these ids, each once; if needed, this asks for members beyond the topology.

    Raises:
        UsageError: there is no node with one of the ids.
    """
    wanted = dict.fromkeys(node_ids)
    topology = backend.topology
    if set(wanted) - {node.id for node in topology.nodes}:
        topology = topology.with_added(tuple(seat.node for seat in roster(backend).seats))
    return [topology.node(node_id) for node_id in wanted]


def _way_back(surroundings: Surroundings, backend: Backend, node: Node) -> str:
    if node in backend.topology.nodes:
        return f"{node.id} stays down until `{surroundings.program} start {node.id}`."
    return f"{node.id} was not started by this command; start it as you did before."


def _pid(process: NodeProcess) -> str:
    return f" (pid {process.pid})" if process.pid else ""


def kill_leader(surroundings: Surroundings, group: str) -> None:
    """Kill the leader of a group, then tell who leads and how long the election took.

    Raises:
        UsageError: there is no such group.
        ClusterError: the group has no leader to kill, or elected none in time.
    """
    backend = surroundings.require_backend()
    found, now = look_while_electing(lambda now: now.leaders(group), backend, group)
    if not found:
        raise ClusterError(
            f"The group {group!r} has no leader now. `{surroundings.program} status` shows why."
        )
    leader_id, led = max(found.items(), key=_term)
    seat = now.seat(leader_id)
    assert seat is not None
    with surroundings.home.exclusive():
        killed_at = time.monotonic()
        backend.kill(seat.node)
    echo(f"{leader_id}{_pid(seat.process)} led {group} at term {led.term} and was killed.")
    new_id, leading = wait_newer_leader(backend, group, led.term, program=surroundings.program)
    seconds = time.monotonic() - killed_at
    echo(f"{new_id} leads {group} now at term {leading.term}, {seconds:.2f} s after the kill.")
    echo(_way_back(surroundings, backend, seat.node))


def wait_newer_leader(backend: Backend, group: str, old_term: int, *, program: str) -> tuple[str, GroupTold]:
    """Wait until a node leads `group` in a later term than `old_term`; returns its id and what it says.

    Raises:
        ClusterError: none does in time.
    """
    until = time.monotonic() + NEW_LEADER_SECONDS_MAX
    while time.monotonic() < until:
        leading = max(roster(backend, group).leaders(group).items(), key=_term, default=None)
        if leading and leading[1].term > old_term:
            return leading
        time.sleep(POLL_SECONDS)
    raise ClusterError(
        f"No new leader of {group} within {NEW_LEADER_SECONDS_MAX:.0f} s. A majority of its nodes must run: "
        f"`{program} status`."
    )


def _term(item: tuple[str, GroupTold]) -> int:
    return item[1].term
