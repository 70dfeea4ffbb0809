"""The cache's stampede guard, tags and stream of changes over real processes, one of which is killed."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.cluster.nodes import stop_nodes
from tests.cluster.test_failover import kill_process_of
from tests.cluster.tools import Cluster, ask

pytestmark = pytest.mark.cluster

CALLERS = 24


def test_a_lease_whose_node_dies_goes_to_one_who_waits_and_all_others_get_what_it_puts(combined: Cluster) -> None:
    """One caller holds the lease at the leader and is never heard of again; 23 wait at the two that are left."""
    victim = combined.leader("cache")
    ports = combined.ports(without=victim)
    _, first = ask(combined.port(victim), "/cache/get", {"key": "k", "lease_ttl": 3, "wait": 10}, timeout_seconds=20)
    assert "lease" in first

    def read_and_fill(number: int) -> tuple[int, dict[str, Any], bool]:
        port = ports[number % 2]
        status, answer = ask(port, "/cache/get", {"key": "k", "wait": 30}, timeout_seconds=40)
        fills = "lease" in answer
        if fills:
            status, answer = ask(port, "/cache/put", {"key": "k", "val": "computed", "lease": answer["lease"]})
        return status, answer, fills

    with ThreadPoolExecutor(CALLERS) as pool:
        waiting = [pool.submit(read_and_fill, number) for number in range(CALLERS - 1)]
        kill_process_of(combined, victim)
        outcomes = [each.result(timeout=60) for each in waiting]

    assert [status for status, _, _ in outcomes] == [200] * len(outcomes)
    assert sum(fills for _, _, fills in outcomes) == 1
    assert {answer["val"] for _, answer, fills in outcomes if not fills} == {"computed"}
    status, refused = ask(ports[0], "/cache/put", {"key": "k", "val": "late", "lease": first["lease"]})
    assert (status, refused["reason"]) == (409, "lease_lost")


def test_an_invalidated_tag_is_seen_nowhere_and_told_to_who_watches(combined: Cluster) -> None:
    ports = combined.ports()
    stream = http.client.HTTPConnection("127.0.0.1", ports[2], timeout=20)
    stream.request("GET", "/cache/watch?prefix=user:")
    response = stream.getresponse()
    for number in range(20):
        ask(ports[number % 3], "/cache/put", {"key": f"user:{number}", "val": number, "tags": ["users"]})
        ask(ports[(number + 1) % 3], "/cache/get", {"key": f"user:{number}"})

    status, answer = ask(ports[1], "/cache/invalidate", {"tag": "users"})
    found = [
        ask(port, "/cache/mget", {"keys": [f"user:{number}" for number in range(20)]})[1]["items"] for port in ports
    ]
    stop_nodes(combined.surroundings, ["node3"])
    told = response.read().decode()
    stream.close()

    assert (status, answer) == (200, {"ok": True, "invalidated": 20})
    assert not any(item["hit"] for items in found for item in items)
    names = [line.removeprefix("event: ") for line in told.splitlines() if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("ready", "end")
    assert (names.count("write"), names.count("invalidate")) == (20, 20)
    last = [json.loads(line.removeprefix("data: ")) for line in told.splitlines() if line.startswith("data: ")][-1]
    assert last == {"reason": "stopping"}


def test_every_node_tells_of_a_row_what_only_the_leader_knows(combined: Cluster) -> None:
    """`pending` is a list everywhere: null is for a node that finds no leader to ask."""
    ports = combined.ports()
    ask(ports[0], "/cache/put", {"key": "k", "val": 1})

    rows = [ask(port, "/cache/line?key=k")[1] for port in ports]
    pages = [ask(port, "/cache/lines")[1]["lines"] for port in ports]

    assert [row["pending"] for row in rows] == [[]] * 3
    assert [[row["pending"] for row in page] for page in pages] == [[[]]] * 3
