"""A stand-in for a node, so that what starts and stops nodes can be tested without them.

It reads the same environment and answers the same questions about itself as a real one. "Leader" is the first node
of its cluster that accepts connections; its term grows with every node before it that does not. A file named
`unready` or `refuse` beside its data folder makes it answer 503 to `/readyz`, or end at once with a message.
"""

import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NODE_ID = os.environ["MUFAKAT_NODE_ID"]
GROUPS = os.environ["MUFAKAT_GROUPS"].split(",")
FOLDER = Path(os.environ["MUFAKAT_DATA_DIR"]).parent
CLUSTER = [part.partition("=")[::2] for part in os.environ["MUFAKAT_CLUSTER"].split(",")]
PORTS = {node_id: int(address.rpartition(":")[2]) for node_id, address in CLUSTER}


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
    }


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, answer = 200, {"ok": True}
        if self.path == "/health":
            answer = {
                "ok": True,
                "id": NODE_ID,
                **standing(),
                "groups": {group: standing() for group in GROUPS},
            }
        elif self.path == "/readyz" and (FOLDER / "unready").exists():
            status, answer = 503, {"ok": False, "reasons": {"lock": "no leader is known"}}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    #: With the usual 5, a handful of probes at once waits a second for the system to try again.
    request_queue_size = 64


if (FOLDER / "refuse").exists():
    sys.exit("the stub was told to refuse")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print(f"{NODE_ID} serves", flush=True)
Server(("127.0.0.1", PORTS[NODE_ID]), Answers).serve_forever()
