"""The cache over HTTP: three nodes behind one log that lives in memory."""

from typing import Any

import pytest

from services.cache import reading
from services.cache.replicated.commands import Delete
from services.replicated.envelope import encode_command
from tests.services.cache.cluster import Cluster
from tests.services.cache.tools import MISS, NODES


async def test_the_writer_reads_its_value_from_memory_as_owner(cluster: Cluster) -> None:
    """Goal: the recorded use of a role-separated cluster."""
    value = {"name": "Arya", "score": 99}

    written = await cluster.post("/cache/put", {"key": "user:42", "val": value})
    read = await cluster.post("/cache/get", {"key": "user:42"})

    assert written == {"ok": True, "version": 1, "state": "M"}
    assert read == {"ok": True, "hit": True, "val": value, "state": "M", "version": 1, "source": "local"}
    assert cluster.log.index == 1


async def test_a_hit_passes_by_routing_and_is_counted_like_any_other(cluster: Cluster) -> None:
    """Goal: what stands in front answers the very bytes of the ordinary way, and what it leaves alone goes there."""
    await cluster.post("/cache/put", {"key": "k", "val": {"a": 1}})
    client = cluster.clients["node1"]

    plain = await (await client.get("/cache/read?key=k")).read()
    ordinary = await (await client.get("/cache/read?key=k&")).read()
    posted = await (await client.post("/cache/get", json={"key": "k"})).read()
    asking = {"Expect": "100-continue"}
    asked_first = await (await client.post("/cache/get", json={"key": "k"}, headers=asking)).read()

    assert plain == ordinary
    assert posted == asked_first
    assert cluster.hosts["node1"].metrics.served.cache_reads == 4
    assert cluster.metric("cache_hit_total") == 4
    counted = {"route": "/cache/read", "method": "GET", "status": "200"}
    assert cluster.metric("http_request_seconds_count", **counted) == 2


@pytest.mark.parametrize("query", ["lease_ttl=5", "wait=1"])
@pytest.mark.parametrize(
    ("site", "status"), [("same-site", 403), ("cross-site", 403), ("same-origin", 200), (None, 200)]
)
async def test_no_other_page_takes_a_lease_by_a_get(
    cluster: Cluster, query: str, site: str | None, status: int
) -> None:
    """Goal: an `<img>` on a foreign page kept everybody from filling a key. Who is no browser reads as documented."""
    headers = {} if site is None else {"Sec-Fetch-Site": site}

    async with cluster.clients["node1"].get(f"/cache/read?key=k&{query}", headers=headers) as response:
        answer = await response.json()

    assert (response.status, "lease" in answer) == (status, status == 200)


async def test_a_head_takes_no_lease(cluster: Cluster) -> None:
    """Goal: nobody would ever see its number."""
    async with cluster.clients["node1"].head("/cache/read?key=k&lease_ttl=5") as response:
        assert response.status == 405

    assert "lease" in await cluster.get("/cache/read?key=k&lease_ttl=5")


async def test_a_stale_read_asks_nobody_and_says_that_it_may_be_stale(cluster: Cluster) -> None:
    """Goal: a node without its peers still answers whoever can live with that; a line that it holds is not stale."""
    await cluster.post("/cache/put", {"key": "k", "val": 1})
    index = cluster.log.index

    other = await cluster.post("/cache/get", {"key": "k", "stale_ok": True}, "node2")
    long = await cluster.get("/cache/read?key=k&stale_ok=true", "node2")
    absent = await cluster.post("/cache/get", {"key": "none", "stale_ok": True}, "node2")
    own = await cluster.post("/cache/get", {"key": "k", "stale_ok": True})

    as_known = {"ok": True, "hit": True, "val": 1, "state": "I", "version": 1, "source": "replica", "stale": True}
    assert other == as_known
    assert long == {"ok": True, "value": {"state": "I", "value": 1, "version": 1}, "stale": True}
    assert (absent["hit"], absent["stale"]) == (False, True)
    assert "stale" not in own
    assert (cluster.log.index, cluster.replica("node2").read_rounds) == (index, 0)


