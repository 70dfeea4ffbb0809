"""The state of a cluster: the rows that `mufakat status` shows, as a table or as JSON."""

import json
from typing import Any

from common.parsers import join_address
from services.cluster.backend import Backend
from services.cluster.printing import table
from services.cluster.roster import Roster, Seat, roster

#: Shown in a cell about which nothing is known.
UNKNOWN = "-"

HEADINGS = ("NODE", "GROUP", "ADDRESS", "PID", "STATE", "ROLE", "MEMBER", "TERM", "LEADER", "LAG", "LOG")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def cluster_status(backend: Backend) -> Roster:
    """Every node of the topology and every member beyond it, also those that do not answer; all are asked at the same
    time."""
    return roster(backend)


def state_of(seat: Seat, group: str = "") -> str:
    """"running" (ready for traffic), "unready" (its process runs), "removed" (its process runs, but it is no member
    of any group, or not of `group`), "stopped" (on request), "dead", "away" (it does not run here and does not
    answer), or "unknown" (its data directory cannot be read)."""
    if seat.answer is None and seat.process.state == "elsewhere":
        return "away"
    if not seat.process.is_running and seat.answer is None:
        return seat.process.state
    if seat.is_removed or (group and seat.memberships.get(group) == "none"):
        return "removed"
    return "unready" if seat.reasons() else "running"


def status_json(backend: Backend | None, found: Roster | None) -> str:
    """The same as JSON. `role`, `term` and `leader` are those of the node's first group, null if it does not answer;
    `status` has them for each group."""
    record = backend.cluster.record if backend else None
    told = {
        "mode": record.mode if record else None,
        "topology": record.topology if record else None,
        "nodes": [_json_row(backend, seat) for seat in found.seats] if backend and found else [],
        "cluster": backend.cluster.id if backend else None,
        "port_offset": record.port_offset if record else None,
        "authentication": _has_authentication(backend) if backend else None,
    }
    return json.dumps(told, indent=2)


def _json_row(backend: Backend, seat: Seat) -> dict[str, Any]:
    answer, groups = seat.answer, seat.node.groups
    first = answer.groups.get(groups[0]) if answer and groups else None
    return {
        "id": seat.node.id,
        "groups": list(groups),
        "address": _address(backend, seat),
        "pid": _pid(seat),
        "state": state_of(seat),
        "role": first.role if first else None,
        "term": first.term if first else None,
        "leader": first.leader if first else None,
        "version": answer.version if answer else None,
        "disk_free_bytes": answer.disk_free_bytes if answer else None,
        "reasons": seat.reasons() if seat.process.is_running or answer else {},
        "status": {group: _json_group(seat, group) for group in groups},
    }


def _json_group(seat: Seat, group: str) -> dict[str, Any]:
    known = seat.answer.groups.get(group) if seat.answer else None
    return {
        "member": seat.memberships.get(group) or None,
        "role": known.role if known else None,
        "term": known.term if known else None,
        "leader": known.leader if known else None,
        "lag": known.lag if known else None,
        "log_bytes": known.log_bytes if known else None,
        "version": known.version if known else None,
        "known": known.known if known else None,
    }


def status_text(backend: Backend, found: Roster) -> str:
    """A line about the cluster, one row for each group on each node, and why nodes are not ready."""
    rows = [_row(backend, seat, group) for seat in found.seats for group in seat.node.groups]
    parts = (_headline(backend, found), table(HEADINGS, rows), *_remarks(found))
    return "\n".join(parts)


def _headline(backend: Backend, found: Roster) -> str:
    record = backend.cluster.record
    versions = sorted({seat.answer.version for seat in found.seats if seat.answer and seat.answer.version})
    version = f", version {' and '.join(versions)}" if versions else ""
    authentication = _authentication(backend, found)
    unfinished = "; its last `up` did not come to its end" if backend.cluster.state == "starting" else ""
    return (
        f"{record and record.topology} topology, {backend.mode} mode, cluster {backend.cluster.id}{version}, "
        f"authentication {authentication}{unfinished}"
    )


