"""Ask a running cluster who its members are, and add or remove one.

A node that is added without an address is started here, beside the others, and the commands manage it from then on
like them. They also manage a node that was started by hand on this machine and then added.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from common.parsers import join_address, parse_node_id
from services.cluster.backend import Backend
from services.cluster.calls import ELSEWHERE, Calls, address_of, admin_headers, call
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.home import Cluster
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo, table
from services.cluster.processes import is_port_free
from services.cluster.roster import LOOPBACK_HOSTS, Seat, roster
from services.cluster.topology import PORT_MAX, Node
from services.cluster.waiting import POLL_SECONDS, wait_live

#: How long a node that was started by hand may take to learn its cluster from its leader.
LEARN_SECONDS_MAX = 5.0

HEADINGS = ("GROUP", "MEMBER", "ADDRESS", "ROLE", "LEADER")


@dataclass(frozen=True, slots=True)
class Whom:
    """Which nodes a command speaks to, and about what."""

    #: host:port of one node of any cluster; empty: the nodes of the cluster that is up here.
    address: str = ""
    #: The group; None: all groups of the nodes asked.
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Audience:
    """Nodes that can answer for each other, in the order in which to ask them."""

    addresses: tuple[tuple[str, int], ...]
    #: The group to name in the request; None: all groups of the nodes.
    group: str | None
    headers: dict[str, str]

    def ask(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """The answer of the first node that can give one."""
        status, answer = 0, dict[str, Any]()
        for address in self.addresses:
            status, answer = call(address, path, body, headers=self.headers)
            if status not in ELSEWHERE:
                break
        if status == 200 and answer.get("ok") is True:
            return answer
        if status == 0:
            named = ", ".join(join_address(*address) for address in self.addresses)
            raise ClusterError(f"None of {named or 'its nodes'} answers. `mufakat status` shows which nodes run.")
        raise ClusterError(str(answer.get("detail") or f"A node answered {status}."))


def list_members(surroundings: Surroundings, whom: Whom) -> str:
    """A table of the members of the groups.

    Raises:
        NoCluster, UsageError: there is nobody to ask.
        ClusterError: nobody answered.
    """
    rows: list[tuple[str, ...]] = []
    for audience in _audiences(surroundings, whom):
        path = "/admin/members" + (f"?group={audience.group}" if audience.group else "")
        for name, told in audience.ask(path, None)["groups"].items():
            for member in told["members"]:
                leads = "leader" if member["id"] == told["leader"] else ""
                rows.append((name, member["id"], member["address"] or "-", member["role"], leads))
    return table(HEADINGS, rows)


def add_member(surroundings: Surroundings, whom: Whom, member: str, address: str) -> None:
    """Add a server, as a learner until it has caught up. Without an address, start it here first.

    Raises: as `list_members`; InTheWay if the environment differs from the cluster's settings.
    """
    _check_id(member)
    if address:
        address_of(address)
    if not whom.address:
        _check_carries(surroundings, whom, member)
    if not address:
        address = _start_here(surroundings, whom, member)
    body = {"add": {"id": member, "address": join_address(*address_of(address))}}
    changed = _change(surroundings, whom, "add", body, member)
    if changed:
        echo(f"{member} was added: a learner now, a voter once it has caught up.")
    else:
        echo(f"{member} is a member already, at {address}.")
    if not whom.address:
        _look_after(surroundings, member)


def remove_member(surroundings: Surroundings, whom: Whom, member: str) -> None:
    """Remove a server, and stop it if `add_member` started it here. Raises as `list_members`."""
    _check_id(member)
    _change(surroundings, whom, "remove", {"remove": {"id": member}}, member)
    if whom.address or not _stop_added(surroundings, member):
        echo(f"{member} was removed. It takes no part any more; stop it where it runs still.")


def _check_id(member: str) -> None:
    try:
        parse_node_id(member)
    except ValueError as error:
        raise UsageError(f"{error}.") from error


def _check_carries(surroundings: Surroundings, whom: Whom, member: str) -> None:
    """Check that a node that is managed here carries the group. Raises UsageError."""
    nodes = surroundings.require_backend().topology.nodes
    known = next((node for node in nodes if node.id == member), None)
    if known is not None and whom.group is not None and whom.group not in known.groups:
        groups = ", ".join(known.groups)
        raise UsageError(f"{member} carries {groups}, not {whom.group!r}. Add another node to that group.")


def _stop_added(surroundings: Surroundings, member: str) -> bool:
    """Stop and forget a node that `add_member` started, unless it is still a member of a group; False if `add_member`
    did not start it."""
    home = surroundings.home
    with home.exclusive():
        cluster = home.require_cluster()
        node = next((node for node in cluster.nodes().nodes if _was_added(cluster, node, member)), None)
        if node is None:
            return False
        backend = surroundings.backend(cluster)
        seat = roster(backend).seat(member)
        if seat is not None and seat.memberships and not seat.is_removed:
            return False
        backend.stop(node)
        home.keep(cluster.with_added_here(tuple(each for each in cluster.added_here() if each.id != member)))
    echo(f"{member} was removed and stopped. What it stored is kept.")
    return True


def _was_added(cluster: Cluster, node: Node, member: str) -> bool:
    return node.id == member and not node.data_dir and any(each.id == member for each in cluster.added_here())


def _start_here(surroundings: Surroundings, whom: Whom, member: str) -> str:
    """Start a node with this id beside the others, on the next free port; returns its address."""
    home = surroundings.home
    if whom.address:
        raise UsageError(f"Where is {member}? `mufakat member add {member} HOST:PORT`.")
    home.require_cluster()
    with home.exclusive():
        cluster = surroundings.settled(home.require_cluster())
        backend = surroundings.backend(cluster)
        known = next((node for node in backend.topology.nodes if node.id == member), None)
        if known is None and backend.mode != "local":
            raise UsageError(
                f"Containers are started by compose: start {member} yourself, then say where it is: "
                f"`mufakat member add {member} HOST:PORT`."
            )
        node = known or _new_node(backend, whom.group, member)
        if known is None:
            assert cluster.record is not None
            stored = replace(node, client_port=node.client_port - cluster.record.port_offset)
            cluster = cluster.with_added_here((*cluster.added_here(), stored))
            # Before it starts: the node is then known, whatever happens to this command.
            home.keep(cluster)
            backend = surroundings.backend(cluster)
        if not backend.process_of(node).is_running:
            backend.start(node)
            echo(f"Starting {node.id} on {backend.host}:{node.client_port}.")
    wait_live(backend, node)
    return join_address(backend.host, node.client_port)


def _new_node(backend: Backend, group: str | None, member: str) -> Node:
    """A new node beside those that carry the group: the same groups, the next port."""
    kinds = dict.fromkeys(node.groups for node in backend.topology.nodes if group is None or group in node.groups)
    if len(kinds) != 1:
        groups = "|".join(backend.topology.groups())
        raise UsageError(f"Which service shall {member} carry? Say it with `--group {groups}`.")
    carried = next(iter(kinds))
    taken = {port for node in backend.topology.nodes for port in (node.client_port, node.peer_port)}
    port = max(node.client_port for node in backend.topology.nodes if node.groups == carried) + 1
    while True:
        node = Node(member, carried, port)
        if node.peer_port > PORT_MAX:
            raise InTheWay(f"There is no free port for {member} above those of {', '.join(carried)}.")
        free = not {port, node.peer_port} & taken and all(
            is_port_free(backend.host, each) for each in (port, node.peer_port)
        )
        if free:
            return node
        port += 1


def _look_after(surroundings: Surroundings, member: str) -> None:
    """Remember a member on this machine that was started in another way, so that `down` finds it."""
    with surroundings.home.exclusive():
        cluster = surroundings.home.require_cluster()
        if any(node.id == member for node in cluster.nodes().nodes):
            return
        until = time.monotonic() + LEARN_SECONDS_MAX
        while True:
            seat = roster(surroundings.backend(cluster)).seat(member)
            if seat is None or seat.node.host not in LOOPBACK_HOSTS or time.monotonic() > until:
                return
            if seat.node.data_dir:
                surroundings.home.keep(cluster.with_added_here((*cluster.added_here(), seat.node)))
                return
            time.sleep(POLL_SECONDS)


def _change(
    surroundings: Surroundings, whom: Whom, action: str, body: dict[str, dict[str, str]], member: str
) -> bool:
    audiences = list(_audiences(surroundings, whom, member))
    if len(audiences) > 1:
        raise UsageError(f"Which service's nodes is {member} one of? Say it with `--group lock|queue|cache`.")
    if audiences[0].group is not None:
        body[action]["group"] = audiences[0].group
    return bool(audiences[0].ask("/admin/members", body).get("changed", True))


def _audiences(surroundings: Surroundings, whom: Whom, member: str = "") -> Iterator[Audience]:
    """Whom to ask: the named node, or the running nodes that really belong to the cluster here."""
    if whom.address:
        yield Audience((address_of(whom.address),), whom.group, admin_headers(surroundings.environ))
        return
    backend = surroundings.require_backend()
    calls, now = Calls(backend), roster(backend)
    if whom.group is not None:
        backend.topology.members(whom.group)
        yield _audience(calls, [seat for seat in now.seats if whom.group in seat.node.groups], whom.group, member)
        return
    # Nodes with the same groups; if the member is one of them, only these.
    kinds = dict.fromkeys(node.groups for node in backend.topology.nodes)
    own = [seat.node.groups for seat in now.seats if seat.node.id == member and seat.node.groups in kinds]
    for groups in own or kinds:
        yield _audience(calls, [seat for seat in now.seats if seat.node.groups == groups], None, member)


def _audience(calls: Calls, seats: list[Seat], group: str | None, member: str) -> Audience:
    strangers = [seat.told for seat in seats if isinstance(seat.told, str) and seat.process.is_running]
    asked = [seat for seat in seats if seat.answer is not None]
    if not asked and strangers:
        raise ClusterError(strangers[0])
    # Ask the node that shall be removed last: it may be gone.
    asked.sort(key=lambda seat: seat.node.id == member)
    return Audience(tuple(calls.address(seat.node) for seat in asked), group, calls.headers)