async def test_a_hit_is_refused_to_a_foreign_page(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 1})

    async with cluster.clients["node1"].get(
        "/cache/read?key=k", headers={"Origin": "http://elsewhere.example"}
    ) as response:
        # The guard stands in the ordinary way, too, which it was left to.
        assert response.status == 403
    counted = {"route": "/cache/read", "method": "GET", "status": "200"}
    assert not cluster.metric("http_request_seconds_count", **counted)


async def test_the_second_reader_fills_and_shares(cluster: Cluster) -> None:
    """Goal: the recorded use of a combined cluster."""
    await cluster.post("/cache/write", {"key": "temperature", "value": 25})

    read = await cluster.get("/cache/read?key=temperature", "node3")

    assert read == {"ok": True, "value": {"state": "S", "value": 25, "version": 1}}
    again = await cluster.post("/cache/get", {"key": "temperature"}, "node3")
    assert (again["source"], again["state"]) == ("local", "S")


async def test_an_absent_key_costs_no_log_entry(cluster: Cluster) -> None:
    """Goal: once the node has run for long enough to know of every removal that a holder may not have heard of."""
    cluster.log.time_ms += 10_000

    assert await cluster.post("/cache/get", {"key": "k"}) == MISS
    assert await cluster.get("/cache/read?key=k") == {"ok": False, "reason": "not_found"}
    assert cluster.log.index == 0
    assert cluster.replica("node1").read_rounds == 2


async def test_a_fill_that_a_delete_overtakes_answers_what_the_log_says(cluster: Cluster) -> None:
    """Goal: between the look that misses and the fill anything may happen; the answer comes from apply."""
    await cluster.post("/cache/put", {"key": "k", "val": 1})

    cluster.replica("node2").before_append = lambda: cluster.log.append(encode_command(Delete("k")))
    read = await cluster.post("/cache/get", {"key": "k"}, "node2")

    assert read == MISS


async def test_null_is_a_value(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": None})

    read = await cluster.post("/cache/get", {"key": "k"})

    assert (read["hit"], read["val"]) == (True, None)


async def test_values_come_back_as_they_were_sent(cluster: Cluster) -> None:
    """Goal: numbers that no machine type holds and the spelling of a document survive."""
    body = b'{"key": "k", "val": [1.10, 123456789012345678901234567890, "\xc3\xa9\\u00e9"]}'
    async with cluster.clients["node1"].post(
        "/cache/put", data=body, headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 200

    async with cluster.clients["node2"].post("/cache/get", json={"key": "k"}) as response:
        assert b'[1.10, 123456789012345678901234567890, "\xc3\xa9\\u00e9"]' in await response.read()


async def test_if_version_that_does_not_match_is_a_conflict_with_the_version(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 1})

    refused = await cluster.post("/cache/put", {"key": "k", "val": 2, "if_version": 0}, status=409)

    assert (refused["ok"], refused["reason"], refused["version"]) == (False, "version_mismatch", 1)
    assert await cluster.post("/cache/put", {"key": "k", "val": 2, "if_version": 1}) == {
        "ok": True,
        "version": 3,
        "state": "M",
    }


async def test_a_ttl_ends_a_value_at_every_node(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 1, "ttl": 1.5})

    cluster.log.time_ms += 1499
    assert (await cluster.post("/cache/get", {"key": "k"}))["source"] == "local"
    cluster.log.time_ms += 1
    for node in NODES:
        assert not (await cluster.post("/cache/get", {"key": "k"}, node))["hit"]


async def test_delete_takes_the_line_from_its_holders(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 1})

    assert await cluster.post("/cache/delete", {"key": "k"}, "node2") == {"ok": True, "deleted": True}
    assert not (await cluster.post("/cache/get", {"key": "k"}))["hit"]
    assert await cluster.post("/cache/delete", {"key": "k"}) == {"ok": True, "deleted": False}


async def test_incr_counts_and_refuses_what_is_no_number(cluster: Cluster) -> None:
    assert (await cluster.post("/cache/incr", {"key": "n", "by": 5}))["value"] == 5
    assert (await cluster.post("/cache/incr", {"key": "n", "by": -7}, "node2"))["value"] == -2
    await cluster.post("/cache/put", {"key": "text", "val": "5"})

    refused = await cluster.post("/cache/incr", {"key": "text", "by": 1}, status=409)
    assert refused["reason"] == "not_an_integer"
    await cluster.post("/cache/put", {"key": "n", "val": 2**63 - 1})
    refused = await cluster.post("/cache/incr", {"key": "n"}, status=409)
    assert (refused["reason"], refused["value"]) == ("out_of_range", 2**63 - 1)


