"""The stampede guard over HTTP: one caller fills, the others wait or come back."""

import asyncio
from typing import Any

import pytest

from common.config import load_settings
from raft.errors import NoLeader, OutcomeUnknown, Stopping
from raft.replica import RESTORED_TOPIC
from services.cache.node import filling
from services.cache.node.filling import FillLines
from services.cache.replicated.commands import Fill
from services.replicated import withdrawals
from services.replicated.envelope import encode_command
from services.replicated.limits import SetLimits
from tests.helpers import eventually
from tests.services.cache.cluster import Cluster
from tests.services.cache.tools import MISS


def lines(cluster: Cluster, node: str = "node1") -> FillLines:
    return cluster.hosts[node].parts[FillLines]


def ask(cluster: Cluster, node: str = "node1", **fields: Any) -> asyncio.Task:
    return asyncio.create_task(cluster.post("/cache/get", {"key": "k", **fields}, node))


async def in_line(cluster: Cluster, count: int, node: str = "node1") -> None:
    """So many callers wait at the node, and nothing is under way."""
    await eventually(
        lambda: (
            lines(cluster, node).waiting == count
            and all(caller.timer for line in lines(cluster, node)._lines.values() for caller in line.callers)
        )
    )


async def test_one_caller_gets_the_lease_and_the_others_are_told_to_come_back(cluster: Cluster) -> None:
    first = await cluster.post("/cache/get", {"key": "k", "wait": 0})
    second = await cluster.post("/cache/get", {"key": "k", "wait": 0}, "node2")
    third = await cluster.get("/cache/read?key=k&wait=0", "node3")

    assert first == {**MISS, "lease": 1, "lease_expires_in_s": 10.0}
    assert second == {**MISS, "filling": True, "retry_in_s": 1.0}
    assert third == {"ok": False, "reason": "not_found", "filling": True, "retry_in_s": 1.0}
    assert cluster.metric("cache_fill_leases") == 1
    assert cluster.metric("cache_leases_granted_total") == 1
    assert cluster.metric("cache_leases_granted_total", "node2") == 0


async def test_waiting_callers_at_every_node_are_served_what_the_one_put(cluster: Cluster) -> None:
    token = (await cluster.post("/cache/get", {"key": "k", "wait": 5}))["lease"]
    waiting = [ask(cluster, node, wait=30) for node in ("node1", "node2", "node2", "node3")]
    for node, count in (("node1", 1), ("node2", 2), ("node3", 1)):
        await in_line(cluster, count, node)
    index = cluster.log.index

    filled = await cluster.post("/cache/put", {"key": "k", "val": [7], "lease": token})
    answers = await asyncio.gather(*waiting)

    assert [(each["val"], each["version"]) for each in answers] == [([7], filled["version"])] * 4
    assert [each["state"] for each in answers] == ["M", "S", "S", "S"]
    # The put, and one question from each of three nodes, however many wait there.
    assert cluster.log.index == index + 4
    assert cluster.metric("cache_fill_waiting") == 0


async def test_a_stampede_costs_an_entry_for_each_round_trip_and_not_for_each_caller(cluster: Cluster) -> None:
    cluster.log.way = asyncio.Event()
    asked = [ask(cluster, wait=0.01) for _ in range(50)]
    await eventually(lambda: lines(cluster).waiting == 50)

    cluster.log.way.set()
    answers = await asyncio.gather(*asked)

    assert sorted("lease" in each for each in answers) == [False] * 49 + [True]
    assert cluster.log.index <= 2


async def test_who_waits_in_vain_is_told_to_come_back(cluster: Cluster) -> None:
    await cluster.post("/cache/get", {"key": "k", "wait": 0})

    late = await cluster.post("/cache/get", {"key": "k", "wait": 0.05}, "node2")

    assert late == {**MISS, "filling": True, "retry_in_s": 1.0}
    assert lines(cluster, "node2")._lines == {}


