"""What every node answers about itself: `/health`, `/livez`, `/readyz`, `/status` and `/metrics`.

The rule of the file: nothing here waits for the cluster. These routes tell the truth about this node at this moment,
also while there is no leader and no quorum.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from common.config import Settings
from common.metrics import CounterFamily, GaugeFamily, Metrics, Row
from common.web import json_response, read_query
from raft.core.types import Role
from services.node.host import Host, host
from services.operations.refusals import api_error
from services.replicated.idempotency import IdempotencyTable
from services.version import VERSION

if TYPE_CHECKING:
    from raft.node import RaftNode
    from raft.status import NodeStatus

#: Role as `/health` and `raft_role` number it: asking for pre-votes counts as campaigning.
_ROLE_NUMBERS = {Role.FOLLOWER: 0, Role.CANDIDATE: 1, Role.PRE_CANDIDATE: 1, Role.LEADER: 2}
#: What a node is in its group, as `mufakat_membership` numbers it.
_MEMBERSHIP_NUMBERS = {"none": 0, "learner": 1, "voter": 2}
_ROLE_NAMES = ("follower", "candidate", "leader")

_OPENMETRICS = "application/openmetrics-text"


class MetricsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """`GET /metrics?format=`; without it the `Accept` header decides."""

    format: Literal["json", "text", "openmetrics"] | None = None


def routes() -> list[web.RouteDef]:
    """The routes that every node has, whatever groups it hosts."""
    return [
        web.get("/health", health),
        web.get("/livez", livez),
        web.get("/readyz", readyz),
        web.get("/status", status),
        web.get("/metrics", metrics),
    ]


async def health(request: web.Request) -> web.Response:
    """200 while the process works, with the role and the indexes of each group; the flat fields are the first's."""
    here = host(request)
    groups = {group: _group_health(here, node.status()) for group, node in _nodes(here)}
    flat = next(iter(groups.values()), {"ok": True, "status": "ok", "id": here.node_id, "node": here.node_id})
    return json_response({**flat, "cluster": here.cluster.id or None, "groups": groups})


async def livez(request: web.Request) -> web.Response:
    """200: the event loop turns."""
    return json_response({"ok": True, "id": host(request).node_id})


async def readyz(request: web.Request) -> web.Response:
    """200 where every group knows a leader and has caught up, else 503 with the reasons by group."""
    reasons = _reasons_not_ready(host(request))
    if reasons:
        listed = "; ".join(f"{group}: {reason}" for group, reason in reasons.items())
        raise api_error("not_ready", f"Not ready ({listed}); use another node or wait.", reasons=reasons)
    return json_response({"ok": True, "id": host(request).node_id})


async def status(request: web.Request) -> web.Response:
    """All that this node knows of itself and its groups, for people and for `mufakat status`."""
    here = host(request)
    statuses = {group: node.status() for group, node in _nodes(here)}
    return json_response(
        {
            "ok": True,
            "id": here.node_id,
            "node": here.node_id,
            "cluster": here.cluster.id or None,
            "pid": os.getpid(),
            "data_dir": here.data_dir,
            "version": VERSION,
            "uptime_s": max((each.uptime_ms for each in statuses.values()), default=0) / 1000,
            "members": _members(here, statuses.values()),
            "groups": {group: _group_status(here, each) for group, each in statuses.items()},
            "not_ready": _reasons_not_ready(here),
            "refused": {group: refusal.problem for group, refusal in here.refused.items()},
            "authentication": bool(here.settings.auth_tokens),
            "disk": asdict(here.disk_space) if here.disk_space is not None else None,
            "warnings": warnings(here.settings),
        }
    )


async def metrics(request: web.Request) -> web.Response:
    """The metrics: Prometheus text, OpenMetrics or JSON, by `?format=` or else by the `Accept` header."""
    here = host(request)
    accept = request.headers.get(hdrs.ACCEPT, "")
    wanted = read_query(request, MetricsQuery).format
    if wanted == "json" or (wanted is None and _prefers_json(accept)):
        return json_response({"metrics": asdict(here.metrics.served)})
    if wanted is not None:
        accept = _OPENMETRICS if wanted == "openmetrics" else ""
    encode, content_type = _encoder(accept)
    return web.Response(body=encode(here.metrics.registry), headers={hdrs.CONTENT_TYPE: content_type})


