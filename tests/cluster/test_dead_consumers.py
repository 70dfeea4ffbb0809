"""Consumers and a leader that are killed with deliveries under way: what nobody acknowledged comes back."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.cluster.nodes import kill_nodes
from tests.cluster.tools import Cluster, ask, wait_until

pytestmark = pytest.mark.cluster

MESSAGES = 40
TAKEN_MIN = 10
VISIBILITY_SECONDS = 3

#: Takes messages one by one, prints each payload, and acknowledges nothing.
CONSUMER = """
import sys
from tests.cluster.tools import ask
take = {"queue": "work", "visibility": %d, "wait": 5}
while True:
    _, answer = ask(int(sys.argv[1]), "/queue/deq", take, timeout_seconds=10)
    if answer["msg_id"] is not None:
        print(answer["payload"]["value"], flush=True)
"""


def test_what_dead_consumers_held_is_delivered_again_under_the_next_leader(combined: Cluster) -> None:
    """Deliveries under way are replicated state (known bug 80): a new leader's clock ends them as the old one's
    would have, and an acknowledgement holds under every leader."""
    leader = combined.leader("queue")
    survivor, other = combined.ports(without=leader)
    for number in range(MESSAGES):
        assert ask(survivor, "/queue/enq", {"queue": "work", "value": number})[1]["ok"] is True
    consumers = [
        subprocess.Popen(
            [sys.executable, "-c", CONSUMER % VISIBILITY_SECONDS, str(port)],
            cwd=Path(__file__).parents[2],
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
        """Take one message and acknowledge it."""
        _, taken = ask(other, "/queue/deq", {"queue": "work", "wait": 1})
        if taken["msg_id"] is None:
            return False
        number = taken["payload"]["value"]
        assert number not in deliveries, "delivered after it was acknowledged"
        deliveries[number] = taken["delivery"]
        ack = {"msg_id": taken["msg_id"], "receipt": taken["receipt"]}
        assert ask(survivor, "/queue/ack", ack)[1]["ok"] is True
        return True

    for number in range(MESSAGES):
        wait_until(one_more_is_done, timeout_seconds=20, what=f"{number + 1} of {MESSAGES} messages are done")

    assert sorted(deliveries) == list(range(MESSAGES))
    assert len(held) >= TAKEN_MIN
    assert all(deliveries[number] >= 2 for number in held)
    _, nothing = ask(survivor, "/queue/deq", {"queue": "work", "wait": 1})
    assert nothing["msg_id"] is None
