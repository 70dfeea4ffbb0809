"""The lock routes over HTTP: vocabularies, answers, refusals, waiting, counting."""

import asyncio
from typing import Any

import pytest

from services.lock.replicated.commands import DropWaiters
from services.replicated.envelope import encode_command
from services.replicated.limits import SetLimits
from tests.helpers import eventually
from tests.services.lock.serving import LockCluster


def started(coroutine: Any) -> asyncio.Task:
    return asyncio.create_task(coroutine)


async def in_line(cluster: LockCluster, count: int, key: str = "k") -> None:
    await eventually(lambda: cluster.machine.status(key)["queue_length"] == count)


async def joined(cluster: LockCluster, count: int, key: str = "k", owner: str = "b") -> None:
    """So many requests of one owner wait in its place."""

    def requests() -> int:
        place = cluster.machine._tables.place_of(key, owner)
        return 0 if place is None else len(place.listeners)

    await eventually(lambda: requests() == count)


class TestVocabularies:
    @pytest.mark.parametrize(
        ("body", "mode"),
        [
            ({"key": "A", "client_id": "c", "mode": "X"}, "exclusive"),
            ({"key": "A", "client_id": "c", "mode": "S"}, "shared"),
            ({"name": "A", "owner": "c", "mode": "exclusive"}, "exclusive"),
            ({"name": "A", "owner": "c", "mode": "shared"}, "shared"),
            ({"name": "A", "client_id": "c"}, "exclusive"),
        ],
    )
    async def test_both_are_understood_and_may_be_mixed(self, cluster, body, mode):
        answer = await cluster.post("/lock/acquire", body)

        assert answer == {"ok": True, "token": 1, "mode": mode, "expires_in_s": None}

    async def test_a_recorded_use_of_the_long_vocabulary(self, cluster):
        """Acquire at one node, be refused at another, release with a mode that means nothing."""
        mine = {"name": "resource1", "mode": "exclusive", "owner": "clientA"}

        first = await cluster.post("/lock/acquire", mine)
        refused = await cluster.post("/lock/acquire", {**mine, "owner": "clientB"}, node="node2")
        released = await cluster.post("/lock/release", mine)

        assert first["ok"]
        assert (refused["ok"], refused["reason"]) == (False, "locked")
        assert refused["current"] == {"owner": "clientA", "mode": "exclusive", "node": "node1"}
        assert released == {"ok": True}

    async def test_status_is_asked_in_both(self, cluster):
        await cluster.post("/lock/acquire", {"key": "A", "client_id": "c"})

        assert (await cluster.get("/lock/status?key=A"))["held"]
        assert (await cluster.get("/lock/status?name=A"))["held"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("path", "body", "named"),
        [
            ("/lock/acquire", {"client_id": "c"}, "key"),
            ("/lock/acquire", {"key": "k"}, "client_id"),
            ("/lock/acquire", {"key": "k", "name": "k", "client_id": "c"}, "name"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "owner": "c"}, "owner"),
            ("/lock/acquire", {"key": "", "client_id": "c"}, "key"),
            ("/lock/acquire", {"key": "k" * 257, "client_id": "c"}, "key"),
            ("/lock/acquire", {"key": "k", "owner": "c" * 10_000}, "owner"),
            ("/lock/acquire", {"key": "k\n", "client_id": "c"}, "key"),
            ("/lock/acquire", {"key": 7, "client_id": "c"}, "key"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "tll": 5}, "tll"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "mode": "Y"}, "mode"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "ttl": 0}, "ttl"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "ttl": -1}, "ttl"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "ttl": 30 * 86_400 + 1}, "ttl"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "ttl": "5"}, "ttl"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "ttl": True}, "ttl"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "wait": -0.1}, "wait"),
            ("/lock/acquire", {"key": "k", "client_id": "c", "wait": 3_601}, "wait"),
            ("/lock/release", {"key": "k"}, "client_id"),
            ("/lock/release", {"key": "k", "client_id": "c", "wait": 1}, "wait"),
            ("/lock/renew", {"key": "k", "client_id": "c"}, "ttl"),
            ("/lock/renew", {"key": "k", "client_id": "c", "ttl": None}, "ttl"),
            ("/lock/validate", {"key": "k"}, "token"),
            ("/lock/validate", {"key": "k", "token": 0}, "token"),
            ("/lock/validate", {"key": "k", "token": 1.5}, "token"),
            ("/lock/force_release", {}, "key"),
            ("/lock/force_release", {"key": "k", "client_id": "c", "owner": "c"}, "owner"),
        ],
    )
    async def test_a_bad_field_is_named_and_nothing_is_done(self, cluster, path, body, named):
        answer = await cluster.post(path, body, status=400)

        assert answer["reason"] == "bad_request"
        assert f"`{named}`" in answer["detail"]
        assert cluster.index == 0

    @pytest.mark.parametrize("path", ["/lock/acquire", "/lock/release", "/lock/renew", "/lock/validate"])
    async def test_a_body_is_needed(self, cluster, path):
        async with cluster.clients["node1"].post(path) as response:
            answer = await response.json()

        assert (response.status, answer["reason"]) == (400, "bad_request")

    @pytest.mark.parametrize(
        "path",
        [
            "/lock/status",
            "/lock/status?key=",
            "/lock/status?key=a&name=a",
            "/lock/status?keys=a",
            "/lock/list?limit=0",
            "/lock/list?limit=1001",
            "/lock/list?limit=ten",
        ],
    )
    async def test_a_bad_query_is_refused(self, cluster, path):
        answer = await cluster.get(path, status=400)

        assert answer["reason"] == "bad_request"

    async def test_a_full_line_is_429_with_retry_after(self, cluster):
        cluster.append(encode_command(SetLimits((("waiters_per_key_max", 0),))))
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})

        body = {"key": "k", "client_id": "b", "wait": 5}
        async with cluster.clients["node1"].post("/lock/acquire", json=body) as response:
            answer = await response.json()

        assert (response.status, answer["reason"]) == (429, "quota")
        assert "line" in answer["detail"]
        assert "Retry-After" in response.headers


