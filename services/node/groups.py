"""Which groups of a node a request is about."""

from typing import Annotated

from msgspec import Meta, Struct

from common.api_error import bad_request
from services.operations.call import Call


class GroupQuery(Struct, forbid_unknown_fields=True):
    """None: all groups of the node."""

    group: Annotated[str | None, Meta(description="none: all of this node")] = None


class OneGroup(Struct, forbid_unknown_fields=True):
    """None: the group of a node that hosts one only."""

    group: Annotated[str | None, Meta(description="may be left out where the node hosts one only")] = None


def asked_groups(call: Call, group: str | None) -> tuple[str, ...]:
    """Raises: ApiError 400, this node does not host it."""
    return call.host.settings.groups if group is None else (the_group(call, group),)


def the_group(call: Call, group: str | None) -> str:
    """Raises: ApiError 400, this node does not host it, or it is not clear which one is meant."""
    hosted = call.host.settings.groups
    if group is None and len(hosted) == 1:
        return hosted[0]
    if group not in hosted:
        raise bad_request(f"`group` must be one of {', '.join(hosted)}, which this node hosts.")
    return group
