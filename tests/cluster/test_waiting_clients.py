"""Clients that wait at nodes which stop or die, and clients that go: what they hear, and what is held for them."""

import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from json import dumps
from typing import Any

import pytest

from services.cluster.nodes import kill_nodes, stop_nodes
from tests.cluster.tools import Cluster, RunningClock, ask, call, wait_until

pytestmark = pytest.mark.cluster

#: A stop hands leadership over and closes disks; what must not be in it is the wait of a client.
STOP_SECONDS_MAX = 4.0
#: Longer than any test takes.
WAIT_SECONDS = 600


def line_of(port: int, key: str) -> list[str]:
    _, answer = ask(port, f"/lock/status?key={key}")
    return [waiter["owner"] for waiter in answer["waiters"]]


def holders_of(port: int, key: str) -> list[str]:
    _, answer = ask(port, f"/lock/status?key={key}")
    return [holder["owner"] for holder in answer["holders"]]


def follower(cluster: Cluster, group: str) -> str:
    leader = cluster.leader(group)
    return next(node.id for node in cluster.backend.topology.nodes if node.id != leader)


def sent(port: int, path: str, body: Any, key: str) -> socket.socket:
    """A request whose answer nobody reads: the connection may be closed at any moment."""
    content = dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def applied_index(port: int, group: str) -> int:
    return call(port, "/health")[1]["groups"][group]["applied_index"]


def test_a_node_that_stops_answers_its_waiting_clients_and_takes_them_out_of_the_line(combined: Cluster) -> None:
    """503 `stopping` at once, for a lock and for a message; and what they waited for goes to nobody later."""
    stopped = follower(combined, "lock")
    other = combined.ports(without=stopped)[0]
    assert ask(other, "/lock/acquire", {"key": "k", "client_id": "holder"})[1]["ok"]
    answers: dict[str, tuple[int, Any]] = {}

    def wait(path: str, body: dict[str, Any]) -> None:
        answers[path] = call(combined.port(stopped), path, body, timeout_seconds=60)

    waiting = [
        threading.Thread(target=wait, args=("/lock/acquire", {"key": "k", "client_id": "w", "wait": WAIT_SECONDS})),
        threading.Thread(target=wait, args=("/queue/deq", {"queue": "empty", "wait": WAIT_SECONDS})),
    ]
    applied = applied_index(combined.port(stopped), "queue")
    for thread in waiting:
        thread.start()
    wait_until(lambda: line_of(other, "k") == ["w"], timeout_seconds=10, what="the request stands in line")
    wait_until(
        lambda: applied_index(combined.port(stopped), "queue") > applied,
        timeout_seconds=10,
        what="the queue knows who waits",
    )

    with RunningClock() as clock:
        stop_nodes(combined.surroundings, [stopped])
        seconds = clock.seconds()
    for thread in waiting:
        thread.join(10)

    assert {path: (status, answer["reason"]) for path, (status, answer) in answers.items()} == {
        "/lock/acquire": (503, "stopping"),
        "/queue/deq": (503, "stopping"),
    }
    assert seconds < STOP_SECONDS_MAX
    assert line_of(other, "k") == []


def test_a_lock_is_not_granted_to_a_client_whose_node_has_died(combined: Cluster) -> None:
    """The leader ends the wait; the next in line, at a living node, is granted the lock."""
    killed = follower(combined, "lock")
    other = combined.ports(without=killed)[0]
    assert ask(other, "/lock/acquire", {"key": "k", "client_id": "holder"})[1]["ok"]
    gone = sent(
        combined.port(killed), "/lock/acquire", {"key": "k", "client_id": "gone", "wait": WAIT_SECONDS}, "gone"
    )
    wait_until(lambda: line_of(other, "k") == ["gone"], timeout_seconds=10, what="the request stands in line")

    kill_nodes(combined.surroundings, [killed])
    wait_until(lambda: line_of(other, "k") == [], timeout_seconds=20, what="its wait is ended by the leader")
    gone.close()
    assert ask(other, "/lock/release", {"key": "k", "client_id": "holder"})[1]["ok"]

    assert holders_of(other, "k") == []
    assert ask(other, "/lock/acquire", {"key": "k", "client_id": "next"})[1]["ok"]


def test_clients_that_vanish_and_repeat_their_requests_hold_alone_or_not_at_all(combined: Cluster) -> None:
    """Each asks, goes at once, asks again elsewhere under its key, and perhaps goes again; then another asks. Who is
    told `ok` holds the lock, and nobody else; who was told nothing leaves nothing behind."""
    ports = combined.ports()

    def try_one(number: int) -> str:
        key, idempotency_key, owner = f"key-{number}", uuid.uuid4().hex, f"owner-{number}"
        assert ask(ports[2], "/lock/acquire", {"key": key, "client_id": "holder"})[1]["ok"]
        body = {"key": key, "client_id": owner, "wait": 20}
        first = sent(ports[number % 3], "/lock/acquire", body, idempotency_key)
        wait_until(lambda: line_of(ports[0], key) == [owner], timeout_seconds=15, what=f"{owner} stands in line")
        if number % 2:
            first.close()
        again = sent(ports[(number + 1) % 3], "/lock/acquire", body, idempotency_key)
        stays = number % 4 < 2
        if not stays:
            first.close()
            again.close()
        assert ask(ports[(number + 2) % 3], "/lock/release", {"key": key, "client_id": "holder"})[1]["ok"]
        first.close()
        told = stays and b'"ok":true' in again.recv(65_536)
        again.close()
        wanted = [owner] if told else []
        wait_until(
            lambda: holders_of(ports[0], key) == wanted and not line_of(ports[0], key),
            timeout_seconds=15,
            what=f"{key} is held by {wanted}",
        )
        _, other = ask(ports[number % 3], "/lock/acquire", {"key": key, "client_id": "other"})
        assert other["ok"] is not told
        return "told" if told else "gone"

    with ThreadPoolExecutor(8) as clients:
        outcomes = list(clients.map(try_one, range(64)))

    assert set(outcomes) == {"told", "gone"}
