"""A stand-in for a node, so that what starts and stops nodes can be tested without them.

It reads the same environment, holds its data directory and answers the same questions about itself as a real one.
"Leader" is the first node of its cluster that accepts connections; its term grows with every node before it that does
not. A file beside its data folder changes what it does: with `unready` it is not ready, with `refuse` it ends at once
with a message, with `hang` it does not stop when asked, with `late` it takes a while until it says who it is.
"""

import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from services.node.process_file import INHERITED_VARIABLE, take_process

NODE_ID = os.environ["MUFAKAT_NODE_ID"]
GROUPS = os.environ["MUFAKAT_GROUPS"].split(",")
FOLDER = Path(os.environ["MUFAKAT_DATA_DIR"]).parent
CLUSTER = [part.partition("=")[::2] for part in os.environ["MUFAKAT_CLUSTER"].split(",")]
PORTS = {node_id: int(address.rpartition(":")[2]) for node_id, address in CLUSTER}
#: A class that starts late does so for so long.
LATE_SECONDS = 1.0


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def standing() -> dict[str, object]:
    alive = [node_id for node_id, port in PORTS.items() if node_id == NODE_ID or accepts(port)]
    leader = alive[0]
    return {
        "role": 2 if leader == NODE_ID else 0,
        "role_name": "leader" if leader == NODE_ID else "follower",
        "term": 1 + list(PORTS).index(leader),
        "leader": leader,
        "voters": list(PORTS),
        "learners": [],
        "membership": "voter",
        "ready": True,
    }


def status() -> dict[str, object]:
    reasons = {"lock": "no leader is known"} if (FOLDER / "unready").exists() else {}
    return {
        "ok": True,
        "id": NODE_ID,
        "cluster": os.environ["MUFAKAT_CLUSTER_ID"],
        "pid": os.getpid(),
        "data_dir": os.environ["MUFAKAT_DATA_DIR"],
        "version": "stub",
        "authentication": "MUFAKAT_AUTH_TOKENS" in os.environ,
        "members": dict(CLUSTER),
        "groups": {group: standing() for group in GROUPS},
        "not_ready": reasons,
    }


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = {"ok": True, "id": NODE_ID, "cluster": os.environ["MUFAKAT_CLUSTER_ID"]}
        body = json.dumps(status() if self.path == "/status" else known).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    #: With the usual 5, a handful of probes at once waits a second for the system to try again.
    request_queue_size = 64


def stop(*_: object) -> None:
    if not (FOLDER / "hang").exists():
        process.leave()
        os._exit(0)


if (FOLDER / "late").exists():
    time.sleep(LATE_SECONDS)
if (FOLDER / "refuse").exists():
    sys.exit("the stub was told to refuse")
process = take_process(os.environ["MUFAKAT_DATA_DIR"], os.environ.get(INHERITED_VARIABLE, ""))
signal.signal(signal.SIGTERM, stop)
process.note(NODE_ID)
print(f"{NODE_ID} serves", flush=True)
Server(("127.0.0.1", PORTS[NODE_ID]), Answers).serve_forever()
