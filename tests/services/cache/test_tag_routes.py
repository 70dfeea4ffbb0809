"""Tags over HTTP: what a reader can still see behind an invalidation, and what is refused."""

from typing import Any

import pytest

from services.cache.replicated import store
from services.cache.replicated.tags import TAGS_PER_LINE_MAX
from tests.services.cache.cluster import Cluster
from tests.services.cache.tools import MISS, NODES


async def test_an_invalidation_takes_the_lines_from_every_node(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "a", "val": 1, "tags": ["users", "eu"]})
    await cluster.post("/cache/write", {"key": "b", "value": 1, "tags": ["users"]}, "node2")
    await cluster.post("/cache/mput", {"items": [{"key": "c", "val": 1, "tags": ["eu"]}, {"key": "d", "val": 1}]})
    for node in NODES:
        await cluster.post("/cache/mget", {"keys": ["a", "b", "c", "d"]}, node)
    index = cluster.log.index

    answer = await cluster.post("/cache/invalidate", {"tag": "users"}, "node3")

    assert answer == {"ok": True, "invalidated": 2}
    assert cluster.log.index == index + 1
    for node in NODES:
        items = (await cluster.post("/cache/mget", {"keys": ["a", "b", "c", "d"]}, node))["items"]
        assert [item["hit"] for item in items] == [False, False, True, True]
        assert [item["source"] for item in items[2:]] == ["local", "local"]
    assert cluster.metric("cache_invalidated_total", "node2") == 2
    assert cluster.metric("cache_tags") == 1


async def test_no_node_serves_a_line_that_is_not_swept_yet(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a local hit looks at the tags, whether or not the line's room was taken back."""
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", 0)
    for number in range(5):
        await cluster.post("/cache/put", {"key": f"k{number}", "val": 1, "tags": ["t"]})

    await cluster.post("/cache/invalidate", {"tag": "t"}, "node2")

    assert (await cluster.get("/cache/lines"))["lines"] == []
    assert await cluster.get("/cache/line?key=k0") == {"ok": False, "reason": "not_found"}
    assert await cluster.get("/cache/read?key=k0") == {"ok": False, "reason": "not_found"}
    stale = await cluster.post("/cache/get", {"key": "k1", "stale_ok": True})
    assert stale == {**MISS, "stale": True}
    items = (await cluster.post("/cache/mget", {"keys": ["k2", "k3"]}))["items"]
    assert [item["hit"] for item in items] == [False, False]


async def test_an_unswept_line_is_read_by_a_fill_and_not_by_read_index(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: only a fill waits for the holders of what the invalidation removed."""
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", 0)
    await cluster.post("/cache/put", {"key": "k", "val": 1, "tags": ["t"]})
    cluster.log.time_ms += 100_000
    await cluster.post("/cache/invalidate", {"tag": "t"})
    index = cluster.log.index

    assert not (await cluster.post("/cache/get", {"key": "k"}, "node2"))["hit"]

    assert cluster.log.index == index + 1


async def test_the_row_of_a_line_names_its_tags(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 1, "tags": ["t", "s", "t"]})

    assert (await cluster.get("/cache/line?key=k", "node2"))["tags"] == ["t", "s"]


async def test_a_repeated_invalidation_gets_its_first_answer(cluster: Cluster) -> None:
    headers = {"Idempotency-Key": "once"}
    await cluster.post("/cache/put", {"key": "a", "val": 1, "tags": ["t"]})
    first = await cluster.post("/cache/invalidate", {"tag": "t"}, headers=headers)
    await cluster.post("/cache/put", {"key": "a", "val": 1, "tags": ["t"]})

    again = await cluster.post("/cache/invalidate", {"tag": "t"}, "node2", headers=headers)

    assert first == {"ok": True, "invalidated": 1}
    assert again == {**first, "replayed": True}
    assert (await cluster.post("/cache/get", {"key": "a"}))["hit"]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/cache/put", {"key": "k", "val": 1, "tags": ["t"] * (TAGS_PER_LINE_MAX + 1)}, "tags"),
        ("/cache/put", {"key": "k", "val": 1, "tags": ["x" * 300]}, "tags"),
        ("/cache/put", {"key": "k", "val": 1, "tags": [""]}, "tags"),
        ("/cache/put", {"key": "k", "val": 1, "tags": ["\x00k"]}, "tags"),
        ("/cache/put", {"key": "k", "val": 1, "tags": "t"}, "tags"),
        ("/cache/put", {"key": "k", "val": 1, "lease": 0}, "lease"),
        ("/cache/mput", {"items": [{"key": "k", "val": 1, "lease": 1}]}, "lease"),
        ("/cache/invalidate", {}, "tag"),
        ("/cache/invalidate", {"tag": ""}, "tag"),
        ("/cache/invalidate", {"tag": "a\nb"}, "tag"),
        ("/cache/invalidate", {"tag": "t", "key": "k"}, "key"),
    ],
)
async def test_a_bad_request_names_the_field(cluster: Cluster, path: str, body: Any, named: str) -> None:
    refused = await cluster.post(path, body, status=400)

    assert named in refused["detail"]
    assert cluster.log.index == 0
