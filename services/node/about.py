"""What every node answers about itself: health, readiness, status and metrics.

The rule of the file: nothing here waits for the cluster. These operations tell the truth about this node at this
moment, also while there is no leader and no quorum.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType
from prometheus_client.exposition import choose_encoder

from common.config import Settings
from common.metrics import CounterFamily, GaugeFamily, Metrics, Row
from raft.core.types import Role
from services.node.host import Host
from services.operations.answers import Answer
from services.operations.call import Call
from services.operations.operation import Operations, Text, get
from services.operations.refusals import refused
from services.replicated.idempotency import IdempotencyTable
from services.replicated.machine import machine_of
from services.version import VERSION

if TYPE_CHECKING:
    from raft.node import RaftNode
    from raft.status import NodeStatus

RoleName = Literal["follower", "candidate", "leader"]

#: Role as `/health` and `raft_role` number it: asking for pre-votes counts as campaigning.
_ROLE_NUMBERS = {Role.FOLLOWER: 0, Role.CANDIDATE: 1, Role.PRE_CANDIDATE: 1, Role.LEADER: 2}
#: What a node is in its group, as `mufakat_membership` numbers it.
_MEMBERSHIP_NUMBERS = {"none": 0, "learner": 1, "voter": 2}
_ROLE_NAMES: tuple[RoleName, ...] = ("follower", "candidate", "leader")

_OPENMETRICS = "application/openmetrics-text"

operations = Operations()


class NoQuery(Struct):
    """Nothing is asked: whatever a load balancer or a browser adds is not looked at."""


class MetricsQuery(Struct, forbid_unknown_fields=True):
    """Without `format` the `Accept` header decides."""

    format: Literal["json", "text", "openmetrics"] | None = None


class GroupHealth(Struct, kw_only=True):
    """Of one group: `role` is 0 follower, 1 candidate, 2 leader."""

    ok: bool = True
    status: Literal["ok"] = "ok"
    id: str
    node: str
    role: int | UnsetType = UNSET
    role_name: RoleName | UnsetType = UNSET
    term: int | UnsetType = UNSET
    leader: str | UnsetType | None = UNSET
    commit_index: int | UnsetType = UNSET
    applied_index: int | UnsetType = UNSET


class Health(GroupHealth, kw_only=True):
    """200 while the process works: `id`, `role` (0 follower, 1 candidate, 2 leader), `term`, `leader`,
    `commit_index`, `applied_index`, and the same per group under `groups`; `cluster`: the cluster's id, null where
    the node knows none."""

    cluster: str | None
    groups: dict[str, GroupHealth]


class Alive(Answer, kw_only=True):
    """200 while the event loop turns."""

    id: str


class ReadyNode(Answer, kw_only=True):
    """200 where in every group this node votes, knows a leader and lacks at most 1,000 of the entries that it knows
    the leader to have committed, and no snapshot is on its way; else 503 with `reasons`. A node that was taken in
    with an empty disk is ready only once it has applied all that the group had committed then."""

    id: str


class GroupStatus(GroupHealth, kw_only=True):
    """All that is known of one group: what `/health` says, and what else the replica and its core tell."""

    vote: str | None
    first_index: int
    last_index: int
    durable_index: int
    voters: list[str]
    learners: list[str]
    elections: int
    leader_changes: int
    rejected_messages: int
    heard_commit_index: int
    cluster_time_ms: int
    not_ready_reason: str
    connected: list[str]
    proposals: int
    reads: int
    stalls: int
    uptime_s: float
    log_bytes: int
    snapshot_index: int
    #: None until it has one.
    life: str | None
    log_memory_bytes: int
    proposals_bytes: int
    membership: Literal["voter", "learner", "none"]
    #: Of the log: what all members know, and what this node knows.
    version: int
    known: int
    #: Entries that this node knows to be committed and has not applied.
    lag: int
    disk_full: bool
    ready: bool


class Disk(Struct):
    """Of the data directory's file system, as found a few seconds ago."""

    free_bytes: int
    total_bytes: int


class Status(Answer, kw_only=True):
    """Members, roles, terms, indexes, sizes, uptime, version, `warnings`; `authentication`: whether tokens are asked
    for; `disk`: `free_bytes` and `total_bytes` of the data directory's file system, as found a few seconds ago, null
    while that is not known; `cluster` as in `/health`; of the node's process `pid` and `data_dir`. Of each group its
    `life`, null until it has one ([membership](membership.md)); `membership`: `voter`, `learner` or `none`; `lag`:
    entries that this node knows to be committed and has not applied; `disk_full`; `version`: that of its log, which
    all its members know, and `known`: the one that this node does ([design](design.md#versions))."""

    id: str
    node: str
    cluster: str | None
    pid: int
    data_dir: str
    version: str
    uptime_s: float
    members: dict[str, str | None]
    groups: dict[str, GroupStatus]
    not_ready: dict[str, str]
    refused: dict[str, str]
    authentication: bool
    disk: Disk | None
    warnings: list[str]


