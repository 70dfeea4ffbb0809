"""What a real node of one tells of its disk: in its log, on its pages, and by ending where going on is not safe."""

import os
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common.disk_space import watch_disk
from services.app import TASKS
from services.node import data_watch
from tests.helpers import eventually, serving
from tests.services.test_maintenance import node_app, ready


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_watch, "watch_disk", partial(watch_disk, interval_seconds=0.01))


async def test_status_tells_the_room_on_the_disk_and_the_nodes_place_in_its_groups(tmp_path: Path) -> None:
    async with serving(node_app(tmp_path)) as client:
        await ready(client)

        async def told() -> dict:
            return await (await client.get("/status")).json()

        async def space() -> dict | None:
            return (await told())["disk"]

        disk = await eventually(space)
        answer = await told()

    assert 0 < disk["free_bytes"] <= disk["total_bytes"]
    assert answer["authentication"] is False
    assert {group["membership"] for group in answer["groups"].values()} == {"voter"}
    assert {group["lag"] for group in answer["groups"].values()} == {0}


@pytest.mark.parametrize("gone", ["data", "data/cache"])
async def test_a_node_whose_directory_was_deleted_ends(tmp_path: Path, gone: str) -> None:
    """It could go on for hours, writing to files that nobody finds again at the next start."""
    app = node_app(tmp_path)
    async with serving(app) as client:
        await ready(client)
        os.rename(tmp_path / gone, tmp_path / "elsewhere")

        failed = app[TASKS].failed
        await eventually(failed.done)

    error = failed.result()
    assert isinstance(error, FileNotFoundError)
    assert str(error.filename).startswith(str(tmp_path / gone))


async def test_a_damaged_snapshot_that_was_put_aside_is_logged_and_counted(tmp_path: Path) -> None:
    """The node can do without it, and says so: the disk under it is not sound."""
    folder = tmp_path / "data" / "lock"
    async with serving(node_app(tmp_path, snapshot_entries="10")) as client:
        await ready(client)

        async def two_snapshots() -> bool:
            await client.post("/lock/acquire", json={"key": "a", "client_id": "me"})
            await client.post("/lock/release", json={"key": "a", "client_id": "me"})
            groups = (await (await client.get("/status")).json())["groups"]
            return groups["lock"]["snapshot_index"] >= 20

        await eventually(two_snapshots)
    newest = max(folder.glob("*.snapshot"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)

    with capture_logs() as lines:
        async with serving(node_app(tmp_path)) as client:
            await ready(client)
            page = await (await client.get("/metrics")).text()

    told = [line for line in lines if "an older one and the log stand in for it" in line["event"]]
    assert [(line["group"], line["snapshot"]) for line in told] == [("lock", str(newest))]
    assert told[0]["put_aside"] == f"{newest}.damaged"
    assert not newest.exists()
    assert 'mufakat_data_put_aside_total{group="lock"} 1.0' in page