class TestAnswers:
    async def test_expiry_is_told_in_seconds_from_now(self, cluster):
        granted = await cluster.post("/lock/acquire", {"key": "k", "client_id": "a", "ttl": 2.5})
        cluster.advance(1_000)
        refused = await cluster.post("/lock/acquire", {"key": "k", "client_id": "b"})
        renewed = await cluster.post("/lock/renew", {"key": "k", "client_id": "a", "ttl": 0.25})

        assert granted["expires_in_s"] == 2.5
        assert [held["expires_in_s"] for held in refused["holders"]] == [1.5]
        assert renewed == {"ok": True, "token": 1, "mode": "exclusive", "expires_in_s": 0.25}

    async def test_a_tiny_ttl_is_not_none(self, cluster):
        """Rounded to no milliseconds, it would have ended before it began."""
        granted = await cluster.post("/lock/acquire", {"key": "k", "client_id": "a", "ttl": 0.0001})

        assert granted["expires_in_s"] == 0.001

    @pytest.mark.parametrize("path", ["/lock/release", "/lock/renew"])
    async def test_not_held_is_an_outcome_with_200(self, cluster, path):
        body = {"key": "k", "client_id": "a"} | ({"ttl": 1} if path == "/lock/renew" else {})

        assert await cluster.post(path, body) == {"ok": False, "reason": "not_held"}

    async def test_validate(self, cluster):
        """Standing, overtaken (409 with the highest token), and ended with nobody after it."""
        token = (await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"}))["token"]
        standing = await cluster.post("/lock/validate", {"key": "k", "token": token})
        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})
        ended = await cluster.post("/lock/validate", {"key": "k", "token": token})
        newer = (await cluster.post("/lock/acquire", {"key": "k", "client_id": "b"}))["token"]
        fenced = await cluster.post("/lock/validate", {"name": "k", "token": token}, status=409)

        assert (standing["ok"], standing["valid"], standing["owner"]) == (True, True, "a")
        assert (ended["ok"], ended["valid"], ended["reason"]) == (False, False, "not_held")
        assert (fenced["ok"], fenced["reason"], fenced["highest_token"]) == (False, "fenced", newer)

    async def test_force_release(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})

        taken = await cluster.post("/lock/force_release", {"key": "k"})
        nothing = await cluster.post("/lock/force_release", {"key": "k"})

        assert (taken["ok"], [held["owner"] for held in taken["released"]]) == (True, ["a"])
        assert nothing == {"ok": False, "reason": "not_held"}

    async def test_status_shows_the_line_with_what_is_left_of_each_wait(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a", "ttl": 60})
        waiting = started(
            cluster.post("/lock/acquire", {"key": "k", "client_id": "b", "wait": 30}, node="node2")
        )
        await in_line(cluster, 1)
        cluster.advance(10_000)

        status = await cluster.get("/lock/status?key=k")

        assert [held["expires_in_s"] for held in status["holders"]] == [50]
        assert status["waiters"] == [
            {"owner": "b", "mode": "exclusive", "node": "node2", "deadline_in_s": 20}
        ]
        cluster.advance(30_000)
        await waiting

    async def test_reads_are_linearizable(self, cluster):
        """Each asks for a read index first."""
        for path in ("/lock/status?key=k", "/lock/list"):
            await cluster.get(path, node="node2")
        await cluster.post("/lock/validate", {"key": "k", "token": 1}, node="node2")

        assert cluster.replicas["node2"].read_rounds == 3


class TestList:
    async def test_pages_follow_the_order_of_the_keys(self, cluster):
        for key in ("b2", "a1", "b1", "b3", "c1", "b4"):
            await cluster.post("/lock/acquire", {"key": key, "client_id": "a"})

        first = await cluster.get("/lock/list?prefix=b&limit=3")
        second = await cluster.get(f"/lock/list?prefix=b&limit=3&after={first['next']}")
        everything = await cluster.get("/lock/list")

        assert [row["key"] for row in first["locks"]] == ["b1", "b2", "b3"]
        assert ([row["key"] for row in second["locks"]], second["next"]) == (["b4"], None)
        assert [row["key"] for row in everything["locks"]] == ["a1", "b1", "b2", "b3", "b4", "c1"]

    async def test_a_row_tells_who_holds_and_how_many_wait(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a", "mode": "S", "ttl": 9})

        assert (await cluster.get("/lock/list"))["locks"] == [
            {
                "key": "k",
                "mode": "shared",
                "holders": [{"owner": "a", "mode": "shared", "node": "node1", "token": 1, "expires_in_s": 9}],
                "holder_count": 1,
                "queue_length": 0,
            }
        ]


class TestWaiting:
    async def test_a_release_at_one_node_answers_a_waiter_at_another(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        body = {"key": "k", "client_id": "b", "wait": 60, "ttl": 5}
        waiting = started(cluster.post("/lock/acquire", body, node="node2"))
        await in_line(cluster, 1)

        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})

        assert await waiting == {"ok": True, "token": 2, "mode": "exclusive", "expires_in_s": 5}

    async def test_a_wait_in_vain_ends_with_timeout(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        waiting = started(cluster.post("/lock/acquire", {"key": "k", "client_id": "b", "wait": 1.5}))
        await in_line(cluster, 1)

        cluster.advance(1_500)

        answer = await waiting
        assert (answer["ok"], answer["reason"], answer["current"]["owner"]) == (False, "timeout", "a")

    async def test_a_deadlock_is_409_with_its_cycle(self, cluster):
        await cluster.post("/lock/acquire", {"key": "1", "client_id": "a"})
        await cluster.post("/lock/acquire", {"key": "2", "client_id": "b"})
        waiting = started(cluster.post("/lock/acquire", {"key": "2", "client_id": "a", "wait": 60}))
        await in_line(cluster, 1, "2")

        refused = await cluster.post(
            "/lock/acquire", {"key": "1", "client_id": "b", "wait": 60}, node="node2", status=409
        )

        assert refused["reason"] == "deadlock"
        assert refused["cycle"] == [
            {"owner": "b", "waits_for_key": "1", "held_by": "a"},
            {"owner": "a", "waits_for_key": "2", "held_by": "b"},
        ]
        await cluster.post("/lock/release", {"key": "2", "client_id": "b"})
        assert (await waiting)["ok"]

    async def test_a_client_that_disconnects_leaves_the_line(self, cluster):
        """Nothing stays queued for a client that has gone."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        waiting = started(cluster.post("/lock/acquire", {"key": "k", "client_id": "b", "wait": 60}))
        await in_line(cluster, 1)

        waiting.cancel()

        await in_line(cluster, 0)

    async def test_a_repeated_idempotency_key_joins_the_wait(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        body = {"key": "k", "client_id": "b", "wait": 60}
        headers = {"Idempotency-Key": "one"}
        first = started(cluster.post("/lock/acquire", body, headers=headers))
        await in_line(cluster, 1)
        again = started(cluster.post("/lock/acquire", body, headers=headers, node="node2"))
        await joined(cluster, 2)

        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})

        assert await first == await again
        assert cluster.machine.status("k")["queue_length"] == 0

    async def test_a_repeated_request_waits_on_where_the_first_one_is_withdrawn(self, cluster):
        """The node of the first request restarts while the repeated one waits at another, in the same place."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        body = {"key": "k", "client_id": "b", "wait": 60}
        headers = {"Idempotency-Key": "one"}
        first = started(cluster.post("/lock/acquire", body, headers=headers))
        await in_line(cluster, 1)
        again = started(cluster.post("/lock/acquire", body, headers=headers, node="node2"))
        await joined(cluster, 2)
        first.cancel()

        cluster.apply(DropWaiters("node1", "a later life"))

        await eventually(
            lambda: [waiter["node"] for waiter in cluster.machine.status("k")["waiters"]] == ["node2"]
        )
        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})
        assert (await again)["ok"]