class Counted(Answer, kw_only=True):
    """As JSON: what this node served its clients with since its start."""

    metrics: dict[str, int]


@operations.answers("node.health", get("/health"), right="public")
async def health(call: Call, body: NoQuery) -> Health:
    """Tell how this node is, with its role in each group; the flat fields are the first group's."""
    here = call.host
    groups = {group: _group_health(here, node.status()) for group, node in _nodes(here)}
    flat = next(iter(groups.values()), GroupHealth(id=here.node_id, node=here.node_id))
    return Health(**msgspec.structs.asdict(flat), cluster=here.cluster.id or None, groups=groups)


@operations.answers("node.livez", get("/livez"), right="public")
async def livez(call: Call, body: NoQuery) -> Alive:
    """Tell that this node's event loop turns."""
    return Alive(id=call.host.node_id)


@operations.answers("node.readyz", get("/readyz"), refuses=("not_ready",), right="public")
async def readyz(call: Call, body: NoQuery) -> ReadyNode:
    """Tell whether this node can serve all its groups."""
    reasons = _reasons_not_ready(call.host)
    if reasons:
        listed = "; ".join(f"{group}: {reason}" for group, reason in reasons.items())
        raise refused("not_ready", f"Not ready ({listed}); use another node or wait.", reasons=reasons)
    return ReadyNode(id=call.host.node_id)


@operations.answers("node.status", get("/status"))
async def status(call: Call, body: NoQuery) -> Status:
    """Tell all that this node knows of itself and its groups."""
    here = call.host
    statuses = {group: node.status() for group, node in _nodes(here)}
    return Status(
        id=here.node_id,
        node=here.node_id,
        cluster=here.cluster.id or None,
        pid=os.getpid(),
        data_dir=here.data_dir,
        version=VERSION,
        uptime_s=max((each.uptime_ms for each in statuses.values()), default=0) / 1000,
        members=_members(here, statuses.values()),
        groups={group: _group_status(here, group, each) for group, each in statuses.items()},
        not_ready=_reasons_not_ready(here),
        refused={group: damage.problem for group, damage in here.damaged.items()},
        authentication=bool(here.settings.auth_tokens),
        disk=None if here.disk_space is None else msgspec.convert(asdict(here.disk_space), Disk),
        warnings=warnings(here.settings),
    )


@operations.answers("node.metrics", get("/metrics"), example={"format": "json"})
async def metrics(call: Call, body: MetricsQuery) -> Text | Counted:
    """Give the metrics: Prometheus text; OpenMetrics or JSON by `Accept` or by `format`."""
    accept, wanted = call.accept, body.format
    if wanted == "json" or (wanted is None and _prefers_json(accept)):
        return Counted(metrics=asdict(call.host.metrics.served))
    if wanted is not None:
        accept = _OPENMETRICS if wanted == "openmetrics" else ""
    encode, content_type = _encoder(accept)
    return Text(content_type, encode(call.host.metrics.registry))


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
        return [((group,), group in here.damaged) for group in here.settings.groups]

    def free_bytes() -> Iterable[Row]:
        return [] if here.disk_space is None else [((), here.disk_space.free_bytes)]

    here.metrics.mufakat_group_refused.watch(refused)
    here.metrics.mufakat_disk_free_bytes.watch(free_bytes)


def watch_idempotency(metrics: Metrics, nodes: Mapping[str, "RaftNode"]) -> None:
    """Let a scrape read how full the tables of kept answers are."""

    def watch(family: GaugeFamily | CounterFamily, value: Callable[[IdempotencyTable], float]) -> None:
        def read() -> Iterable[Row]:
            return [((group,), value(machine_of(node).idempotency)) for group, node in nodes.items()]

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
    reasons.update((group, str(damage)) for group, damage in here.damaged.items())
    return {group: reason for group, reason in reasons.items() if reason}


def _group_health(here: Host, found: "NodeStatus") -> GroupHealth:
    number = _ROLE_NUMBERS[found.core.role]
    return GroupHealth(
        id=here.node_id,
        node=here.node_id,
        role=number,
        role_name=_ROLE_NAMES[number],
        term=found.core.term,
        leader=found.core.leader or None,
        commit_index=found.core.commit_index,
        applied_index=found.applied_index,
    )


def _group_status(here: Host, group: str, found: "NodeStatus") -> GroupStatus:
    """The fields of `/health` and what else the replica, its core and its machine tell, under their own names."""
    machine = machine_of(here.nodes[group])
    further = {**asdict(found), "version": machine.version, "known": machine.known}
    core = further.pop("core")
    core["vote"] = core["vote"] or None
    further["life"] = further["life"] or None
    further["uptime_s"] = further.pop("uptime_ms") / 1000
    health = msgspec.structs.asdict(_group_health(here, found))
    return msgspec.convert({**core, **further, "ready": found.ready, **health}, GroupStatus)


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
