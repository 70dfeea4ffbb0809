"""What the commands ask the nodes of their own cluster, and no others.

Another cluster may listen on our ports: one that was started from another folder. So the node that answers first says
its cluster, and we compare that before we ask or change anything.
"""

import http.client
import json
from collections.abc import Mapping
from typing import Any

from common.config import SettingsError, load_settings
from common.parsers import join_address, parse_address
from services.cluster.backend import Backend
from services.cluster.errors import ClusterError, InTheWay, UsageError
from services.cluster.probe import Told, ask_all, ask_health, ask_status, of_cluster
from services.cluster.topology import Node

#: A change of members may take this long in each group, with a handover of leadership.
CALL_TIMEOUT_SECONDS = 30.0
ANSWER_BYTES_MAX = 4 << 20

#: Statuses after which another node may have a better answer.
ELSEWHERE = frozenset({0, 429, 502, 503, 504})


def admin_headers(settings: Mapping[str, str]) -> dict[str, str]:
    """Headers that prove to a node that we may ask for everything: they carry the first admin token in
    MUFAKAT_AUTH_TOKENS.

    Args:
        settings: those of the cluster; the environment if we ask a node of any cluster.

    Raises:
        UsageError: that variable cannot be read.
    """
    text = settings.get("MUFAKAT_AUTH_TOKENS", "")
    try:
        tokens = load_settings({"MUFAKAT_AUTH_TOKENS": text}).auth_tokens
    except SettingsError as error:
        raise UsageError(f"{error}.") from error
    token = next((token for role, token in tokens if role == "admin"), None)
    return {"Authorization": f"Bearer {token}"} if token else {}


def address_of(text: str) -> tuple[str, int]:
    """Host and port from what somebody typed, also `[::1]:8000`.

    Raises:
        UsageError: it is no address.
    """
    try:
        return parse_address(text)
    except ValueError:
        raise UsageError(
            f"`{text}` is no address; write it as HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000."
        ) from None


class Calls:
    """Questions to the nodes of one cluster that runs."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.headers = admin_headers(backend.cluster.settings)

    def address(self, node: Node) -> tuple[str, int]:
        """The address at which the node serves its clients, seen from here."""
        return node.host or self._backend.host, node.client_port

    def told(self, node: Node) -> Told | str:
        """What the node says about itself; else why it says nothing.

        Raises:
            InTheWay: a node of another cluster answers there.
        """
        if self.headers:
            # A listener gets no token of ours before it has said that it is of this cluster.
            known = ask_health(*self.address(node))
            if isinstance(known, str):
                return known
            self._check(node, *known)
        answer = ask_status(*self.address(node), self.headers)
        if isinstance(answer, str):
            return answer
        self._check(node, answer.id, answer.cluster)
        if not self._backend.is_own(node, answer.data_dir):
            raise InTheWay(
                f"{join_address(*self.address(node))} is a copy of {node.id} that runs on {answer.data_dir}, and not "
                "the node of this home. End it, or move one of the two with `--port-offset`."
            )
        return answer

    def told_by_all(self, nodes: tuple[Node, ...]) -> dict[str, Told | str]:
        """What each node says; for a node of another cluster, a sentence. Raises nothing."""

        def ask(node: Node) -> Told | str:
            try:
                return self.told(node)
            except InTheWay as error:
                return str(error)

        return ask_all(nodes, ask)

    def ask(self, node: Node, path: str, body: Any = None) -> dict[str, Any]:
        """The decoded answer of a node that is one of ours: to a POST if there is a body, else to a GET.

        Raises:
            InTheWay: another cluster answers there.
            ClusterError: there was no answer, or it was a refusal; the text carries the node's sentence.
        """
        told = self.told(node)
        if isinstance(told, str):
            raise ClusterError(f"{node.id} {told}. `mufakat status` shows which nodes run.")
        return admin_call(self.address(node), path, body, headers=self.headers)

    def _check(self, node: Node, id: str, cluster: str | None) -> None:
        ours = self._backend.cluster.id
        if cluster != ours or id != node.id:
            raise InTheWay(
                f"{join_address(*self.address(node))} is {id or 'a node'} of {of_cluster(cluster)}, and not "
                f"{node.id} of this one ({ours}). End it, or move this cluster: `mufakat down`, then "
                "`mufakat up --port-offset 1000`."
            )


def call(
    address: tuple[str, int], path: str, body: Any = None, *, headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    """One request, a POST if there is a body: the status and the answer; (0, {}) if nobody answered."""
    connection = http.client.HTTPConnection(*address, timeout=CALL_TIMEOUT_SECONDS)
    method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
    try:
        connection.request(method, path, content, {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException, ValueError):
        # ValueError: a host name that cannot be looked up.
        return 0, {}
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    return response.status, answer if isinstance(answer, dict) else {}


def admin_call(
    address: tuple[str, int], path: str, body: Any = None, *, headers: Mapping[str, str]
) -> dict[str, Any]:
    """As `call`, but it returns only a success.

    Raises:
        ClusterError: there was no answer, or it was a refusal; the text carries the node's sentence.
    """
    status, answer = call(address, path, body, headers=headers)
    named = join_address(*address)
    if status == 0:
        raise ClusterError(f"{named} did not answer to {path} within {CALL_TIMEOUT_SECONDS:.0f} s, or broke off.")
    if status != 200:
        raise ClusterError(str(answer.get("detail") or f"{named} answered {status} to {path}."))
    return answer
