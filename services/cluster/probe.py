"""What the nodes themselves say, over HTTP.

Standard library only, and blocking: these calls are a few small requests to this machine, and the command that makes
them must start fast. Nothing here raises because a node is away; that is an answer, too. A node of another cluster
may answer on our ports, so the caller compares the cluster's id.
"""

import http.client
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services.cluster.topology import Node

#: How long a node may take to answer before it counts as away.
PROBE_TIMEOUT_SECONDS = 2.0

#: Largest answer that is read; a status takes a few thousand bytes.
ANSWER_BYTES_MAX = 1_048_576

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class GroupTold:
    """The state of one group, as one node sees it."""

    #: "leader", "follower" or "candidate".
    role: str
    term: int
    #: The leader's id, as far as the node knows; None while there is none.
    leader: str | None
    #: "voter", "learner" or "none"; empty if the node does not say.
    membership: str = ""
    #: Entries that it knows to be committed and has not applied.
    lag: int = 0
    commit_index: int = 0
    #: Bytes of the log on the node's disk.
    log_bytes: int = 0
    ready: bool = False
    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    #: Of the log: what all members know, and what this node does; 0 where it does not say.
    version: int = 0
    known: int = 0

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "GroupTold":
        return cls(
            role=str(fields.get("role_name", "")),
            term=int(fields.get("term", 0)),
            leader=fields.get("leader") or None,
            membership=str(fields.get("membership", "")),
            lag=int(fields.get("lag", 0)),
            commit_index=int(fields.get("commit_index", 0)),
            log_bytes=int(fields.get("log_bytes", 0)),
            ready=bool(fields.get("ready", False)),
            voters=tuple(fields.get("voters", ())),
            learners=tuple(fields.get("learners", ())),
            version=int(fields.get("version", 0)),
            known=int(fields.get("known", 0)),
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What `/status` says, and which node said it."""

    id: str
    #: Id of the cluster; None if the node knows none.
    cluster: str | None
    pid: int | None = None
    data_dir: str = ""
    version: str = ""
    #: None if the node does not say.
    authentication: bool | None = None
    disk_free_bytes: int | None = None
    groups: dict[str, GroupTold] = field(default_factory=dict)
    #: Why it is not ready, by group; empty if it is ready.
    not_ready: dict[str, str] = field(default_factory=dict)
    #: What is damaged, by group.
    refused: dict[str, str] = field(default_factory=dict)
    #: host:port of the members of its groups, by id; None if a member told nobody.
    addresses: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Told":
        disk = answer.get("disk") or {}
        groups = {name: GroupTold.of(fields) for name, fields in answer.get("groups", {}).items()}
        return cls(
            id=str(answer.get("id", "")),
            cluster=answer.get("cluster") or None,
            pid=answer.get("pid"),
            data_dir=str(answer.get("data_dir", "")),
            version=str(answer.get("version", "")),
            authentication=answer.get("authentication"),
            disk_free_bytes=disk.get("free_bytes"),
            groups=groups,
            not_ready=dict(answer.get("not_ready", {})),
            refused=dict(answer.get("refused", {})),
            addresses=dict(answer.get("members", {})),
        )


def get_json(
    host: str,
    port: int,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float = PROBE_TIMEOUT_SECONDS,
) -> tuple[int, Any]:
    """One GET: the status and the decoded answer. (0, None) if the node cannot be reached; an answer that is not JSON
    counts as None."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        text = response.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException, ValueError):
        # ValueError: a host name that cannot be looked up.
        return 0, None
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


def ask_health(host: str, port: int) -> tuple[str, str | None] | str:
    """The ids of the node there and of its cluster, which it tells everybody; else why it says nothing, in words."""
    status, answer = get_json(host, port, "/health")
    if status == 0:
        return "does not answer"
    if status != 200 or not isinstance(answer, dict):
        return f"answers {status} to /health: another program, or another version of mufakat"
    return str(answer.get("id", "")), answer.get("cluster") or None


def of_cluster(id: str | None) -> str:
    """The cluster that a node names, in words."""
    return f"the cluster {id}" if id else "a cluster without an id"


def ask_status(host: str, port: int, headers: Mapping[str, str] | None = None) -> Told | str:
    """What the node there says about itself; else why it says nothing, in words."""
    status, answer = get_json(host, port, "/status", headers=headers)
    if status == 0:
        return "does not answer"
    if status in (401, 403):
        return "does not know the admin token of this cluster"
    if status != 200 or not isinstance(answer, dict) or "groups" not in answer:
        return f"answers {status} to /status: another program, or another version of mufakat"
    try:
        return Told.of(answer)
    except (TypeError, ValueError, AttributeError):
        return "answers what cannot be read to /status: another version of mufakat"


def ask_all(nodes: Iterable[Node], question: Callable[[Node], Answer]) -> dict[str, Answer]:
    """The answers of all nodes, by node id in the given order; all are asked at the same time."""
    asked = tuple(nodes)
    if not asked:
        return {}
    with ThreadPoolExecutor(max_workers=len(asked)) as pool:
        return dict(zip((node.id for node in asked), pool.map(question, asked), strict=True))
