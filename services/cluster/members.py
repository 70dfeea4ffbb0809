"""Asking a cluster that runs who its members are, and to add or remove one."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.cluster.backups import admin_headers
from services.cluster.errors import ClusterError, UsageError
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo, table
from services.cluster.topology import Topology

#: A change may wait for a leader that hands over first, in each of three groups.
ANSWER_SECONDS_MAX = 30.0
ANSWER_BYTES_MAX = 1 << 20

HEADINGS = ("GROUP", "MEMBER", "ADDRESS", "ROLE", "LEADER")

#: Answers that another node may give better.
_ELSEWHERE = frozenset({0, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Whom:
    """Which nodes a command speaks to, and about what."""

    #: host:port of one node; empty: those of the cluster that is up here.
    address: str = ""
    #: The group; None: all groups of the nodes asked.
    group: str | None = None


def list_members(surroundings: Surroundings, whom: Whom) -> str:
    """A table of the members of the groups.

    Raises:
        NoCluster, UsageError: there is nobody to ask.
        ClusterError: nobody answered.
    """
    rows: list[tuple[str, ...]] = []
    for addresses, group in _audiences(surroundings, whom):
        path = "/admin/members" + (f"?group={group}" if group else "")
        answer = _ask(surroundings, addresses, path, None)
        for name, told in answer["groups"].items():
            for member in told["members"]:
                leads = "leader" if member["id"] == told["leader"] else ""
                rows.append((name, member["id"], member["address"] or "-", member["role"], leads))
    return table(HEADINGS, rows)


def add_member(surroundings: Surroundings, whom: Whom, member: str, address: str) -> None:
    """Add a server, as a learner until it has caught up. Raises as `list_members`."""
    body = {"add": {"id": member, "address": address}}
    changed = _change(surroundings, whom, "add", body, member)
    if changed:
        echo(f"{member} was added: a learner now, a voter once it has caught up.")
    else:
        echo(f"{member} is a member already, at {address}.")


def remove_member(surroundings: Surroundings, whom: Whom, member: str) -> None:
    """Remove a server. Raises as `list_members`."""
    _change(surroundings, whom, "remove", {"remove": {"id": member}}, member)
    echo(f"{member} was removed. It takes no part any more; stop it where it runs still.")


def _change(
    surroundings: Surroundings, whom: Whom, action: str, body: dict[str, dict[str, str]], member: str
) -> bool:
    audiences = list(_audiences(surroundings, whom, member))
    if len(audiences) > 1:
        raise UsageError(f"Which service's nodes is {member} one of? Say it with `--group lock|queue|cache`.")
    addresses, group = audiences[0]
    if group is not None:
        body[action]["group"] = group
    return bool(_ask(surroundings, addresses, "/admin/members", body).get("changed", True))


def _audiences(
    surroundings: Surroundings, whom: Whom, member: str = ""
) -> Iterator[tuple[list[tuple[str, int]], str | None]]:
    """Nodes that can answer for each other, in the order in which to ask them, and the group to name to them."""
    if whom.address:
        host, _, port = whom.address.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"`{whom.address}` is no address; write it as host:port.")
        yield [(host, int(port))], whom.group
        return
    backend = surroundings.require_backend()
    topology: Topology = backend.topology
    if whom.group is not None:
        yield [(backend.host, node.client_port) for node in topology.members(whom.group)], whom.group
        return
    # Nodes with the same groups; where the member is one of them, no others.
    kinds = dict.fromkeys(node.groups for node in topology.nodes)
    own = [node.groups for node in topology.nodes if node.id == member]
    for groups in own or kinds:
        asked = [node for node in topology.nodes if node.groups == groups]
        # Whoever is to be removed is asked last: it may be gone.
        asked.sort(key=lambda node: node.id == member)
        yield [(backend.host, node.client_port) for node in asked], None


def _ask(
    surroundings: Surroundings, addresses: list[tuple[str, int]], path: str, body: dict[str, Any] | None
) -> dict[str, Any]:
    """The answer of the first node that can give one."""
    headers = admin_headers(surroundings.environ)
    status, answer = 0, {}
    for host, port in addresses:
        status, answer = _call(host, port, path, body, headers)
        if status not in _ELSEWHERE:
            break
    if status == 200 and answer.get("ok") is True:
        return answer
    if status == 0:
        named = ", ".join(f"{host}:{port}" for host, port in addresses)
        raise ClusterError(f"None of {named} answers. `mufakat status` shows which nodes run.")
    raise ClusterError(str(answer.get("detail") or f"A node answered {status}."))


def _call(
    host: str, port: int, path: str, body: dict[str, Any] | None, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """One request: the status and what was answered; (0, {}) where the node cannot be reached."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS_MAX)
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            headers = {**headers, "Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read(ANSWER_BYTES_MAX))
    except (OSError, http.client.HTTPException):
        return 0, {}
    except ValueError:
        return response.status, {}
    finally:
        connection.close()
    return response.status, answer if isinstance(answer, dict) else {}
