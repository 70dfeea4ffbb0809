"""The limits of this node's groups: what they are, how much of them is taken, and changing them.

A change is one entry of the group's log (`services.replicated.limits`) and so holds on every node from there on;
null takes a limit back to its default. Nothing that is there is taken away by it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from common.api_error import bad_request
from common.logs import get_logger
from common.metrics import Metrics, Row
from raft.node import RaftNode
from services.node.groups import GroupQuery, asked_groups, the_group
from services.operations.answers import Answer, NotKept, done_of
from services.operations.call import Call
from services.operations.operation import Operations, get, post
from services.operations.refusals import READ, WRITE
from services.replicated.limits import Limit, SetLimits
from services.replicated.machine import ReplicatedMachine, machine_of

logger = get_logger("services.node.limits")
operations = Operations()


class LimitsBody(Struct, forbid_unknown_fields=True):
    limits: Annotated[dict[str, int | None], Meta(description="numbers by name, null for the default")]
    group: Annotated[str | None, Meta(description="may be left out where the node hosts one only")] = None


class ShownLimit(Struct):
    """`used` is null where that is not one number."""

    value: int
    default: int
    least: int
    most: int
    used: int | None
    what: str


class ShownLimits(Answer, kw_only=True):
    """By group, of each limit: `value`, `default`, `least`, `most`, `used` (null where that is not one number),
    `what`."""

    groups: dict[str, dict[str, ShownLimit]]


class LimitsSet(Answer, kw_only=True):
    """What holds from now on."""

    limits: dict[str, int]
    group: str


def watch_limits(metrics: Metrics, nodes: Mapping[str, RaftNode]) -> None:
    """Let a scrape read the limits of the groups that `nodes` then holds."""

    def rows(read: Callable[[ReplicatedMachine], Mapping[str, int]]) -> Callable[[], Iterable[Row]]:
        return lambda: [
            ((group, name), value) for group, node in nodes.items() for name, value in read(machine_of(node)).items()
        ]

    metrics.mufakat_limit.watch(rows(lambda machine: machine.limits.in_force))
    metrics.mufakat_limit_used.watch(rows(lambda machine: machine.used()))


@operations.answers(
    "admin.limits", get("/admin/limits"), refuses=READ, right="admin", example={"group": "queue"}
)
async def show_limits(call: Call, body: GroupQuery) -> ShownLimits:
    """Show the limits of this node's groups, or of one.

    Linearizable: a change that was answered shows.
    """
    groups = {name: await _described(call, name) for name in asked_groups(call, body.group)}
    return ShownLimits(groups=groups)


@operations.answers(
    "admin.set_limits",
    post("/admin/limits"),
    refuses=WRITE,
    right="admin",
    example={"group": "queue", "limits": {"bytes_max": 536870912, "queues_max": None}},
)
async def set_limits(call: Call, body: LimitsBody) -> LimitsSet | NotKept:
    """Change some limits of one group, all or none."""
    group = the_group(call, body.group)
    declared = machine_of(call.node(group)).limits.declared
    if not body.limits:
        raise bad_request(f"The field `limits` must name at least one of {', '.join(declared)}.")
    for name, value in body.limits.items():
        _check_limit(declared, group, name, value)
    result = await call.replicate(SetLimits(tuple(sorted(body.limits.items()))), group=group)
    logger.warning("limits were set", group=group, limits=body.limits, asked_from=call.asked_from)
    return done_of({**result, "group": group}, LimitsSet)


def _check_limit(declared: Mapping[str, Limit], group: str, name: str, value: int | None) -> None:
    """Raises ApiError 400 where there is no such limit, or it cannot have this value."""
    limit = declared.get(name)
    if limit is None:
        raise bad_request(f"The group `{group}` has no limit `{name[:60]}`; it has {', '.join(declared)}.")
    if value is not None and not limit.least <= value <= limit.most:
        raise bad_request(f"The limit `{name}` must be from {limit.least} to {limit.most}, or null for its default.")


async def _described(call: Call, group: str) -> dict[str, ShownLimit]:
    await call.linearizable(group)
    machine = machine_of(call.node(group))
    return msgspec.convert(machine.limits.described(machine.used()), dict[str, ShownLimit])