async def test_mput_and_mget_take_one_entry_each(cluster: Cluster) -> None:
    written = await cluster.post(
        "/cache/mput", {"items": [{"key": "a", "val": 1}, {"key": "b", "value": [2], "ttl": 60}]}
    )
    assert (written["ok"], written["state"], cluster.log.index) == (True, "M", 1)

    read = await cluster.post("/cache/mget", {"keys": ["b", "none", "a"]}, "node2")

    assert read == {
        "ok": True,
        "items": [
            {"key": "b", "hit": True, "val": [2], "state": "S", "version": 1, "source": "fill"},
            {"key": "none", "hit": False, "val": None, "state": "I"},
            {"key": "a", "hit": True, "val": 1, "state": "S", "version": 1, "source": "fill"},
        ],
    }
    assert cluster.log.index == 2
    again = await cluster.post("/cache/mget", {"keys": ["a", "b"]}, "node2")
    assert [item["source"] for item in again["items"]] == ["local", "local"]
    assert cluster.log.index == 2


async def test_mget_of_many_absent_keys_takes_one_read_round(cluster: Cluster) -> None:
    """And no entry."""
    cluster.log.advance(60_000)
    await cluster.post("/cache/put", {"key": "k", "val": 1})
    before = cluster.log.index

    read = await cluster.post("/cache/mget", {"keys": ["k", *(f"none{number}" for number in range(500))]})

    assert [item["hit"] for item in read["items"]] == [True] + [False] * 500
    assert (cluster.replica("node1").read_rounds, cluster.log.index) == (1, before)


async def test_mget_bounds_the_bytes_of_its_answer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MGET_BYTES_MAX", 10)
    await cluster.post("/cache/put", {"key": "a", "val": "x" * 9})

    refused = await cluster.post("/cache/mget", {"keys": ["a"]}, status=413)

    assert refused["reason"] == "too_large"


async def test_a_read_ignores_the_idempotency_key(cluster: Cluster) -> None:
    """Goal: a client that puts one key on every request does not read the past."""
    headers = {"Idempotency-Key": "once"}
    await cluster.post("/cache/put", {"key": "k", "val": 1})
    await cluster.post("/cache/get", {"key": "k"}, "node2", headers=headers)
    await cluster.post("/cache/put", {"key": "k", "val": 2})

    assert (await cluster.post("/cache/get", {"key": "k"}, "node2", headers=headers))["val"] == 2


async def test_a_repeated_write_gets_its_first_answer(cluster: Cluster) -> None:
    headers = {"Idempotency-Key": "once"}

    first = await cluster.post("/cache/incr", {"key": "n", "by": 1}, headers=headers)
    again = await cluster.post("/cache/incr", {"key": "n", "by": 1}, "node2", headers=headers)

    assert again == {**first, "replayed": True}
    assert (await cluster.post("/cache/get", {"key": "n"}))["val"] == 1


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/cache/put", {"val": 1}, "key"),
        ("/cache/put", {"key": "k"}, "val"),
        ("/cache/put", {"key": "k", "val": 1, "value": 1}, "val"),
        ("/cache/put", {"key": "k", "val": 1, "tll": 5}, "tll"),
        ("/cache/put", {"key": "k", "val": 1, "ttl": 0}, "ttl"),
        ("/cache/put", {"key": "k", "val": 1, "ttl": 4e7}, "ttl"),
        ("/cache/put", {"key": "k", "val": 1, "if_version": -1}, "if_version"),
        ("/cache/put", {"key": 7, "val": 1}, "key"),
        ("/cache/put", {"key": "x" * 10_000, "val": 1}, "key"),
        ("/cache/get", {"key": ""}, "key"),
        ("/cache/get", {"key": "a\nb"}, "key"),
        ("/cache/incr", {"key": "n", "by": 1.5}, "by"),
        ("/cache/incr", {"key": "n", "by": 2**63}, "by"),
        ("/cache/mget", {"keys": []}, "keys"),
        ("/cache/mget", {"keys": ["k"] * 1001}, "keys"),
        ("/cache/mput", {"items": [{"key": "a", "val": 1}, {"key": "a", "val": 2}]}, "items"),
        ("/cache/mput", {"items": [{"key": "a"}]}, "val"),
    ],
)
async def test_a_bad_request_is_refused_and_names_the_field(
    cluster: Cluster, path: str, body: Any, named: str
) -> None:
    refused = await cluster.post(path, body, status=400)

    assert refused["reason"] == "bad_request"
    assert named in refused["detail"]
    assert cluster.log.index == 0