async def test_a_lease_that_runs_out_goes_to_one_of_those_who_wait(cluster: Cluster) -> None:
    await cluster.post("/cache/get", {"key": "k", "lease_ttl": 2})
    waiting = {ask(cluster, wait=30, lease_ttl=3), ask(cluster, "node2", wait=30, lease_ttl=3)}
    await in_line(cluster, 1)
    await in_line(cluster, 1, "node2")

    cluster.log.advance(2100)
    (first,), (second,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    winner = first.result()
    await cluster.post("/cache/put", {"key": "k", "val": 1, "lease": winner["lease"]})

    assert winner["lease_expires_in_s"] == 3.0
    assert (await second)["val"] == 1


async def test_a_late_fill_is_refused_with_the_reason_and_counted(cluster: Cluster) -> None:
    token = (await cluster.post("/cache/get", {"key": "k", "wait": 0}))["lease"]
    await cluster.post("/cache/put", {"key": "k", "val": "new"}, "node2")

    refused = await cluster.post("/cache/put", {"key": "k", "val": "old", "lease": token}, status=409)

    assert (refused["ok"], refused["reason"], refused["version"]) == (False, "lease_lost", 2)
    assert "read the key again" in refused["detail"]
    assert cluster.metric("cache_leases_lost_total") == 1
    assert (await cluster.post("/cache/get", {"key": "k"}))["val"] == "new"


async def test_a_value_from_before_its_tag_was_invalidated_is_refused(cluster: Cluster) -> None:
    token = (await cluster.post("/cache/get", {"key": "k", "wait": 0}))["lease"]
    await cluster.post("/cache/invalidate", {"tag": "users"}, "node2")

    body = {"key": "k", "val": "old", "tags": ["users"], "lease": token}
    assert (await cluster.post("/cache/put", body, status=409))["reason"] == "lease_lost"


async def test_a_lease_that_is_given_back_goes_to_the_next_at_once(cluster: Cluster) -> None:
    token = (await cluster.post("/cache/get", {"key": "k", "wait": 0}))["lease"]
    waiting = ask(cluster, "node2", wait=30)
    await in_line(cluster, 1, "node2")

    assert await cluster.post("/cache/delete", {"key": "k", "lease": token}) == {"ok": True, "deleted": False}

    assert "lease" in await waiting


async def test_null_fills_a_key_that_is_known_not_to_exist(cluster: Cluster) -> None:
    """Goal: negative caching. A null with a short ttl is a hit for everybody until it ends; then one asks again."""
    token = (await cluster.post("/cache/get", {"key": "k", "wait": 0}))["lease"]
    waiting = ask(cluster, "node2", wait=30)
    await in_line(cluster, 1, "node2")

    await cluster.post("/cache/put", {"key": "k", "val": None, "ttl": 2, "lease": token})

    answer = await waiting
    assert (answer["hit"], answer["val"]) == (True, None)
    cluster.log.time_ms += 2000
    assert "lease" in await cluster.post("/cache/get", {"key": "k", "wait": 0}, "node2")


async def test_a_hit_takes_no_lease_and_asks_nobody(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 1})
    index = cluster.log.index

    answer = await cluster.post("/cache/get", {"key": "k", "wait": 1})

    assert (answer["source"], cluster.log.index) == ("local", index)


async def test_a_caller_that_goes_away_leaves_its_line(cluster: Cluster) -> None:
    await cluster.post("/cache/get", {"key": "k", "wait": 0})
    waiting = ask(cluster, "node2", wait=300)
    await in_line(cluster, 1, "node2")

    waiting.cancel()

    await eventually(lambda: lines(cluster, "node2").waiting == 0)
    assert lines(cluster, "node2")._lines == {}


async def test_a_lease_won_for_a_caller_who_has_gone_is_given_back(cluster: Cluster) -> None:
    """Goal: a key is not blocked by a client that never heard of its lease."""
    cluster.log.way = asyncio.Event()
    asked = ask(cluster)
    asked.cancel()
    asked = ask(cluster, wait=1)
    await eventually(lambda: cluster.log.index == 1)
    asked.cancel()
    await eventually(lambda: lines(cluster).waiting == 0)

    cluster.log.way.set()

    await eventually(lambda: cluster.log.index == 2)
    assert cluster.replica("node1").machine.inner.lease_token("k") is None
    assert lines(cluster)._lines == {}


async def test_who_comes_behind_a_caller_who_has_gone_gets_the_lease(cluster: Cluster) -> None:
    cluster.log.way = asyncio.Event()
    first = ask(cluster, wait=1)
    await eventually(lambda: cluster.log.index == 1)
    first.cancel()
    await eventually(lambda: lines(cluster).waiting == 0)
    second = ask(cluster, wait=1)
    await eventually(lambda: lines(cluster).waiting == 1)

    cluster.log.way.set()

    assert (await second)["lease"] == 1


