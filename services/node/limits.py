"""The limits of this node's groups: what they are, how much of them is taken, and changing them.

    GET  /admin/limits[?group=]    by group: of each limit its value, default, legal range, and what is used of it
    POST /admin/limits             {"group"?, "limits": {"bytes_max": 536870912, "queues_max": null}}

A change is one entry of the group's log (`services.replicated.limits`) and so holds on every node from there on;
null takes a limit back to its default. Nothing that is there is taken away by it. Role `admin`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from common.logs import get_logger
from common.metrics import Metrics, Row
from common.web import bad_request, json_response, read_body, read_query
from raft.node import RaftNode
from services.node.host import host
from services.operations.call import group_node, linearizable, replicate
from services.replicated.envelope import ReplicatedMachine
from services.replicated.limits import Limit, SetLimits

logger = get_logger("services.node.limits")


class LimitsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which group; without it, all of this node."""

    group: str | None = None


class LimitsBody(msgspec.Struct, forbid_unknown_fields=True):
    """New numbers by name; `group` may be left out where the node hosts one only."""

    limits: dict[str, int | None]
    group: str | None = None


def routes() -> list[web.RouteDef]:
    """The routes of every node, whatever groups it hosts."""
    return [web.get("/admin/limits", show_limits), web.post("/admin/limits", set_limits)]


def watch_limits(metrics: Metrics, nodes: Mapping[str, RaftNode]) -> None:
    """Let a scrape read the limits of the groups that `nodes` then holds."""

    def rows(read: Callable[[ReplicatedMachine], Mapping[str, int]]) -> Callable[[], Iterable[Row]]:
        return lambda: [
            ((group, name), value) for group, node in nodes.items() for name, value in read(node.machine).items()
        ]

    metrics.mufakat_limit.watch(rows(lambda machine: machine.limits.in_force))
    metrics.mufakat_limit_used.watch(rows(lambda machine: machine.used()))


async def show_limits(request: web.Request) -> web.Response:
    """Linearizable: a change that was answered shows."""
    group = read_query(request, LimitsQuery).group
    groups = host(request).settings.groups if group is None else (_hosted(request, group),)
    return json_response({"ok": True, "groups": {name: await _described(request, name) for name in groups}})


async def set_limits(request: web.Request) -> web.Response:
    """Change some limits of one group, all or none."""
    body = await read_body(request, LimitsBody)
    group = _hosted(request, body.group)
    declared = group_node(request, group).machine.limits.declared
    if not body.limits:
        raise bad_request(f"The field `limits` must name at least one of {', '.join(declared)}.")
    for name, value in body.limits.items():
        _check_limit(declared, group, name, value)
    result = await replicate(request, group, SetLimits(tuple(sorted(body.limits.items()))))
    logger.warning("limits were set", group=group, limits=body.limits, asked_from=request.remote)
    return json_response({**result, "group": group})


def _check_limit(declared: Mapping[str, Limit], group: str, name: str, value: int | None) -> None:
    """Raises ApiError 400 where there is no such limit, or it cannot have this value."""
    limit = declared.get(name)
    if limit is None:
        raise bad_request(f"The group `{group}` has no limit `{name[:60]}`; it has {', '.join(declared)}.")
    if value is not None and not limit.least <= value <= limit.most:
        raise bad_request(f"The limit `{name}` must be from {limit.least} to {limit.most}, or null for its default.")


def _hosted(request: web.Request, group: str | None) -> str:
    """Raises ApiError 400 where it is not clear which group of this node is meant."""
    hosted = host(request).settings.groups
    if group is None and len(hosted) == 1:
        return hosted[0]
    if group not in hosted:
        raise bad_request(f"`group` must be one of {', '.join(hosted)}.")
    return group


async def _described(request: web.Request, group: str) -> dict[str, Any]:
    await linearizable(request, group)
    machine = group_node(request, group).machine
    return machine.limits.described(machine.used())
