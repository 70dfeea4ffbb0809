"""Who belongs to the groups of this node, and changing that.

A change may be asked of any node of the group, whoever leads, and without `group` it is made in every group of the
node that is asked, one after the other. Asking again for what is so already does no harm, so a request whose answer
was lost is simply sent again. docs/membership.md tells how servers come and go.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from common.api_error import bad_request
from common.config import PEER_PORT_OFFSET
from common.logs import get_logger
from common.parsers import join_address, parse_address, parse_node_id
from raft.errors import MembershipRefused, OutcomeUnknown, RaftError
from raft.membership import ADD, REMOVE, MemberChange
from raft.node import RaftNode
from services.node.groups import GroupQuery, asked_groups
from services.operations.answers import Answer, NotDone
from services.operations.call import Call
from services.operations.operation import Operations, get, post
from services.operations.refusals import READ, refused, sentence_of

logger = get_logger("services.node.members")
operations = Operations()


class AddMember(Struct, forbid_unknown_fields=True):
    """A server that is to belong to the group, and where its clients reach it."""

    id: str
    address: str
    group: str | None = None


class RemoveMember(Struct, forbid_unknown_fields=True):
    id: str
    group: str | None = None


class MembersBody(Struct, forbid_unknown_fields=True):
    """One of the two."""

    add: Annotated[AddMember | None, Meta(description='`{"id", "address", "group"?}`')] = None
    remove: Annotated[RemoveMember | None, Meta(description='`{"id", "group"?}`; one of the two')] = None


class Member(Struct):
    id: str
    #: None where nobody knows it.
    address: str | None
    role: Literal["voter", "learner"]
    #: Whether the group knows its data directory.
    bound: bool


class GroupMembers(Struct):
    leader: str | None
    members: list[Member]


class Members(Answer, kw_only=True):
    """By group: `leader`, and of each member `id`, `address`, `role` (`voter` or `learner`), `bound`: whether the
    group knows its data directory."""

    groups: dict[str, GroupMembers]


class MembersChanged(Answer, kw_only=True):
    """`changed` is false where it was so already; `groups` as `GET` shows them, after the change."""

    changed: bool
    groups: dict[str, GroupMembers]


class NotAMember(NotDone, kw_only=True):
    """It is no member of any of these groups."""

    reason: Literal["not_a_member"] = "not_a_member"


@operations.answers(
    "admin.members", get("/admin/members"), refuses=("storage_failed",), right="admin", example={"group": "lock"}
)
async def list_members(call: Call, body: GroupQuery) -> Members:
    """Show who belongs to the groups of this node.

    As this node knows it; on a node that is behind, an earlier state of things.
    """
    return Members(groups=_all_described(call, asked_groups(call, body.group)))


@operations.answers(
    "admin.change_members",
    post("/admin/members"),
    refuses=(*READ, "membership_refused"),
    right="admin",
    example={"add": {"id": "node4", "address": "10.0.0.4:8000"}},
)
async def change_members(call: Call, body: MembersBody) -> MembersChanged | NotAMember:
    """Add or remove one server."""
    if (body.add is None) == (body.remove is None):
        raise bad_request("Give exactly one of `add` and `remove`.")
    change = _change(body)
    if change.action == ADD and not call.host.settings.cluster_secret:
        raise refused(
            "membership_refused", "Set MUFAKAT_CLUSTER_SECRET on this node first: its nodes know each other by it."
        )
    asked = body.add or body.remove
    groups = asked_groups(call, asked.group if asked is not None else None)
    changed: dict[str, bool] = {}
    for group in groups:
        try:
            changed[group] = await call.node(group).membership.change(change)
        except MembershipRefused as refusal:
            done = [name for name, anew in changed.items() if anew]
            raise refused("membership_refused", sentence_of(refusal), group=group, done=done) from refusal
        except RaftError as error:
            if not any(changed.values()):
                raise
            # Not done here, and done in another group: only to ask again tells what is so.
            raise OutcomeUnknown(f"{group}: {error}") from error
    logger.info("members changed", action=change.action, member=change.member, groups=changed)
    if change.action == REMOVE and not any(changed.values()):
        return NotAMember(detail=f"{change.member} is no member of {', '.join(groups)}.")
    return MembersChanged(changed=any(changed.values()), groups=_all_described(call, groups))


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


def _all_described(call: Call, groups: tuple[str, ...]) -> dict[str, GroupMembers]:
    return {group: _described(call.node(group)) for group in groups}


def _described(node: RaftNode) -> GroupMembers:
    configuration, leader = node.core.configuration, node.core.state.leader
    return GroupMembers(
        leader=leader or None,
        members=[
            Member(
                id=member,
                address=configuration.address_of(member) or None,
                role="voter" if member in configuration.voters else "learner",
                bound=bool(configuration.incarnation_of(member)),
            )
            for member in configuration.members
        ],
    )