def _remarks(found: Roster) -> list[str]:
    """Notes that do not fit into a row: why a node is not ready, who removed it, how much room its disk has."""
    remarks = []
    for seat in found.seats:
        reasons = seat.reasons() if seat.process.is_running or seat.answer else {}
        remarks += [f"{seat.node.id}{', ' + group if group else ''}: {why}" for group, why in reasons.items()]
        if seat.is_removed and seat.process.is_running:
            remarks.append(f"{seat.node.id} is no member any more; `mufakat stop {seat.node.id}` ends it.")
        if seat.process.problem:
            remarks.append(f"{seat.node.id}: {seat.process.problem}")
        if seat.process.state == "elsewhere":
            remarks.append(f"{seat.node.id} is a member that was not started from here.")
    remarks += version_remarks(found)
    answers = [seat.answer for seat in found.seats if seat.answer]
    frees = [answer.disk_free_bytes for answer in answers if answer.disk_free_bytes is not None]
    if frees:
        differ = len({in_bytes(free) for free in frees}) > 1
        remarks.append(f"Room on the disks: {in_bytes(min(frees))}{' at least' if differ else ''}.")
    if False in (told := {answer.authentication for answer in answers}):
        some = " of some nodes" if True in told else ""
        remarks.append(f"Whoever reaches a port{some} may do anything: authentication is off (MUFAKAT_AUTH_TOKENS).")
    return remarks


def version_remarks(found: Roster) -> list[str]:
    """Of each group in which a node knows more than all members do: who holds the version of its log where it is."""
    remarks = []
    for group in dict.fromkeys(group for seat in found.seats for group in seat.memberships):
        seats = found.members(group)
        told = {seat.node.id: seat.answer.groups.get(group) if seat.answer else None for seat in seats}
        newest = max((known.known for known in told.values() if known), default=0)
        version = max((known.version for known in told.values() if known), default=0)
        behind = [node_id for node_id, known in told.items() if known is None or known.known < newest]
        if version < newest and behind:
            remarks.append(
                f"{group}: the log stays at version {version} until all members know version {newest}; "
                f"{', '.join(behind)} {'does' if len(behind) == 1 else 'do'} not say so."
            )
    return remarks


def _authentication(backend: Backend, found: Roster) -> str:
    """Whether the nodes ask for tokens, and whether they will from their next start on, if that differs."""
    words = {True: "on", False: "off"}
    answers = [seat.answer.authentication for seat in found.seats if seat.answer]
    told = sorted({words[answer] for answer in answers if answer is not None})
    kept = words[_has_authentication(backend)]
    now = " and ".join(told) or kept
    return now if now == kept else f"{now} ({kept} once the nodes are started again)"


def _has_authentication(backend: Backend) -> bool:
    return bool(backend.cluster.settings.get("MUFAKAT_AUTH_TOKENS"))


def _pid(seat: Seat) -> int | None:
    return seat.process.pid or (seat.answer.pid if seat.answer and seat.process.state == "running" else None)


def _address(backend: Backend, seat: Seat) -> str:
    node = seat.node
    return join_address(node.host or backend.host, node.client_port) if node.client_port else UNKNOWN


def _row(backend: Backend, seat: Seat, group: str) -> tuple[str, ...]:
    known = seat.answer.groups.get(group) if seat.answer else None
    return (
        seat.node.id,
        group,
        _address(backend, seat),
        str(_pid(seat) or UNKNOWN),
        state_of(seat, group),
        known.role if known else UNKNOWN,
        {"none": "no", "": UNKNOWN}.get(member := seat.memberships.get(group, ""), member),
        str(known.term) if known else UNKNOWN,
        (known.leader or "none") if known else UNKNOWN,
        str(known.lag) if known else UNKNOWN,
        in_bytes(known.log_bytes) if known else UNKNOWN,
    )


def in_bytes(count: int) -> str:
    """A number of bytes for people."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 or amount >= 10 else f"{amount:.1f} {_UNITS[unit]}"
