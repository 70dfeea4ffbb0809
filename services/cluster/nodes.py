"""What is done to single nodes of a cluster that is up: start, stop, kill, kill the leader."""

import time
from collections.abc import Callable, Sequence

from services.cluster.backend import Backend
from services.cluster.errors import ClusterError
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo
from services.cluster.probe import GroupHealth, ask_all, health
from services.cluster.topology import Node
from services.cluster.waiting import look_while_electing, wait_live

#: How long the others may take to elect a leader after theirs was killed.
NEW_LEADER_SECONDS_MAX = 30.0

#: Pause between two looks for the new leader; it bounds how exactly the time is told.
POLL_SECONDS = 0.01


def start_nodes(surroundings: Surroundings, node_ids: Sequence[str]) -> None:
    """Start nodes that do not run and wait until each answers. One that runs already is left alone.

    Raises:
        UsageError: there is no node of that id.
        ClusterError: a node ended, or did not answer in time.
    """
    backend = surroundings.require_backend()
    nodes = [backend.topology.node(node_id) for node_id in node_ids]
    with surroundings.home.exclusive():
        processes = backend.processes()
        missing = [node for node in nodes if not processes[node.id].is_running]
        for node in missing:
            backend.start(node)
    for node in nodes:
        if node not in missing:
            echo(f"{node.id} runs already (pid {processes[node.id].pid}).")
    for node in missing:
        wait_live(backend, node)
        pid = backend.processes()[node.id].pid
        echo(f"{node.id} runs (pid {pid}) and answers on {backend.host}:{node.client_port}.")


def stop_nodes(surroundings: Surroundings, node_ids: Sequence[str]) -> None:
    """Stop nodes in good order: each finishes what it is at and hands over what it leads.

    Raises:
        UsageError: there is no node of that id.
    """

    def stop(backend: Backend, node: Node) -> str:
        return "was stopped" if backend.stop(node) else "did not stop in time and was killed"

    _end_nodes(surroundings, node_ids, stop)


def kill_nodes(surroundings: Surroundings, node_ids: Sequence[str]) -> None:
    """Kill nodes as a power cut would (SIGKILL).

    Raises:
        UsageError: there is no node of that id.
    """

    def kill(backend: Backend, node: Node) -> str:
        backend.kill(node)
        return "was killed"

    _end_nodes(surroundings, node_ids, kill)


def _end_nodes(
    surroundings: Surroundings, node_ids: Sequence[str], end: Callable[[Backend, Node], str]
) -> None:
    backend = surroundings.require_backend()
    nodes = [backend.topology.node(node_id) for node_id in node_ids]
    with surroundings.home.exclusive():
        processes = backend.processes()
        for node in nodes:
            if processes[node.id].is_running:
                what = end(backend, node)
                echo(f"{node.id} {what}. It stays down until `{surroundings.program} start {node.id}`.")
            else:
                echo(f"{node.id} does not run ({processes[node.id].state}).")


def leaders(backend: Backend, group: str) -> dict[str, GroupHealth]:
    """The nodes that say they lead `group`, by id: none while it elects, for a moment two after it."""
    answers = ask_all(backend.topology.members(group), lambda node: health(backend.host, node.client_port))
    seen = {node_id: answer.groups.get(group) for node_id, answer in answers.items() if answer}
    return {node_id: known for node_id, known in seen.items() if known and known.role == "leader"}


def kill_leader(surroundings: Surroundings, group: str) -> None:
    """Kill the leader of a group and tell who leads after it and how long that took.

    Raises:
        UsageError: there is no such group.
        ClusterError: the group has no leader to kill, or elected none in time.
    """
    backend = surroundings.require_backend()
    found = look_while_electing(backend, backend.topology.members(group), lambda: leaders(backend, group))
    if not found:
        raise ClusterError(
            f"The group {group!r} has no leader now. `{surroundings.program} status` shows why."
        )
    leader_id, led = max(found.items(), key=_term)
    pid = backend.processes()[leader_id].pid
    with surroundings.home.exclusive():
        killed_at = time.monotonic()
        backend.kill(backend.topology.node(leader_id))
    echo(f"{leader_id} (pid {pid}) led {group} at term {led.term} and was killed.")
    new_id, leading = wait_newer_leader(backend, group, led.term, program=surroundings.program)
    seconds = time.monotonic() - killed_at
    echo(f"{new_id} leads {group} now at term {leading.term}, {seconds:.2f} s after the kill.")
    echo(f"{leader_id} stays down until `{surroundings.program} start {leader_id}`.")


def wait_newer_leader(
    backend: Backend, group: str, old_term: int, *, program: str
) -> tuple[str, GroupHealth]:
    """Wait until a node leads `group` in a later term than `old_term`; returns its id and what it says.

    Raises:
        ClusterError: none does in time.
    """
    until = time.monotonic() + NEW_LEADER_SECONDS_MAX
    while time.monotonic() < until:
        leading = max(leaders(backend, group).items(), key=_term, default=None)
        if leading and leading[1].term > old_term:
            return leading
        time.sleep(POLL_SECONDS)
    raise ClusterError(
        f"No new leader of {group} within {NEW_LEADER_SECONDS_MAX:.0f} s. A majority of its nodes must run: "
        f"`{program} status`."
    )


def _term(item: tuple[str, GroupHealth]) -> int:
    return item[1].term