class TestRepeating:
    async def test_a_refusal_that_is_told_again_says_how_to_ask_anew(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        body, headers = {"key": "k", "client_id": "b"}, {"Idempotency-Key": "one"}
        first = await cluster.post("/lock/acquire", body, headers=headers)

        again = await cluster.post("/lock/acquire", body, headers=headers, node="node2")

        assert "detail" not in first
        assert (again["reason"], again["replayed"]) == ("locked", True)
        assert "new key" in again["detail"]

    async def test_a_hold_that_is_told_again_says_so_and_what_is_left_of_it(self, cluster):
        body, headers = {"key": "k", "client_id": "a", "ttl": 9}, {"Idempotency-Key": "one"}
        await cluster.post("/lock/acquire", body, headers=headers)
        cluster.advance(4_000)

        again = await cluster.post("/lock/acquire", body, headers=headers, node="node2")
        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})
        ended = await cluster.post("/lock/acquire", body, headers=headers)

        assert (again["ok"], again["replayed"], again["expires_in_s"]) == (True, True, 5)
        assert (ended["ok"], ended["reason"], ended["token"]) == (False, "not_held", 1)


class TestCounting:
    async def test_what_was_served_is_counted_at_the_node_that_served_it(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "b"})
        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})
        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})

        served = cluster.hosts["node1"].metrics.served
        elsewhere = cluster.hosts["node2"].metrics.served
        assert (served.locks_acquired, served.locks_failed, served.locks_released) == (1, 1, 1)
        assert (elsewhere.locks_acquired, elsewhere.locks_failed) == (0, 0)

    async def test_gauges_follow_the_replicated_state_at_every_node(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        waiting = started(cluster.post("/lock/acquire", {"key": "k", "client_id": "b", "wait": 60}))
        await in_line(cluster, 1)

        registry = cluster.hosts["node2"].metrics.registry

        assert registry.get_sample_value("locks_held") == 1
        assert registry.get_sample_value("lock_waiters") == 1
        cluster.advance(60_000)
        await waiting

    async def test_deadlocks_are_counted(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a", "mode": "S"})
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a", "wait": 1}, status=409)

        assert cluster.hosts["node1"].metrics.registry.get_sample_value("lock_deadlocks_total") == 1
