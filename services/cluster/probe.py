"""What the nodes themselves say, over HTTP: `/health`, `/readyz`, `/livez`.

Standard library only, and blocking: these calls are a handful of small requests to this machine, and the
command that makes them must start fast. Nothing here raises because a node is away; that is an answer too.
"""

import http.client
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.cluster.topology import Node

#: How long a node may take to answer before it counts as away.
PROBE_TIMEOUT_SECONDS = 2.0

#: Largest answer that is read; a health answer takes some hundred bytes.
ANSWER_BYTES_MAX = 1_048_576

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class GroupHealth:
    """How one group stands, as one node sees it."""

    #: "leader", "follower" or "candidate".
    role: str
    term: int
    #: The leader's id as far as the node knows; None while there is none.
    leader: str | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a node would take traffic now."""

    is_ready: bool
    #: Why not, in the node's words; empty where it is ready.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """What `/health` told."""

    #: The group that the node's flat fields speak of: its first one.
    first: GroupHealth
    groups: dict[str, GroupHealth] = field(default_factory=dict)


def get_json(
    host: str, port: int, path: str, *, timeout_seconds: float = PROBE_TIMEOUT_SECONDS
) -> tuple[int, Any]:
    """One GET: the status and the decoded answer. (0, None) where the node cannot be reached; an answer that
    is no JSON counts as None."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


def _group_health(fields: dict[str, Any]) -> GroupHealth:
    return GroupHealth(
        role=str(fields.get("role_name", "")),
        term=int(fields.get("term", 0)),
        leader=fields.get("leader") or None,
    )


def health(host: str, port: int) -> Health | None:
    """What the node says of itself; None where it cannot be reached."""
    status, answer = get_json(host, port, "/health")
    if status != 200 or not isinstance(answer, dict):
        return None
    groups = {name: _group_health(fields) for name, fields in answer.get("groups", {}).items()}
    return Health(first=_group_health(answer), groups=groups)


def readiness(host: str, port: int) -> Readiness:
    """Whether the node's every group knows a leader and has caught up."""
    status, answer = get_json(host, port, "/readyz")
    if status == 200:
        return Readiness(True)
    if status == 0:
        return Readiness(False, "does not answer yet")
    return Readiness(False, _reason(answer) or f"answers {status}")


def _reason(answer: Any) -> str:
    """Why a node is not ready: the reasons of its groups where it gives them, else its sentence."""
    if not isinstance(answer, dict):
        return ""
    reasons = answer.get("reasons")
    if isinstance(reasons, dict) and reasons:
        return "; ".join(f"{group}: {why}" for group, why in reasons.items())
    return str(answer.get("detail", ""))


def is_live(host: str, port: int) -> bool:
    """Whether the node's loop turns."""
    return get_json(host, port, "/livez")[0] == 200


def ask_all(nodes: Iterable[Node], question: Callable[[Node], Answer]) -> dict[str, Answer]:
    """The answers of all nodes, asked at the same time, by node id in the order given."""
    asked = tuple(nodes)
    if not asked:
        return {}
    with ThreadPoolExecutor(max_workers=len(asked)) as pool:
        return dict(zip((node.id for node in asked), pool.map(question, asked), strict=True))
