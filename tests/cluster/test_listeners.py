"""The ports of a real node, and raw bytes: what no application sees is refused in one form all the same, and a client
can use up nothing that the node needs."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from services.cluster.topology import TOPOLOGIES
from tests.cluster.tools import call, free_port_offset, wait_until

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.cluster

SECRET = "only for these tests"
#: Files and sockets of the node that has few.
FEW_DESCRIPTORS = 150


class Node:
    """A node of one, with a port for peers."""

    def __init__(self, folder: Path, prepare: Callable[[], None] | None = None, **settings: str) -> None:
        self.port = TOPOLOGIES["combined"].shifted(free_port_offset("combined")).nodes[0].client_port
        self.peer_port = self.port + 10_000
        self.log = folder / "node.log"
        environ = {
            "PATH": os.environ["PATH"],
            "MUFAKAT_CLUSTER": f"node1=127.0.0.1:{self.port}",
            "MUFAKAT_CLUSTER_SECRET": SECRET,
            "MUFAKAT_DATA_DIR": str(folder / "data"),
            "MUFAKAT_LOG_FORMAT": "json",
            # A machine that stands still costs a lone node its office for an election; its clients wait for that.
            "MUFAKAT_LEADER_WAIT_MS": "20000",
            "MUFAKAT_REQUEST_TIMEOUT_MS": "20000",
            **{f"MUFAKAT_{name.upper()}": value for name, value in settings.items()},
        }
        with self.log.open("wb") as stderr:
            command = [sys.executable, "-m", "services.cli", "serve"]
            self.process = subprocess.Popen(command, env=environ, stderr=stderr, preexec_fn=prepare)

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return call(self.port, "/readyz")[0] == 200
            except OSError:
                return False

        wait_until(is_ready, timeout_seconds=60, what="the node is ready")

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    running = Node(tmp_path_factory.mktemp("node"))
    try:
        running.wait_ready()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def exchange(port: int, sent: bytes) -> tuple[str, dict[str, str], Any]:
    """Send these bytes; the first line, the headers and the decoded body of what is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    version = {10: "HTTP/1.0", 11: "HTTP/1.1"}[answer.version]
    return f"{version} {answer.status}", dict(answer.getheaders()), json.loads(body)


@pytest.mark.parametrize(
    "line",
    ["POST /lock/acquire", "POST /nowhere", "GET /cache/read?key=held", "POST /cache/get", "GET /livez"],
)
def test_no_encoded_body_is_waited_for_or_unpacked(node: Node, line: str) -> None:
    """Also in front of a hit of the cache, and where there is no route; the body is still to come."""
    call(node.port, "/cache/put", {"key": "held", "val": 1})
    assert call(node.port, "/cache/get", {"key": "held"})[1]["source"] == "local"

    first, _, answer = exchange(
        node.port,
        f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Encoding: deflate\r\nContent-Length: 900\r\n\r\n".encode(),
    )

    assert (first, answer["ok"], answer["reason"]) == ("HTTP/1.1 415", False, "unsupported_media_type")


@pytest.mark.parametrize("which", ["port", "peer_port"])
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 9_000 + b"\r\n\r\n", 400),
        (
            b"POST /lock/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /p HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(200), 400),
        (b"BREW /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST /p HTTP/1.1\r\nHost: localhost\r\nExpect: foo\r\nContent-Length: 2\r\n\r\n{}", 417),
        (b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415),
    ],
    ids=["no host", "a long header", "both lengths", "a bad chunk", "TLS", "a method", "Expect", "gzip"],
)
def test_every_refusal_is_json_whoever_makes_it(node: Node, which: str, sent: bytes, status: int) -> None:
    """Goal: aiohttp's own were text, of HTTP/1.0, with a traceback in the log for each."""
    first, headers, answer = exchange(getattr(node, which), sent)

    assert first == f"HTTP/1.1 {status}"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert (answer["ok"], bool(answer["reason"]), bool(answer["detail"])) == (False, True, True)
    assert not any("exception" in event for event in node.events())


