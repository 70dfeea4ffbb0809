"""Who belongs to the groups of this node, and changing that: `/admin/members`.

    GET  /admin/members[?group=]   the members of each group, as this node knows them
    POST /admin/members            {"add": {"id", "address", "group"?}} or {"remove": {"id", "group"?}}

A change may be asked of any node of the group, whoever leads, and without `group` it is made in every group of the
node that is asked, one after the other. Asking again for what is so already does no harm, so a request whose answer
was lost is simply sent again. docs/membership.md tells how servers come and go.
"""

from typing import Any

import msgspec
from aiohttp import web

from common.config import PEER_PORT_OFFSET
from common.logs import get_logger
from common.parsers import join_address, parse_address, parse_node_id
from common.web import bad_request, json_response, read_body, read_query
from raft.errors import MembershipRefused
from raft.membership import ADD, REMOVE, MemberChange
from raft.node import RaftNode
from services.node.host import Host, host
from services.operations.refusals import api_error

logger = get_logger("services.node.members")


class MembersQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which group; without it, all of this node."""

    group: str | None = None


class AddMember(msgspec.Struct, forbid_unknown_fields=True):
    """A server that is to belong to the group, and where its clients reach it."""

    id: str
    address: str
    group: str | None = None


class RemoveMember(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    group: str | None = None


class MembersBody(msgspec.Struct, forbid_unknown_fields=True):
    """One of the two."""

    add: AddMember | None = None
    remove: RemoveMember | None = None


def routes() -> list[web.RouteDef]:
    """The routes of every node, whatever groups it hosts."""
    return [web.get("/admin/members", list_members), web.post("/admin/members", change_members)]


async def list_members(request: web.Request) -> web.Response:
    """What this node knows; on a node that is behind, an earlier state of things."""
    here = host(request)
    groups = _groups(here, read_query(request, MembersQuery).group)
    return json_response({"ok": True, "groups": {group: _described(here.nodes[group]) for group in groups}})


async def change_members(request: web.Request) -> web.Response:
    """Add or remove one server."""
    here = host(request)
    body = await read_body(request, MembersBody)
    if (body.add is None) == (body.remove is None):
        raise bad_request("Give exactly one of `add` and `remove`.")
    asked = body.add or body.remove
    change = _change(body)
    if change.action == ADD and not here.settings.cluster_secret:
        raise api_error(
            "membership_refused", "Set MUFAKAT_CLUSTER_SECRET on this node first: its nodes know each other by it."
        )
    groups = _groups(here, asked.group)
    changed = {}
    for group in groups:
        try:
            changed[group] = await here.nodes[group].membership.change(change)
        except MembershipRefused as refusal:
            done = [name for name, anew in changed.items() if anew]
            raise api_error("membership_refused", _sentence(refusal), group=group, done=done) from refusal
    logger.info("members changed", action=change.action, member=change.member, groups=changed)
    if change.action == REMOVE and not any(changed.values()):
        detail = f"{change.member} is no member of {', '.join(groups)}."
        return json_response({"ok": False, "reason": "not_a_member", "detail": detail})
    return json_response(
        {
            "ok": True,
            "changed": any(changed.values()),
            "groups": {group: _described(here.nodes[group]) for group in groups},
        }
    )


def _change(body: MembersBody) -> MemberChange:
    if body.remove is not None:
        return MemberChange(REMOVE, _checked("remove.id", parse_node_id, body.remove.id))
    assert body.add is not None
    address = _checked("add.address", parse_address, body.add.address)
    if not 1 <= address[1] <= 65_535 - PEER_PORT_OFFSET:
        raise bad_request(f"`add.address` must have a client port from 1 to {65_535 - PEER_PORT_OFFSET}.")
    return MemberChange(ADD, _checked("add.id", parse_node_id, body.add.id), join_address(*address))


def _checked(field: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise bad_request(f"`{field}`: {error}.") from error


def _groups(here: Host, group: str | None) -> tuple[str, ...]:
    hosted = here.settings.groups
    if group is not None and group not in hosted:
        raise bad_request(f"`group` must be one of {', '.join(hosted)}, which this node hosts.")
    return hosted if group is None else (group,)


def _described(node: RaftNode) -> dict[str, Any]:
    configuration, leader = node.core.configuration, node.core.state.leader
    return {
        "leader": leader or None,
        "members": [
            {
                "id": member,
                "address": configuration.address_of(member) or None,
                "role": "voter" if member in configuration.voters else "learner",
                "bound": bool(configuration.incarnation_of(member)),
            }
            for member in configuration.members
        ],
    }


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
