"""What the other tests of this folder lean on: a client that asks again, and a clock that leaves standstills out."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.cluster.tools import ask

STANDSTILL_SECONDS = 0.5

#: Says that its clock runs, and once its input ends, how long it ran and how long by a clock on the wall.
TIMED = """
import sys, time
from tests.cluster.tools import RunningClock
began = time.monotonic()
with RunningClock() as clock:
    print("runs", flush=True)
    sys.stdin.read()
    print(clock.seconds(), time.monotonic() - began)
"""


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[int, list[str]]]:
    """A server that answers with these statuses one after the other: its port, and the key of each request."""
    left, keys = list(statuses), []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"ok": len(left) == 1}).encode()
            self.send_response(left.pop(0))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_port, keys
        server.shutdown()
        thread.join()


def test_what_was_refused_or_is_unknown_is_asked_again_under_one_key() -> None:
    with answering(503, 504, 200) as (port, keys):
        answered = ask(port, "/anything", {})

    assert answered == (200, {"ok": True})
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_any_other_answer_is_returned_the_first_time() -> None:
    """A wrong answer must not be asked away."""
    with answering(500, 200) as (port, keys):
        status, _ = ask(port, "/anything", {})

    assert status == 500
    assert len(keys) == 1


def test_asking_again_ends() -> None:
    with answering(*[503] * 100) as (port, _), pytest.raises(AssertionError, match=r"after 0\.2 s: 503"):
        ask(port, "/anything", {}, within_seconds=0.2)


def test_a_running_clock_leaves_out_what_its_process_stood_still() -> None:
    timed = subprocess.Popen(
        [sys.executable, "-c", TIMED],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert timed.stdout is not None and timed.stdout.readline() == "runs\n"

    timed.send_signal(signal.SIGSTOP)
    os.waitpid(timed.pid, os.WUNTRACED)
    began = time.monotonic()
    time.sleep(STANDSTILL_SECONDS)
    stood_still = time.monotonic() - began
    timed.send_signal(signal.SIGCONT)
    output, _ = timed.communicate(timeout=10)
    running, on_the_wall = map(float, output.split())

    assert on_the_wall - running >= stood_still
