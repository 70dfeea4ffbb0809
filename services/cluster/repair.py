"""Healing a node whose data is damaged: its files are put aside and the group takes it in anew.

    refused ──removed and added──> expected with a new disk ──put aside──> empty ──started──> learner, voter, ready

The rule: only what the node itself refuses to use is touched, it is moved and never deleted, and only where a
majority of the group is sound without this node: it has all that was ever acknowledged.
"""

from services.cluster.admin_calls import admin_call, admin_headers
from services.cluster.backend import Backend
from services.cluster.errors import ClusterError
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo
from services.cluster.topology import Node
from services.cluster.waiting import look_while_electing, wait_live, wait_ready


def repair_node(surroundings: Surroundings, node_id: str) -> None:
    """Heal one node. What was done half-way is done by asking again: the group comes first, so that the node refuses
    its data as long as anything but its own start is left to do.

    Raises:
        UsageError: there is no node of that id.
        ClusterError: nothing is damaged, or too few of the others are sound.
    """
    backend = surroundings.require_backend()
    node = backend.topology.node(node_id)
    headers = admin_headers(surroundings.environ)
    with surroundings.home.exclusive():
        if not backend.processes()[node.id].is_running:
            backend.start(node)
        wait_live(backend, node)
        problems = _status(backend, node, headers)["refused"]
        if not problems:
            raise ClusterError(f"Nothing is damaged on {node_id}: it refuses none of its data.")
        for group, problem in problems.items():
            echo(f"{node_id}, group {group}: {problem}")
        helpers = {group: _sound_member(backend, node, group, headers) for group in problems}
        for group, helper in helpers.items():
            _admit_anew(backend, node, group, helper, headers)
        address = (backend.host, node.client_port)
        for group, aside in admin_call(address, "/admin/repair", {}, headers=headers)["put_aside"].items():
            echo(f"The damaged files of {group} are kept in {aside}.")
        backend.stop(node)
        backend.start(node)
    wait_live(backend, node)
    seconds = wait_ready(backend, [node])
    echo(f"{node_id} has its data back from the others and is ready ({seconds:.1f} s).")


def _status(backend: Backend, node: Node, headers: dict[str, str]) -> dict:
    return admin_call((backend.host, node.client_port), "/status", headers=headers)


def _sound_member(backend: Backend, damaged: Node, group: str, headers: dict[str, str]) -> Node:
    """One of a majority that is sound without the damaged node; waits where they run and may be electing.

    Raises:
        ClusterError: there is none.
    """
    members = backend.topology.members(group)
    others = [node for node in members if node.id != damaged.id]
    needed = len(members) // 2 + 1

    def sound_ones() -> list[Node]:
        return [node for node in others if _is_ready(backend, node, group, headers)]

    sound = look_while_electing(backend, others, sound_ones, needed)
    if len(sound) < needed:
        raise ClusterError(
            f"Only {len(sound)} of the {len(members)} nodes of {group} are ready and {needed} are needed, without "
            f"{damaged.id}, to be sure that they hold all that was acknowledged. Start or repair the others first; "
            "if a majority is lost for good, restore a backup (`mufakat restore`)."
        )
    return sound[0]


def _is_ready(backend: Backend, node: Node, group: str, headers: dict[str, str]) -> bool:
    try:
        state = _status(backend, node, headers)["groups"].get(group)
    except ClusterError:
        return False
    return state is not None and state["ready"]


def _admit_anew(backend: Backend, node: Node, group: str, helper: Node, headers: dict[str, str]) -> None:
    """Let the group forget the node's former disk and expect it with a new one."""
    address = (backend.host, helper.client_port)
    reached_at = _status(backend, helper, headers)["members"].get(node.id)
    admin_call(address, "/admin/members", {"remove": {"id": node.id, "group": group}}, headers=headers)
    added = {"id": node.id, "address": reached_at or f"{backend.host}:{node.client_port}", "group": group}
    admin_call(address, "/admin/members", {"add": added}, headers=headers)
    echo(f"{group} takes {node.id} in anew.")
