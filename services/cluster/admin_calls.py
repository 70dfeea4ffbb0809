"""Requests that need the role `admin`, made by the commands to the nodes of a cluster."""

import http.client
import json
from collections.abc import Mapping
from typing import Any

from common.config import SettingsError, load_settings
from services.cluster.errors import ClusterError, UsageError

#: A change of members may take that long, a handover of leadership included.
CALL_TIMEOUT_SECONDS = 15.0
ANSWER_BYTES_MAX = 4 << 20


def admin_headers(environ: Mapping[str, str]) -> dict[str, str]:
    """What proves to a node that we may ask for everything: the first admin token in MUFAKAT_AUTH_TOKENS.

    Raises:
        UsageError: that variable cannot be read.
    """
    text = environ.get("MUFAKAT_AUTH_TOKENS", "")
    try:
        tokens = load_settings({"MUFAKAT_AUTH_TOKENS": text}).auth_tokens
    except SettingsError as error:
        raise UsageError(f"{error}.") from error
    token = next((token for role, token in tokens if role == "admin"), None)
    return {"Authorization": f"Bearer {token}"} if token else {}


def admin_call(
    address: tuple[str, int], path: str, body: Any = None, *, headers: Mapping[str, str]
) -> dict[str, Any]:
    """The decoded answer to a GET, or to a POST where there is a body.

    Raises:
        ClusterError: there was no answer, or it was a refusal; the text carries the node's sentence.
    """
    host, port = address
    connection = http.client.HTTPConnection(host, port, timeout=CALL_TIMEOUT_SECONDS)
    method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
    try:
        connection.request(method, path, content, {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read(ANSWER_BYTES_MAX))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ClusterError(f"{host}:{port} did not answer to {method} {path}: {error!r}.") from error
    finally:
        connection.close()
    if response.status != 200 or not isinstance(answer, dict):
        detail = answer.get("detail", "") if isinstance(answer, dict) else ""
        raise ClusterError(f"{host}:{port} answered {response.status} to {method} {path}: {detail}")
    return answer
