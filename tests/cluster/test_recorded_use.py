"""Two ways in which people use a cluster from a shell, step by step, as they were recorded and made ours."""

import pytest

from services.cluster.nodes import start_nodes, stop_nodes
from tests.cluster.recorded import Step, play
from tests.cluster.tools import Cluster

pytestmark = pytest.mark.cluster


def is_role(value: object) -> bool:
    return value in (0, 1, 2)


def is_term(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def is_decimal(value: object) -> bool:
    return isinstance(value, str) and value.isdigit()


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def at_least_one(value: object) -> bool:
    return isinstance(value, int) and value >= 1


#: Locks on node1-3, queues on queue1-3, the cache on cache1-3; the short vocabulary.
SEPARATED_USE = [
    Step(8000, "/health", {"ok": True, "id": "node1", "role": is_role, "term": is_term}),
    Step(8101, "/health", {"ok": True, "id": "queue2", "role": is_role, "term": is_term}),
    Step(8202, "/health", {"ok": True, "id": "cache3"}),
    Step(8000, "/lock/acquire", {"ok": True}, {"key": "printer", "mode": "X", "client_id": "ana"}),
    Step(8000, "/lock/release", {"ok": True}, {"key": "printer", "client_id": "ana"}),
    Step(8100, "/queue/enq", {"ok": True}, {"key": "invoice:7", "value": "to be printed"}),
    Step(
        8100,
        "/queue/deq",
        {"msg_id": is_decimal, "payload": {"key": "invoice:7", "value": "to be printed"}},
        (),
        save={"id": "msg_id"},
    ),
    Step(8100, "/queue/ack", {"ok": True}, {"msg_id": "$id"}),
    Step(8200, "/cache/put", {"ok": True}, {"key": "invoice:7", "val": {"pages": 3, "colour": False}}),
    Step(
        8200,
        "/cache/get",
        {"hit": True, "val": {"pages": 3, "colour": False}, "state": "M"},
        {"key": "invoice:7"},
    ),
    Step(
        8200,
        "/metrics",
        (
            "# TYPE rpc_latency_seconds histogram",
            "rpc_latency_seconds_bucket{",
            'op="append_entries"',
            'op="request_vote"',
            "cache_miss",
        ),
    ),
]

#: node1-3 with all services; the long vocabulary. This part comes before node2 is stopped...
COMBINED_USE = [
    *(Step(8000 + number, "/health", {"status": "ok", "node": f"node{number}"}) for number in (1, 2, 3)),
    Step(8001, "/lock/acquire", {"ok": True}, {"name": "crane", "mode": "exclusive", "owner": "ana"}),
    Step(
        8002,
        "/lock/acquire",
        {"ok": False, "reason": "locked", "current": {"owner": "ana", "mode": "exclusive", "node": "node1"}},
        {"name": "crane", "mode": "exclusive", "owner": "budi"},
    ),
    Step(8001, "/lock/release", {"ok": True}, {"name": "crane", "mode": "exclusive", "owner": "ana"}),
    Step(8002, "/queue/push", {"ok": True}, {"queue": "loads", "payload": {"load": 12, "goods": "rice"}}),
    Step(
        8003,
        "/queue/pop",
        {"ok": True, "item": {"load": 12, "goods": "rice"}},
        {"queue": "loads", "payload": {}},
    ),
    Step(8001, "/cache/write", {"ok": True}, {"key": "wind", "value": 11}),
    Step(8003, "/cache/read?key=wind", {"ok": True, "value": {"state": "S", "value": 11}}),
    Step(
        8001,
        "/metrics?format=json",
        {
            "metrics": {
                "locks_acquired": at_least_one,
                "locks_failed": is_count,
                "locks_released": at_least_one,
                "queue_push": is_count,
                "queue_pop": is_count,
                "cache_writes": at_least_one,
                "cache_reads": is_count,
            }
        },
    ),
]

#: ... this one while it is away ...
WHILE_NODE2_IS_AWAY = [
    Step(8001, "/queue/push", {"ok": True}, {"queue": "all", "payload": {"value": "one of us is away"}}),
    Step(8001, "/queue/pop", {"ok": True, "item": {"value": "one of us is away"}}, {"queue": "all"}),
]

#: ... and this one after it was started again.
AFTER_NODE2_IS_BACK = [
    Step(8002, "/health", {"status": "ok", "node": "node2"}),
    Step(8002, "/cache/read?key=wind", {"ok": True, "value": {"value": 11}}),
]


def test_the_recorded_use_of_separate_roles_works(separated: Cluster) -> None:
    """One lock, one message, one cache line, each on nodes of its own, and the metrics that a dashboard reads."""
    play(SEPARATED_USE, port_offset=separated.port_offset)


def test_the_recorded_use_of_combined_nodes_works(combined: Cluster) -> None:
    """The same through any node, with one node stopped and started again on the way."""
    play(COMBINED_USE, port_offset=combined.port_offset)
    stop_nodes(combined.surroundings, ["node2"])
    play(WHILE_NODE2_IS_AWAY, port_offset=combined.port_offset)
    start_nodes(combined.surroundings, ["node2"])
    play(AFTER_NODE2_IS_BACK, port_offset=combined.port_offset)