async def test_a_value_over_the_limit_is_too_large(cluster: Cluster) -> None:
    refused = await cluster.post("/cache/put", {"key": "k", "val": "x" * (1 << 20)}, status=413)

    assert refused["reason"] == "too_large"
    assert (await cluster.post("/cache/put", {"key": "k", "val": "x" * ((1 << 20) - 2)}))["ok"]


async def test_line_shows_the_state_at_every_node(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 12, "ttl": 5})
    await cluster.post("/cache/get", {"key": "k"}, "node3")

    assert await cluster.get("/cache/line?key=k", "node2") == {
        "ok": True,
        "key": "k",
        "version": 1,
        "bytes": 2,
        "states": {"node1": "S", "node2": "I", "node3": "S"},
        "tags": [],
        "pending": [],
        "expires_in_s": 5.0,
    }
    assert await cluster.get("/cache/line?key=other") == {"ok": False, "reason": "not_found"}


async def test_lines_are_listed_in_pages(cluster: Cluster) -> None:
    for key in ("b3", "a1", "b1", "b4", "c1", "b2"):
        await cluster.post("/cache/put", {"key": key, "val": 1})

    first = await cluster.get("/cache/lines?prefix=b&limit=3")
    rest = await cluster.get(f"/cache/lines?prefix=b&limit=3&after={first['next']}")

    assert [row["key"] for row in first["lines"]] == ["b1", "b2", "b3"]
    assert [row["key"] for row in rest["lines"]] == ["b4"]
    assert (first["next"], rest["next"]) == ("b3", None)
    assert (await cluster.get("/cache/lines?limit=0", status=400))["reason"] == "bad_request"


async def test_reads_writes_hits_misses_lines_and_transitions_are_counted(cluster: Cluster) -> None:
    await cluster.get("/cache/read?key=none")
    await cluster.post("/cache/put", {"key": "k", "val": 1})
    await cluster.post("/cache/get", {"key": "k"})
    await cluster.post("/cache/get", {"key": "k"}, "node2")

    served = cluster.hosts["node1"].metrics.served
    assert (served.cache_writes, served.cache_reads) == (1, 2)
    assert (cluster.metric("cache_hit_total"), cluster.metric("cache_miss_total")) == (1, 1)
    assert cluster.metric("cache_lines", state="S") == 1
    assert cluster.metric("cache_transitions_total", **{"from": "I", "to": "M"}) == 1
    assert cluster.metric("cache_transitions_total", **{"from": "M", "to": "S"}) == 1


async def test_a_read_that_found_its_key_is_a_hit_wherever_it_found_it(cluster: Cluster) -> None:
    """Goal: the counters say what their words say: in memory, by a fill, stale, one of many, or not at all."""
    await cluster.post("/cache/put", {"key": "a", "val": 1})
    await cluster.post("/cache/put", {"key": "b", "val": 1})
    await cluster.post("/cache/put", {"key": "c", "val": 1})

    def counted() -> tuple[float | None, ...]:
        names = ("cache_hit_total", "cache_miss_total", "cache_filled_total")
        return tuple(cluster.metric(name, "node2") for name in names)

    await cluster.get("/cache/read?key=a", "node2")
    assert counted() == (1, 0, 1)
    await cluster.get("/cache/read?key=a", "node2")
    assert counted() == (2, 0, 1)
    await cluster.post("/cache/mget", {"keys": ["a", "b", "none"]}, "node2")
    assert counted() == (4, 1, 2)
    await cluster.post("/cache/get", {"key": "c", "stale_ok": True}, "node2")
    assert counted() == (5, 1, 2)
    await cluster.post("/cache/get", {"key": "none", "wait": 0}, "node2")
    assert counted() == (5, 2, 2)
    assert cluster.hosts["node2"].metrics.served.cache_reads == 7
