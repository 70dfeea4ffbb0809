"""Consumers and a leader that are killed with deliveries under way: what nobody acknowledged comes back."""

import http.client
import subprocess
import sys
from typing import Any

import pytest

from services.cluster.nodes import kill_nodes
from tests.cluster.tools import Cluster, call, wait_until

pytestmark = pytest.mark.cluster

MESSAGES = 40
TAKEN_MIN = 10
VISIBILITY_SECONDS = 3

#: Takes messages one by one, prints each payload, and acknowledges nothing.
CONSUMER = """
import json, sys, urllib.request
while True:
    body = json.dumps({"queue": "work", "visibility": %d, "wait": 5}).encode()
    request = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
    answer = json.load(urllib.request.urlopen(request))
    if answer["msg_id"] is not None:
        print(answer["payload"]["value"], flush=True)
"""


def ask(port: int, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The answer where it was given; None while the group has no leader."""
    try:
        status, answer = call(port, path, body, timeout_seconds=5)
    except (OSError, http.client.HTTPException):
        return None
    return answer if status == 200 else None


def test_what_dead_consumers_held_is_delivered_again_under_the_next_leader(combined: Cluster) -> None:
    """Deliveries under way are replicated state (known bug 80): a new leader's clock ends them as the old one's
    would have, and an acknowledgement holds under every leader."""
    leader = combined.leader("queue")
    survivor, other = combined.ports(without=leader)
    for number in range(MESSAGES):
        assert ask(survivor, "/queue/enq", {"queue": "work", "value": number})["ok"] is True
    consumers = [
        subprocess.Popen(
            [sys.executable, "-c", CONSUMER % VISIBILITY_SECONDS, f"http://127.0.0.1:{port}/queue/deq"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for port in (survivor, other)
    ]
    held = {int(consumer.stdout.readline()) for consumer in consumers for _ in range(TAKEN_MIN)}

    for consumer in consumers:
        consumer.kill()
    kill_nodes(combined.surroundings, [leader])
    for consumer in consumers:
        # What was on its way to them when they died is theirs too, and comes back like the rest.
        held |= {int(line) for line in consumer.communicate()[0].splitlines()}

    deliveries: dict[int, int] = {}

    def one_more_is_done() -> bool:
        """Take one message and acknowledge it, asked again until a leader answers."""
        taken = ask(other, "/queue/deq", {"queue": "work", "wait": 1})
        if taken is None or taken["msg_id"] is None:
            return False
        number = taken["payload"]["value"]
        assert number not in deliveries, "delivered after it was acknowledged"
        deliveries[number] = taken["delivery"]
        ack = {"msg_id": taken["msg_id"], "receipt": taken["receipt"]}
        wait_until(lambda: ask(survivor, "/queue/ack", ack), timeout_seconds=10, what="the ack")
        return True

    for number in range(MESSAGES):
        wait_until(one_more_is_done, timeout_seconds=20, what=f"{number + 1} of {MESSAGES} messages are done")

    assert sorted(deliveries) == list(range(MESSAGES))
    assert len(held) >= TAKEN_MIN
    assert all(deliveries[number] >= 2 for number in held)
    nothing = ask(survivor, "/queue/deq", {"queue": "work", "wait": 1})
    assert nothing["msg_id"] is None