def watch_nodes(metrics: Metrics, nodes: Mapping[str, "RaftNode"]) -> None:
    """Let a scrape read the gauges of Raft from the nodes that `nodes` then holds."""

    def watch(
        family: GaugeFamily | CounterFamily, value: Callable[["NodeStatus"], float]
    ) -> None:
        def read() -> Iterable[Row]:
            return [((group,), value(node.status())) for group, node in nodes.items()]

        family.watch(read)

    watch(metrics.raft_term, lambda each: each.core.term)
    watch(metrics.raft_role, lambda each: _ROLE_NUMBERS[each.core.role])
    watch(metrics.raft_commit_index, lambda each: each.core.commit_index)
    watch(metrics.raft_applied_index, lambda each: each.applied_index)
    watch(metrics.mufakat_log_memory_bytes, lambda each: each.log_memory_bytes)
    watch(metrics.mufakat_log_disk_bytes, lambda each: each.log_bytes)
    watch(metrics.mufakat_proposals, lambda each: each.proposals)
    watch(metrics.mufakat_proposals_bytes, lambda each: each.proposals_bytes)
    watch(metrics.mufakat_membership, lambda each: _MEMBERSHIP_NUMBERS[each.membership])
    watch(metrics.mufakat_disk_full, lambda each: each.disk_full)
    watch(metrics.raft_elections_total, lambda each: each.core.elections)
    watch(metrics.raft_leader_changes_total, lambda each: each.core.leader_changes)


def watch_host(here: Host) -> None:
    """Let a scrape read what this node knows of its disk and of the groups that it refuses."""

    def refused() -> Iterable[Row]:
        return [((group,), group in here.refused) for group in here.settings.groups]

    def free_bytes() -> Iterable[Row]:
        return [] if here.disk_space is None else [((), here.disk_space.free_bytes)]

    here.metrics.mufakat_group_refused.watch(refused)
    here.metrics.mufakat_disk_free_bytes.watch(free_bytes)


def watch_idempotency(metrics: Metrics, nodes: Mapping[str, "RaftNode"]) -> None:
    """Let a scrape read how full the tables of kept answers are."""

    def watch(family: GaugeFamily | CounterFamily, value: Callable[[IdempotencyTable], float]) -> None:
        def read() -> Iterable[Row]:
            return [((group,), value(node.machine.idempotency)) for group, node in nodes.items()]

        family.watch(read)

    watch(metrics.mufakat_idempotency_bytes, lambda table: table.bytes)
    watch(metrics.mufakat_idempotency_keys, len)
    watch(metrics.mufakat_idempotency_forgotten_early_total, lambda table: table.forgotten_early)


def warnings(settings: Settings) -> list[str]:
    """What an operator should know about how this node is set up."""
    found = []
    if not settings.auth_tokens:
        found.append("authentication is off: whoever reaches this port may do anything; set MUFAKAT_AUTH_TOKENS")
    if len(settings.cluster) == 1:
        found.append("this node is alone: nothing survives the loss of its disk; name more nodes in MUFAKAT_CLUSTER")
    return found


def _nodes(here: Host) -> list[tuple[str, "RaftNode"]]:
    """The replicas that have started, in the order of the settings."""
    return [(group, here.nodes[group]) for group in here.settings.groups if group in here.nodes]


def _members(here: Host, statuses: Iterable["NodeStatus"]) -> dict[str, str | None]:
    """Id to address of every member of this node's groups; before a group knows any, of the settings' nodes."""
    settings = here.settings
    addresses = {node_id: settings.address_of(node_id) for node_id in settings.cluster}
    members: set[str] = set()
    for each in statuses:
        addresses = {**dict(each.addresses), **addresses}
        members |= {*each.core.voters, *each.core.learners}
    return {node_id: addresses.get(node_id) for node_id in sorted(members or settings.cluster)}


def _reasons_not_ready(here: Host) -> dict[str, str]:
    reasons = {group: "has not started yet" for group in here.settings.groups}
    for group, node in _nodes(here):
        reasons[group] = node.status().not_ready_reason
    reasons.update((group, str(refusal)) for group, refusal in here.refused.items())
    return {group: reason for group, reason in reasons.items() if reason}


def _group_health(here: Host, found: "NodeStatus") -> dict[str, Any]:
    number = _ROLE_NUMBERS[found.core.role]
    return {
        "ok": True,
        "status": "ok",
        "id": here.node_id,
        "node": here.node_id,
        "role": number,
        "role_name": _ROLE_NAMES[number],
        "term": found.core.term,
        "leader": found.core.leader or None,
        "commit_index": found.core.commit_index,
        "applied_index": found.applied_index,
    }


def _group_status(here: Host, found: "NodeStatus") -> dict[str, Any]:
    """The fields of `/health` and what else the replica and its core tell, under their own names."""
    further = asdict(found)
    core = further.pop("core")
    del further["group"], further["addresses"]
    core["vote"] = core["vote"] or None
    further["life"] = further["life"] or None
    further["uptime_s"] = further.pop("uptime_ms") / 1000
    return {**core, **further, "ready": found.ready, **_group_health(here, found)}


def _encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """How the registry is written for an `Accept` header. The library compares versions, also those that are none."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


def _prefers_json(accept: str) -> bool:
    """Whether an `Accept` header names JSON, and no text format of Prometheus with a higher weight."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        weights[media_type.lower()] = _weight(parameters)
    text = max(weights.get("text/plain", 0.0), weights.get(_OPENMETRICS, 0.0))
    json = weights.get("application/json", 0.0)
    return json > 0 and json >= text


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
