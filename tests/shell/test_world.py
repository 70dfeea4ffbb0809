"""services/world/world.py: a simulated site, as somebody else's tests use it."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from structlog.testing import capture_logs

from common.config import SettingsError
from services.world.world import World, WorldFailed, mufakat_world


async def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST it until it is answered with 200, as an application does."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while True:
            try:
                async with session.post(url, json=body) as response:
                    if response.status == 200:
                        told: dict[str, Any] = await response.json()
                        return told
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.1)


def acquire(world: World, node: str, key: str = "A", **more: Any) -> dict[str, Any]:
    return world.run(ask(f"{world.url(node)}/lock/acquire", {"key": key, "client_id": "me", **more}), within_s=60)


def test_an_application_uses_all_three_services() -> None:
    with mufakat_world(seed=1) as world:
        assert acquire(world, "n1")["ok"]
        assert world.run(ask(f"{world.url('n2')}/queue/enq", {"key": "k", "value": 1}))["ok"]
        message = world.run(ask(f"{world.url('n3')}/queue/deq", {"wait": 1}))
        assert message["payload"] == {"key": "k", "value": 1}
        assert world.run(ask(f"{world.url('n1')}/cache/put", {"key": "c", "val": [1]}))["ok"]
        assert world.run(ask(f"{world.url('n3')}/cache/get", {"key": "c"}))["val"] == [1]


def test_sleep_costs_what_happens_in_it() -> None:
    """A leader beats twenty times a second: some milliseconds of work for each second of the world."""
    with mufakat_world(seed=2, groups=("lock",)) as world:
        assert acquire(world, "n1", ttl=50)["ok"]
        began, before = time.process_time(), world.loop.now_us
        world.run(asyncio.sleep(60), within_s=61)
        assert world.loop.now_us - before >= 60_000_000
        assert time.process_time() - began < 30
        # The ttl has ended, and somebody else may have it.
        body = {"key": "A", "client_id": "another"}
        assert world.run(ask(f"{world.url('n2')}/lock/acquire", body))["ok"]


def test_a_leader_is_killed_and_another_one_serves() -> None:
    with mufakat_world(seed=3, groups=("lock",)) as world:
        leader = world.leader("lock")
        assert leader is not None
        leader.kill()
        other = next(name for name in world.nodes if name != leader.name)
        assert acquire(world, other)["ok"]
        leader.start()
        world.until(lambda: leader.serves, 10, "it serves again")
        assert not acquire(world, leader.name, client_id="another")["ok"]


def test_what_was_told_survives_that_all_lose_power() -> None:
    with mufakat_world(seed=4, groups=("queue",)) as world:
        assert world.run(ask(f"{world.url('n1')}/queue/enq", {"key": "k", "value": "kept"}))["ok"]
        for node in world.nodes.values():
            node.power_off()
        world.sleep(1)
        world.heal()
        told = world.run(ask(f"{world.url('n2')}/queue/deq", {"wait": 5}), within_s=60)
        assert told["payload"]["value"] == "kept"


def test_a_node_that_is_cut_off_says_so_and_comes_back() -> None:
    with mufakat_world(seed=5, groups=("lock",)) as world:
        world.isolate("n1")
        world.sleep(3)

        async def look() -> int:
            async with aiohttp.ClientSession() as session, session.get(world.url("n1") + "/readyz") as response:
                return response.status

        assert world.run(look()) == 503
        world.mend()
        world.sleep(3)
        assert world.run(look()) == 200


def test_the_example_of_the_docs_holds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(from services\.world.*?)^```", page, re.MULTILINE | re.DOTALL)

    async def run_job(url: str) -> bool:
        return bool((await ask(f"{url}/lock/acquire", {"key": "job", "client_id": url}))["ok"])

    made: dict[str, Any] = {"run_job": run_job}
    exec(compile(example, "docs/testing.md", "exec"), made)
    made["test_the_job_runs_once_although_a_leader_dies"]()


def test_a_node_joins_and_one_whose_disk_is_lost_is_taken_in_anew() -> None:
    with mufakat_world(seed=9, groups=("lock",)) as world:
        node = world.add_node()
        node.start()
        asked = f"{world.url('n1')}/admin/members"
        joined = world.run(ask(asked, {"add": {"id": "n4", "address": world.address("n4")}}), within_s=60)
        assert "n4" in [member["id"] for member in joined["groups"]["lock"]["members"]]
        world.until(lambda: node.here is not None and node.here.nodes["lock"].core.is_voter, 20, "n4 votes")

        world.nodes["n2"].lose_disk()
        world.nodes["n2"].start()
        world.run(ask(asked, {"remove": {"id": "n2"}}), within_s=60)
        world.run(ask(asked, {"add": {"id": "n2", "address": world.address("n2")}}), within_s=60)
        assert acquire(world, "n2")["ok"]


def test_what_is_cut_from_clients_is_cut_from_those_that_come_later() -> None:
    async def look(world: World) -> int:
        url, timeout = world.url("n1") + "/livez", aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return response.status

    with mufakat_world(seed=10, groups=("lock",)) as world:
        world.cut("n1", "clients")
        with pytest.raises(TimeoutError):
            world.run(look(world))
        world.mend()
        assert world.run(look(world)) == 200
        world.isolate("n1")
        late = world.add_node()
        assert not world.network.carries(late.host, world.nodes["n1"].host)
        assert world.network.carries(late.host, world.nodes["n2"].host)


def test_a_node_whose_settings_are_wrong_does_not_run() -> None:
    with mufakat_world(seed=11, groups=("lock",)) as world:
        node = world.nodes["n1"]
        node.kill()
        node.variables["MUFAKAT_HEARTBEAT_MS"] = "often"
        with pytest.raises(SettingsError):
            node.start()
        assert not node.runs
        del node.variables["MUFAKAT_HEARTBEAT_MS"]
        node.start()
        world.until_all_serve()


def test_time_does_not_pass_by_a_call_within_it() -> None:
    with mufakat_world(seed=12, groups=("lock",)) as world:

        async def sleeps() -> None:
            world.sleep(1)

        with pytest.raises(RuntimeError, match="calls of the test itself"):
            world.run(sleeps())
        assert acquire(world, "n1")["ok"]


def test_the_world_tells_of_what_nobody_was_told() -> None:
    async def forgets() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    with mufakat_world(seed=13, groups=("lock",)) as world:
        assert world.failures == []
        world.run(forgets())
        world.sleep(0.1)
        assert "ZeroDivisionError" in world.failures[0]
        world.nodes["n1"].disk.fail_next_sync()
        acquire(world, "n2")
        world.until(lambda: not world.nodes["n1"].runs, 10, "n1 ends")
        assert any(failure.startswith("n1 ended: ") for failure in world.failures)


def test_lines_of_the_application_go_where_they_went() -> None:
    async def logs() -> None:
        structlog.get_logger().info("the job runs")

    with capture_logs() as lines, mufakat_world(seed=14, groups=("lock",)) as world:
        world.run(logs())
    assert [line["event"] for line in lines] == ["the job runs"]


def test_what_is_not_done_in_time_fails() -> None:
    with mufakat_world(seed=6, groups=("lock",), nodes=1) as world:
        with pytest.raises(WorldFailed):
            world.run(asyncio.sleep(10), within_s=5)
        with pytest.raises(WorldFailed):
            world.until(lambda: False, 1, "never")


def test_the_same_seed_gives_the_same_run() -> None:
    digests = set()
    for _ in range(2):
        with mufakat_world(seed=7) as world:
            acquire(world, "n2")
            world.nodes["n1"].kill()
            acquire(world, "n2", key="B")
            digests.add((world.loop.digest, world.loop.events))
    assert len(digests) == 1
    with mufakat_world(seed=8) as world:
        assert (world.loop.digest, world.loop.events) not in digests
