"""Playing a list of recorded steps against a cluster, as a person at a shell would.

A step names what is sent and what the answer must hold. Where no node answers, or one says that the cluster is not
able right now (5xx), the step is sent again until its time is over: a person presses the key again. A wrong answer
is never repeated. What changes something carries an Idempotency-Key, the one thing that was not recorded: a message
that was delivered in an answer that got lost would not come a second time.
"""

import http.client
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

#: What Windows PowerShell sends along with every request.
HEADERS = {
    "User-Agent": "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1",
    "Connection": "Keep-Alive",
}

#: PowerShell's content type for a POST without a body.
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Step:
    """One request and what must come back."""

    port: int
    path: str
    #: What the answer must hold: of an object these keys, of a text these parts.
    expect: dict[str, Any] | tuple[str, ...]
    #: None makes it a GET, () a POST without a body, anything else a POST of that as JSON.
    body: Any = None
    #: Fields of the answer that later bodies use as "$name".
    save: dict[str, str] = field(default_factory=dict)
    within_seconds: float = 20.0


def play(steps: list[Step], *, port_offset: int) -> None:
    """Send every step in turn.

    Raises:
        AssertionError: an answer was not as expected, or none came in time.
    """
    saved: dict[str, Any] = {}
    for number, step in enumerate(steps, 1):
        where = f"step {number}, {step.path} on {step.port}"
        status, text = _send_until_answered(step, port_offset, saved, where)
        assert status == 200, f"{where}: HTTP {status} {text}"
        if isinstance(step.expect, tuple):
            missing = [part for part in step.expect if part not in text]
            assert not missing, f"{where}: {missing} not in the answer"
        else:
            answer = json.loads(text)
            check_holds(answer, step.expect, where)
            saved |= {name: answer[name_there] for name, name_there in step.save.items()}


def _send_until_answered(step: Step, port_offset: int, saved: dict[str, Any], where: str) -> tuple[int, str]:
    headers = HEADERS if step.body is None else {**HEADERS, "Idempotency-Key": uuid.uuid4().hex}
    until = time.monotonic() + step.within_seconds
    while True:
        try:
            status, text = _send(step, port_offset, saved, headers)
        except (OSError, http.client.HTTPException) as error:
            status, text = 0, repr(error)
        if 0 < status < 500:
            return status, text
        assert time.monotonic() < until, f"{where}: {status} {text} after {step.within_seconds} s"
        time.sleep(0.1)


def _send(
    step: Step, port_offset: int, saved: dict[str, Any], headers: dict[str, str]
) -> tuple[int, str]:
    content = "" if step.body in (None, ()) else json.dumps(step.body)
    for name, value in saved.items():
        content = content.replace(f'"${name}"', json.dumps(value))
    if step.body is not None:
        headers = {**headers, "Content-Type": "application/json" if content else FORM}
    connection = http.client.HTTPConnection("127.0.0.1", step.port + port_offset, timeout=5)
    try:
        connection.request("GET" if step.body is None else "POST", step.path, content or None, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def check_holds(answer: Any, expect: Any, where: str) -> None:
    """Check that `answer` holds all of `expect`: a type, a test function, a value, or an object of these.

    Raises:
        AssertionError: it does not; the message says where.
    """
    if isinstance(expect, dict):
        assert isinstance(answer, dict), f"{where}: {answer!r} is no object"
        for name, part in expect.items():
            assert name in answer, f"{where}: {name} is missing in {answer!r}"
            check_holds(answer[name], part, f"{where}, {name}")
    elif callable(expect):
        assert expect(answer), f"{where}: {answer!r} is not as expected"
    else:
        assert (type(answer), answer) == (type(expect), expect), f"{where}: {answer!r}, not {expect!r}"
