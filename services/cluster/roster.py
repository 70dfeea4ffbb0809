"""Who belongs to a running cluster: the nodes that are managed here, and other nodes that its groups name.

The topology says what `up` starts. The groups say who the members are, and that may have changed since. A node beyond
the topology counts in a quorum, may lead and can be asked; a removed node does not and cannot. The rule of the file:
a group's members are those that its leader names, else those that the node furthest ahead names.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from common.parsers import parse_address
from services.cluster.backend import Backend, NodeProcess
from services.cluster.calls import Calls
from services.cluster.probe import GroupTold, Told
from services.cluster.topology import Node
from services.node.process_file import look

#: Names of this machine.
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Seat:
    """One node, with all that we could learn about it."""

    node: Node
    process: NodeProcess
    #: What it says about itself; else why it says nothing.
    told: Told | str
    #: What the others name it, by group: "voter" or "learner"; "none" if they do not name it, "" if nobody says.
    memberships: dict[str, str]

    @property
    def answer(self) -> Told | None:
        return None if isinstance(self.told, str) else self.told

    @property
    def is_removed(self) -> bool:
        """Whether all of its groups say that it is no longer a member."""
        return set(self.memberships.values()) == {"none"}

    def reasons(self) -> dict[str, str]:
        """Why it is not ready, by group; under "" if the reason is about no single group. Groups that it was removed
        from do not count. A node that does not answer is not ready in any group."""
        if isinstance(self.told, str):
            return {"": self.told}
        return {group: why for group, why in self.told.not_ready.items() if self.memberships.get(group) != "none"}


@dataclass(frozen=True, slots=True)
class Roster:
    """The nodes of a cluster at one moment, those of its topology first."""

    seats: tuple[Seat, ...]

    def members(self, group: str) -> list[Seat]:
        """The members of a group; if nobody says who they are, the nodes that carry it."""
        return [seat for seat in self.seats if seat.memberships.get(group, "none") != "none"]

    def voters(self, group: str) -> list[Seat]:
        return [seat for seat in self.seats if seat.memberships.get(group) in ("voter", "")]

    def seat(self, node_id: str) -> Seat | None:
        return next((seat for seat in self.seats if seat.node.id == node_id), None)

    def leaders(self, group: str) -> dict[str, GroupTold]:
        """The members that say they lead `group`, by id: none during an election, and for a moment two after it."""
        told = {seat.node.id: seat.answer.groups.get(group) for seat in self.members(group) if seat.answer}
        return {node_id: known for node_id, known in told.items() if known and known.role == "leader"}


def roster(backend: Backend, group: str = "") -> Roster:
    """Ask the nodes that run who they are and who belongs to their groups: all nodes, or those that carry `group`.

    Raises:
        UsageError: no node carries it.
    """
    calls = Calls(backend)
    processes = backend.processes()
    nodes = backend.topology.members(group) if group else backend.topology.nodes
    asked = tuple(node for node in nodes if processes[node.id].is_running)
    told: dict[str, Told | str] = {node.id: "does not run" for node in nodes}
    told.update(calls.told_by_all(asked))
    views = _views(told)
    beyond = _beyond(views, told, {node.id for node in backend.topology.nodes})
    told.update(calls.told_by_all(beyond))
    beyond = tuple(_located(node, told[node.id]) for node in beyond)
    groups = backend.topology.groups()
    processes.update((node.id, backend.process_of(node)) for node in beyond)
    return Roster(
        tuple(
            Seat(node, processes[node.id], told[node.id], _memberships(node, groups, views))
            for node in (*nodes, *beyond)
        )
    )


def _views(told: dict[str, Told | str]) -> dict[str, GroupTold]:
    """For each group, what the best informed node says: a leader of the latest term, else the node that is furthest
    ahead."""
    best: dict[str, GroupTold] = {}
    for answer in told.values():
        for group, known in () if isinstance(answer, str) else answer.groups.items():
            if known.voters and (group not in best or _rank(known) > _rank(best[group])):
                best[group] = known
    return best


def _rank(known: GroupTold) -> tuple[bool, int, int]:
    return known.role == "leader", known.term, known.commit_index


def _beyond(views: dict[str, GroupTold], told: dict[str, Told | str], known: set[str]) -> tuple[Node, ...]:
    """The members that are not managed here."""
    addresses: dict[str, str] = {}
    for answer in told.values():
        if not isinstance(answer, str):
            addresses.update({member: address for member, address in answer.addresses.items() if address})
    found: dict[str, list[str]] = {}
    for group, view in views.items():
        for member in (*view.voters, *view.learners):
            if member not in known:
                found.setdefault(member, []).append(group)
    nodes = []
    for member, groups in sorted(found.items()):
        try:
            host, port = parse_address(addresses.get(member, ""))
        except ValueError:
            host, port = "", 0
        nodes.append(Node(member, tuple(groups), port, host))
    return tuple(nodes)


def _located(node: Node, told: Told | str) -> Node:
    """The node with its data directory, if it runs on this machine and its process is found there."""
    if isinstance(told, str) or node.host not in LOOPBACK_HOSTS or not told.data_dir:
        return node
    try:
        seen = look(Path(told.data_dir))
    except OSError:
        return node
    if not seen.is_held or seen.record is None or seen.record.pid != told.pid:
        return node
    return replace(node, data_dir=told.data_dir, groups=tuple(told.groups) or node.groups)


def _memberships(node: Node, groups: tuple[str, ...], views: dict[str, GroupTold]) -> dict[str, str]:
    found = {}
    for group in groups:
        if group not in node.groups:
            continue
        view = views.get(group)
        if view is None:
            found[group] = ""
        elif node.id in view.voters:
            found[group] = "voter"
        else:
            found[group] = "learner" if node.id in view.learners else "none"
    return found