async def test_a_lease_whose_answer_was_lost_goes_to_the_next_caller_of_that_node(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a leader change in the middle of the question does not block the key for the lease's time."""
    # The next caller comes before the lease is given back.
    monkeypatch.setattr(withdrawals, "RETRY_S", 60)
    cluster.log.way = asyncio.Event()
    first = asyncio.create_task(cluster.post("/cache/get", {"key": "k", "wait": 0}, status=504))
    await eventually(lambda: cluster.log.index == 1)
    cluster.log.broken = OutcomeUnknown("lost")
    cluster.log.way.set()
    assert (await first)["reason"] == "outcome_unknown"

    cluster.log.broken = None

    assert "filling" in await cluster.post("/cache/get", {"key": "k", "wait": 0}, "node2")
    assert (await cluster.post("/cache/get", {"key": "k", "wait": 0}))["lease"] == 1
    assert "filling" in await cluster.post("/cache/get", {"key": "k", "wait": 0})


async def test_who_has_time_left_waits_through_an_election(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the lease ends just when there is no leader; who waits hears of the next one and not of an error."""
    monkeypatch.setattr(filling, "RETRY_S", 0.01)
    cluster.log.broken = NoLeader("none")
    patient = ask(cluster, wait=30)
    hasty = asyncio.create_task(cluster.post("/cache/get", {"key": "k", "wait": 0.05}, status=503))

    refused = await hasty
    cluster.log.broken = None

    assert refused["reason"] == "no_leader"
    assert "lease" in await patient
    assert cluster.metric("cache_fill_waiting") == 0


async def test_a_lease_that_ended_while_its_answer_was_on_the_way_is_not_given(cluster: Cluster) -> None:
    cluster.log.way = asyncio.Event()
    asked = ask(cluster, wait=30)
    await eventually(lambda: cluster.log.index == 1)

    put = asyncio.create_task(cluster.post("/cache/put", {"key": "k", "val": 1}, "node2"))
    await eventually(lambda: cluster.log.index == 2)
    cluster.log.way.set()

    assert (await put)["ok"]
    assert (await asked)["val"] == 1
    assert lines(cluster)._given == {}


async def test_callers_ask_again_behind_a_snapshot(cluster: Cluster) -> None:
    """Goal: what ended the lease may lie in what the snapshot skipped."""
    await cluster.post("/cache/get", {"key": "k", "wait": 0})
    waiting = ask(cluster, "node2", wait=30)
    await in_line(cluster, 1, "node2")
    replica = cluster.replica("node2")
    heard, replica.subscribers = replica.subscribers, []
    await cluster.post("/cache/put", {"key": "k", "val": 1})
    replica.subscribers = heard

    for topic, callback in tuple(heard):
        if topic == RESTORED_TOPIC:
            callback(type("Meta", (), {"index": cluster.log.index}))

    assert (await waiting)["val"] == 1


async def test_a_node_that_stops_sends_its_callers_away(cluster: Cluster) -> None:
    await cluster.post("/cache/get", {"key": "k", "wait": 0})
    waiting = asyncio.create_task(cluster.post("/cache/get", {"key": "k", "wait": 300}, "node2", status=503))
    await in_line(cluster, 1, "node2")

    cluster.replica("node2").close(Stopping("stopping"))

    assert (await waiting)["reason"] == "stopping"
    late = await cluster.post("/cache/get", {"key": "k", "wait": 300}, "node2", status=503)
    assert late["reason"] == "stopping"


async def test_a_retry_with_its_key_gets_the_lease_again_at_any_node(cluster: Cluster) -> None:
    """Goal: the answer to the first try was lost on the way to the client; the lease is not."""
    key = {"headers": {"Idempotency-Key": "once"}}
    first = await cluster.post("/cache/get", {"key": "k", "lease_ttl": 60}, **key)
    cluster.log.advance(20_000)

    again = await cluster.post("/cache/get", {"key": "k", "lease_ttl": 60}, "node2", **key)
    same = await cluster.post("/cache/get", {"key": "k", "lease_ttl": 60}, **key)
    other = await cluster.post("/cache/get", {"key": "k", "wait": 0}, "node2")

    assert first == {**MISS, "lease": 1, "lease_expires_in_s": 60.0}
    assert again == same == {**MISS, "lease": 1, "lease_expires_in_s": 40.0, "replayed": True}
    assert "filling" in other
    assert (await cluster.post("/cache/put", {"key": "k", "val": 1, "lease": 1}, "node3"))["ok"]
    assert (await cluster.post("/cache/get", {"key": "k", "wait": 0}, **key))["val"] == 1


async def test_a_read_by_get_with_a_key_is_repeated_in_its_own_words(cluster: Cluster) -> None:
    key = {"Idempotency-Key": "once"}
    for node, replayed in (("node1", {}), ("node2", {"replayed": True})):
        async with cluster.clients[node].get("/cache/read?key=k&wait=0", headers=key) as response:
            answer = await response.json()

        assert answer == {"ok": False, "reason": "not_found", "lease": 1, "lease_expires_in_s": 10.0, **replayed}


async def test_a_retry_that_stands_behind_others_in_line_gets_its_lease(cluster: Cluster) -> None:
    """Goal: one question for all who wait at a node, and still everybody's own lease."""
    await cluster.post("/cache/get", {"key": "k", "lease_ttl": 60}, headers={"Idempotency-Key": "mine"})
    others = [ask(cluster, "node2", wait=30), ask(cluster, "node2", wait=30, lease_ttl=5)]
    await in_line(cluster, 2, "node2")

    again = await cluster.post("/cache/get", {"key": "k", "wait": 30}, "node2", headers={"Idempotency-Key": "mine"})

    assert again["lease"] == 1
    await cluster.post("/cache/put", {"key": "k", "val": 1, "lease": 1})
    assert [(await each)["val"] for each in others] == [1, 1]


async def test_what_a_first_try_gives_back_is_not_what_the_retry_was_told(cluster: Cluster) -> None:
    """Goal: the node of the first try hears that its client has gone while another node tells the client again: the
    retry's entry stands before the one that gives back."""
    key = {"Idempotency-Key": "once"}
    cluster.log.way = asyncio.Event()
    first = asyncio.create_task(cluster.post("/cache/get", {"key": "k", "wait": 30}, headers=key))
    await eventually(lambda: cluster.log.index == 1)
    first.cancel()
    await eventually(lambda: lines(cluster).waiting == 0)
    retry = encode_command(Fill("k", "node2", 10_000, "node2:elsewhere", "once"))
    cluster.replica("node1").before_append = lambda: cluster.log.append(retry)

    cluster.log.way.set()

    await eventually(lambda: cluster.log.index == 3)
    assert cluster.replica("node1").machine.inner.lease_token("k") == 1


async def test_a_key_that_is_none_is_refused(cluster: Cluster) -> None:
    key = {"Idempotency-Key": "x" * 129}

    refused = await cluster.post("/cache/get", {"key": "k", "wait": 0}, status=400, headers=key)

    assert "Idempotency-Key" in refused["detail"]
    assert cluster.log.index == 0


async def test_callers_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "WAITING_MAX", 1)
    await cluster.post("/cache/get", {"key": "k", "wait": 0})
    waiting = ask(cluster, wait=30)
    await in_line(cluster, 1)

    refused = await cluster.post("/cache/get", {"key": "k", "wait": 1}, status=429)

    assert refused["reason"] == "quota"
    await cluster.post("/cache/put", {"key": "k", "val": 1})
    assert (await waiting)["val"] == 1


async def test_leases_of_the_cluster_are_bounded(cluster: Cluster) -> None:
    cluster.log.append(encode_command(SetLimits((("fill_leases_max", 1),))))
    cluster.log.append(encode_command(Fill("other", "node2", 60_000, "node2:x")))

    assert (await cluster.post("/cache/get", {"key": "k", "wait": 0}, status=429))["reason"] == "quota"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"wait": -1}, "wait"),
        ({"wait": 301}, "wait"),
        ({"lease_ttl": 0}, "lease_ttl"),
        ({"lease_ttl": 301}, "lease_ttl"),
        ({"wait": 1, "stale_ok": True}, "stale_ok"),
    ],
)
async def test_a_guard_that_cannot_be_is_refused(cluster: Cluster, fields: dict[str, Any], named: str) -> None:
    refused = await cluster.post("/cache/get", {"key": "k", **fields}, status=400)

    assert named in refused["detail"]
    assert cluster.log.index == 0


async def test_a_reader_may_wait_for_nothing_because_it_could_not_fill(cluster: Cluster) -> None:
    here = cluster.hosts["node1"]
    here.settings = load_settings(
        {
            "MUFAKAT_NODE_ID": "node1",
            "MUFAKAT_AUTH_TOKENS": "reader:read-only-token-1,client:a-client-token-22",
        }
    )
    reader = {"Authorization": "Bearer read-only-token-1"}
    client = {"Authorization": "Bearer a-client-token-22"}

    refused = await cluster.post("/cache/get", {"key": "k", "wait": 1}, status=403, headers=reader)

    assert refused["reason"] == "forbidden"
    assert "lease" in await cluster.post("/cache/get", {"key": "k", "wait": 0}, headers=client)
