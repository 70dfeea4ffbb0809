"""services/node/about.py: what a node says of itself, with replicas that only have a status."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from common.config import load_settings
from common.disk_space import DiskSpace
from common.metrics import Metrics
from raft.cluster_id import ClusterId
from raft.core.ready import CoreStatus
from raft.core.types import Role
from raft.status import NodeStatus
from services.catalogue import OPERATIONS, SERVICES
from services.http.application import application
from services.http.routes import HOST
from services.node import about as admin
from services.node.damaged import DamagedGroup
from services.node.host import Host
from services.replicated.machine import ReplicatedMachine
from tests.helpers import serving

CLUSTER = "node1=127.0.0.1:8001,node2=127.0.0.1:8002,node3=127.0.0.1:8003"


def make_node(
    group: str, *, role: Role = Role.FOLLOWER, leader: str = "node2", not_ready: str = "", term: int = 7, **more
):
    """A replica that has only a status, which the test may change."""
    core = CoreStatus(
        id="node1", role=role, term=term, vote="", leader=leader, first_index=1, last_index=121, durable_index=121,
        commit_index=120, voters=("node1", "node2", "node3"), learners=(), elections=4, leader_changes=3,
        rejected_messages=0,
    )  # fmt: skip
    found = NodeStatus(
        group=group, core=core, applied_index=119, cluster_time_ms=5_000, not_ready_reason=not_ready,
        connected=("node2",), proposals=0, reads=0, stalls=0, uptime_ms=2_500, log_bytes=4_096, snapshot_index=100,
        **more,
    )  # fmt: skip
    machine = ReplicatedMachine(SERVICES["lock"].machine, known=4)
    machine.version = 3
    return SimpleNamespace(group=group, status=lambda: found, machine=machine)


def make_app(*nodes, **overrides) -> web.Application:
    groups = ",".join(node.group for node in nodes)
    settings = load_settings(
        {}, {"cluster": CLUSTER, "cluster_secret": "sixteen letters!", "groups": groups, **overrides}
    )
    metrics = Metrics()
    here = Host(settings=settings, metrics=metrics, boot="b", nodes={node.group: node for node in nodes})
    app = application(here, OPERATIONS)
    admin.watch_nodes(metrics, app[HOST].nodes)
    admin.watch_host(app[HOST])
    return app


async def get_json(app: web.Application, path: str, **headers: str):
    async with serving(app) as client:
        response = await client.get(path, headers=headers)
        return response.status, await response.json()


async def test_health_of_one_group_is_flat_and_by_group():
    """Goal: the fields of the contract, named and typed as recorded use expects them."""
    status, answer = await get_json(make_app(make_node("lock", role=Role.LEADER, leader="node1")), "/health")

    flat = {
        "ok": True, "status": "ok", "id": "node1", "node": "node1", "role": 2, "role_name": "leader", "term": 7,
        "leader": "node1", "commit_index": 120, "applied_index": 119,
    }  # fmt: skip
    assert (status, answer) == (200, {**flat, "cluster": None, "groups": {"lock": flat}})


async def test_health_of_several_groups_shows_the_first_flat():
    """Goal: with several groups the flat fields are those of the first group of the settings."""
    app = make_app(make_node("queue", term=9), make_node("lock", role=Role.LEADER, leader="node1"))

    _, answer = await get_json(app, "/health")

    assert (answer["role"], answer["term"]) == (0, 9)
    assert {group: each["role"] for group, each in answer["groups"].items()} == {"queue": 0, "lock": 2}


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.PRE_CANDIDATE])
async def test_a_campaigner_is_a_candidate_whether_it_has_begun_or_not(role):
    """Goal: clients know three roles."""
    _, answer = await get_json(make_app(make_node("lock", role=role, leader="")), "/health")

    assert (answer["role"], answer["role_name"], answer["leader"]) == (1, "candidate", None)


async def test_health_is_200_before_the_groups_have_started():
    """Goal: always 200 while the process works."""
    app = make_app(make_node("lock"))
    app[HOST].nodes.clear()

    status, answer = await get_json(app, "/health")

    assert (status, answer["id"], answer["groups"]) == (200, "node1", {})


async def test_livez_is_200_while_the_loop_turns():
    """Goal: liveness does not depend on the cluster."""
    status, answer = await get_json(make_app(make_node("lock", not_ready="no leader is known")), "/livez")

    assert (status, answer["ok"]) == (200, True)


async def test_readyz_is_200_once_every_group_can_serve():
    """Goal: a balancer sends traffic."""
    status, answer = await get_json(make_app(make_node("lock"), make_node("queue")), "/readyz")

    assert (status, answer["ok"]) == (200, True)


async def test_readyz_is_503_with_the_reason_of_each_group_that_cannot_serve():
    """Goal: one group without a leader is enough, and the answer says which and why."""
    app = make_app(make_node("lock"), make_node("queue", not_ready="no leader is known"), make_node("cache"))
    del app[HOST].nodes["cache"]

    status, answer = await get_json(app, "/readyz")

    assert (status, answer["ok"], answer["reason"]) == (503, False, "not_ready")
    assert answer["reasons"] == {"queue": "no leader is known", "cache": "has not started yet"}
    assert "queue: no leader is known" in answer["detail"]


async def test_status_tells_all_of_each_group():
    """Goal: members, roles, terms, indexes, sizes, uptime and version in one answer."""
    _, answer = await get_json(make_app(make_node("lock")), "/status")

    assert answer["members"] == {"node1": "127.0.0.1:8001", "node2": "127.0.0.1:8002", "node3": "127.0.0.1:8003"}
    assert (answer["version"], answer["uptime_s"]) == ("0.1.0", 2.5)
    expected = {
        "role_name": "follower", "term": 7, "vote": None, "leader": "node2", "commit_index": 120,
        "applied_index": 119, "last_index": 121, "snapshot_index": 100, "log_bytes": 4_096,
        "voters": ["node1", "node2", "node3"], "learners": [], "ready": True, "connected": ["node2"], "uptime_s": 2.5,
    }  # fmt: skip
    assert expected.items() <= answer["groups"]["lock"].items()


async def test_status_tells_the_room_on_the_disk_as_far_as_it_is_known():
    app = make_app(make_node("lock"))
    _, unknown = await get_json(app, "/status")

    app = make_app(make_node("lock"))
    app[HOST].disk_space = DiskSpace(free_bytes=5, total_bytes=9)
    _, known = await get_json(app, "/status")

    assert unknown["disk"] is None
    assert known["disk"] == {"free_bytes": 5, "total_bytes": 9}


async def test_status_tells_whether_tokens_are_asked_for():
    """Goal: that authentication is off is a fact that can be queried, not only a sentence among warnings."""
    tokens = (("admin", "a-long-token"),)
    _, off = await get_json(make_app(make_node("lock")), "/status")
    _, on = await get_json(
        make_app(make_node("lock"), auth_tokens=tokens), "/status", Authorization="Bearer a-long-token"
    )

    assert (off["authentication"], on["authentication"]) == (False, True)


async def test_status_tells_what_the_node_is_in_each_group_and_how_far_behind():
    app = make_app(make_node("lock", membership="learner", lag=12), make_node("queue", disk_full=True))

    _, answer = await get_json(app, "/status")

    expected = {
        "lock": {"membership": "learner", "lag": 12, "disk_full": False},
        "queue": {"membership": "voter", "lag": 0, "disk_full": True},
    }
    for group, fields in expected.items():
        assert fields.items() <= answer["groups"][group].items()


async def test_a_node_tells_which_cluster_it_is_of_and_where_it_runs():
    """Goal: a command tells by one answer whether it has its own node before it."""
    app = make_app(make_node("lock"), data_dir="some/where")
    app[HOST].cluster = ClusterId("c-1")

    _, answer = await get_json(app, "/status")
    _, health = await get_json(app, "/health")

    assert (answer["cluster"], answer["pid"]) == ("c-1", os.getpid())
    assert answer["data_dir"] == os.path.join(os.getcwd(), "some/where")
    assert health["cluster"] == "c-1"


async def test_status_warns_while_authentication_is_off():
    """Goal: what is off by default is said aloud."""
    _, without = await get_json(make_app(make_node("lock")), "/status")
    _, with_tokens = await get_json(
        make_app(make_node("lock"), auth_tokens="reader:token-of-reader"),
        "/status",
        Authorization="Bearer token-of-reader",
    )

    assert any("authentication is off" in warning for warning in without["warnings"])
    assert with_tokens["warnings"] == []


ZEROES = {
    "locks_acquired": 0, "locks_failed": 0, "locks_released": 0, "queue_push": 0, "queue_pop": 0, "cache_writes": 0,
    "cache_reads": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/metrics?format=json", "*/*"),
        ("/metrics?format=json", "text/plain"),
        ("/metrics", "application/json"),
        ("/metrics", "application/json, text/plain, */*"),
        ("/metrics", "text/plain;q=0.5, application/json;q=0.9"),
    ],
)
async def test_the_counters_are_json_where_that_is_asked_for(path, accept):
    """Goal: seven whole numbers under `metrics`, counted by the node that served the client."""
    app = make_app(make_node("lock"))
    app[HOST].metrics.served.locks_acquired += 2

    status, answer = await get_json(app, path, Accept=accept)

    assert (status, answer) == (200, {"ok": True, "metrics": {**ZEROES, "locks_acquired": 2}})


@pytest.mark.parametrize(
    ("path", "accept", "content_type"),
    [
        ("/metrics", "*/*", "text/plain"),
        ("/metrics", "", "text/plain"),
        ("/metrics", "text/html,application/xhtml+xml,*/*;q=0.8", "text/plain"),
        ("/metrics", "text/plain, application/json;q=0.5", "text/plain"),
        ("/metrics", "application/json;q=0", "text/plain"),
        ("/metrics", "application/json;q=x", "text/plain"),
        ("/metrics", "text/plain;version=foo", "text/plain"),
        ("/metrics", "text/plain;version=1=2", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=x", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=1.0.0-rc", "text/plain"),
        ("/metrics", ";;;,,,=", "text/plain"),
        ("/metrics?format=text", "application/json", "text/plain"),
        ("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text"),
        ("/metrics?format=openmetrics", "*/*", "application/openmetrics-text"),
    ],
)
async def test_the_metrics_are_text_otherwise(path, accept, content_type):
    """Goal: browsers, curl and Prometheus get Prometheus text, OpenMetrics only where it is asked for."""
    async with serving(make_app(make_node("lock"))) as client:
        response = await client.get(path, headers={"Accept": accept})
        text = await response.text()

    assert (response.status, response.content_type) == (200, content_type)
    assert "# TYPE rpc_latency_seconds histogram" in text
    assert text.endswith("# EOF\n") == (content_type == "application/openmetrics-text")


async def test_an_unknown_format_is_refused():
    """Goal: a typo does not silently give another format."""
    status, answer = await get_json(make_app(make_node("lock")), "/metrics?format=xml")

    assert (status, answer["reason"]) == (400, "bad_request")
    assert "`json`" in answer["detail"]


async def test_a_scrape_reads_terms_and_indexes_from_every_group_at_that_moment():
    """Goal: no gauge that somebody must remember to set."""
    app = make_app(make_node("lock", term=7), make_node("queue", term=8, role=Role.LEADER, leader="node1"))
    async with serving(app) as client:
        await client.get("/metrics")
        app[HOST].nodes["lock"] = make_node("lock", term=9)

        text = await (await client.get("/metrics")).text()

    values = {
        (sample.name, sample.labels["group"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("raft_") and set(sample.labels) == {"group"}
    }
    assert values["raft_term", "lock"] == 9.0
    assert values["raft_term", "queue"] == 8.0
    assert values["raft_role", "queue"] == 2.0
    assert values["raft_commit_index", "lock"] == 120.0
    assert values["raft_applied_index", "lock"] == 119.0
    assert values["raft_elections_total", "lock"] == 4.0
    assert values["raft_leader_changes_total", "lock"] == 3.0


async def test_a_scrape_tells_how_the_node_stands_in_its_groups_and_its_room_on_the_disk():
    """Goal: an alert needs no log: a full disk, a refused group, a node that is no member."""
    app = make_app(
        make_node("lock", membership="none"),
        make_node("queue", membership="learner"),
        make_node("cache", disk_full=True),
    )
    here = app[HOST]
    here.damaged["lock"] = DamagedGroup("lock", Path("/data/lock"), "damaged", "repair it")
    here.disk_space = DiskSpace(free_bytes=5, total_bytes=9)

    async with serving(app) as client:
        text = await (await client.get("/metrics")).text()

    values = {
        (sample.name, sample.labels.get("group")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("mufakat_")
    }
    assert [values["mufakat_membership", group] for group in ("lock", "queue", "cache")] == [0, 1, 2]
    assert [values["mufakat_group_refused", group] for group in ("lock", "queue", "cache")] == [1, 0, 0]
    assert [values["mufakat_disk_full", group] for group in ("lock", "queue", "cache")] == [0, 0, 1]
    assert values["mufakat_disk_free_bytes", None] == 5
