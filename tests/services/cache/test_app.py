"""Guarded reads and watches through a real node of one: its log, its middleware and its stop."""

import asyncio
import json
from pathlib import Path

from aiohttp import ClientSession, web

from common.config import load_settings
from services.app import create_app
from tests.helpers import eventually


async def start(folder: Path) -> tuple[web.AppRunner, str]:
    """A node as `run_node` serves it; its address."""
    settings = load_settings(
        {},
        {
            "data_dir": str(folder),
            "cluster": "node1=127.0.0.1:8001",
            "groups": "cache",
            # A machine that stands still costs a lone node its office for an election; its clients wait for that.
            "leader_wait_ms": "20000",
            "request_timeout_ms": "20000",
        },
    )
    runner = web.AppRunner(create_app(settings), handler_cancellation=True, shutdown_timeout=3)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_a_stampede_ends_in_one_fill_and_a_stop_ends_every_wait(tmp_path: Path) -> None:
    """Goal: nothing of it needs more than the node itself: leases end by its clock, streams and waits by its stop."""
    runner, address = await start(tmp_path)
    async with ClientSession(address) as client:

        async def ask(path: str, **body: object) -> tuple[int, dict]:
            async with client.post(path, json=body) as response:
                return response.status, await response.json()

        async def is_ready() -> bool:
            async with client.get("/readyz") as response:
                return response.status == 200

        async def is_waiting_and_expired() -> bool:
            async with client.get("/metrics") as response:
                page = await response.text()
            return "cache_fill_waiting 1.0" in page and 'cache_transitions_total{from="M",to="I"} 1.0' in page

        await eventually(is_ready)
        stream = await client.get("/cache/watch?prefix=")
        answers = [asyncio.create_task(ask("/cache/get", key="k", wait=20)) for _ in range(20)]
        done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        ((_, first),) = [task.result() for task in done]
        _, filled = await ask("/cache/put", key="k", val="x", tags=["t"], lease=first["lease"])
        served = await asyncio.gather(*waiting)
        await ask("/cache/put", key="brief", val="x", ttl=0.1)
        await ask("/cache/get", key="other", lease_ttl=0.1)
        _, next_lease = await ask("/cache/get", key="other", wait=60, lease_ttl=300)
        late = asyncio.create_task(ask("/cache/get", key="other", wait=60))
        await eventually(is_waiting_and_expired)
        stopping = asyncio.create_task(runner.cleanup())

        status, _ = await asyncio.wait_for(late, 20)
        told = (await asyncio.wait_for(stream.read(), 20)).decode()
        await stopping

    assert status == 503
    assert {answer["val"] for _, answer in served} == {"x"}
    assert {answer["version"] for _, answer in served} == {filled["version"]}
    assert "lease" in next_lease
    names = [line.partition(": ")[2] for line in told.splitlines() if line.startswith("event: ")]
    assert names == ["ready", "write", "write", "expire", "end"]
    last = [json.loads(line.partition(": ")[2]) for line in told.splitlines() if line.startswith("data: ")][-1]
    assert last == {"reason": "stopping"}


async def test_leases_and_tags_survive_a_restart(tmp_path: Path) -> None:
    runner, address = await start(tmp_path)
    async with ClientSession(address) as client:

        async def ask(path: str, **body: object) -> dict:
            async with client.post(path, json=body) as response:
                return await response.json()

        async def written() -> bool:
            return (await ask("/cache/put", key="a", val=1, tags=["t"]))["ok"]

        await eventually(written)
        lease = (await ask("/cache/get", key="k", lease_ttl=300))["lease"]
    await runner.cleanup()
    runner, address = await start(tmp_path)
    async with ClientSession(address) as client:

        async def again(path: str, **body: object) -> dict:
            async with client.post(path, json=body) as response:
                return await response.json()

        assert (await again("/cache/get", key="k", wait=0))["filling"]
        assert (await again("/cache/put", key="k", val=1, lease=lease))["ok"]
        assert (await again("/cache/invalidate", tag="t"))["invalidated"] == 1
    await runner.cleanup()