def test_a_hit_is_not_answered_to_a_page_of_another_site(node: Node) -> None:
    """Goal: the shortest way asks the guard as well."""
    call(node.port, "/cache/put", {"key": "held", "val": 1})

    sent = "GET /cache/read?key=held HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n"
    first, _, answer = exchange(node.port, sent.encode())

    assert (first, answer["reason"]) == ("HTTP/1.1 403", "forbidden")


@pytest.mark.parametrize("path", ["/", "*"])
def test_a_load_balancer_finds_a_server(node: Node, path: str) -> None:
    """`OPTIONS / HTTP/1.0` is what HAProxy asks where nothing else is set."""
    first, headers, _ = exchange(node.port, f"OPTIONS {path} HTTP/1.0\r\n\r\n".encode())

    assert first == "HTTP/1.0 200"
    assert "POST" in headers["Allow"]


def test_the_bounds_are_those_of_the_settings(tmp_path: Path) -> None:
    """Goal: a silent client, one that stops in its body and one too many, on the loop that nodes run on."""
    node = Node(tmp_path, connections_max="3", header_timeout_ms="5000", body_timeout_ms="400")
    lock = b"POST /lock/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    silent: list[socket.socket] = []
    try:
        node.wait_ready()
        first, _, answer = exchange(node.port, lock + b'Content-Length: 900\r\n\r\n{"key": ')
        assert (first, answer["reason"]) == ("HTTP/1.1 408", "too_slow")
        silent += [socket.create_connection(("127.0.0.1", node.port), timeout=10) for _ in range(3)]
        first, _, answer = exchange(node.port, lock + b"Content-Length: 0\r\n\r\n")
        assert (first, answer["reason"]) == ("HTTP/1.1 429", "overloaded")
        assert [connection.recv(1) for connection in silent] == [b""] * 3
        assert call(node.port, "/lock/acquire", {"key": "k", "client_id": "c"})[1]["ok"]
        refused = 'http_refused_total{listener="clients",reason="too_slow"} 1.0'
        with urlopen(f"http://127.0.0.1:{node.port}/metrics", timeout=10) as metrics:
            assert refused in metrics.read().decode()
    finally:
        for connection in silent:
            connection.close()
        node.process.kill()
        node.process.wait()


def put(connection: http.client.HTTPConnection, key: str, value: str) -> int:
    """The status of a write on a connection that is there already."""
    body = json.dumps({"key": key, "val": value})
    connection.request("POST", "/cache/put", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def has_spoken(connection: socket.socket) -> bool:
    """Whether the other side has sent something or closed."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def test_a_node_keeps_descriptors_for_itself(tmp_path: Path) -> None:
    """Goal: 146 silent connections at `ulimit -n 150` ended a leader, with advice about its disk. It turns clients
    away, says why, and answers who asks how it is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = (FEW_DESCRIPTORS, FEW_DESCRIPTORS)
    node = Node(tmp_path, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few), wal_segment_bytes="65536")
    silent = []
    writer = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    try:
        node.wait_ready()
        assert put(writer, "key", "x") == 200
        for _ in range(2 * FEW_DESCRIPTORS):
            silent.append(socket.create_connection(("127.0.0.1", node.port), timeout=10))
        wait_until(
            lambda: sum(map(has_spoken, silent)) > FEW_DESCRIPTORS, timeout_seconds=20, what="many are turned away"
        )

        # Every few of these need a new file.
        written = [put(writer, f"key{number}", "x" * 20_000) for number in range(20)]
        status, _ = call(node.port, "/livez")
        descriptors = len(os.listdir(f"/proc/{node.process.pid}/fd"))
        text = "\n".join(event["event"] for event in node.events())

        assert written == [200] * 20
        assert status == 200
        assert descriptors <= FEW_DESCRIPTORS - 40
        assert "the limit of open files is low: fewer clients are served than are set" in text
        assert 1 <= text.count("connections are turned away") < 10
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(timeout=30) == 0
    finally:
        node.process.kill()
        node.process.wait()
        for connection in (writer, *silent):
            connection.close()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
