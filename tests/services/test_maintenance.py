"""services/node/maintenance.py through a real node of one: backup, hash and repair by HTTP."""

import asyncio
import errno
import os
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from common.config import load_settings
from raft.storage import open_storage
from raft.storage.backup import verify_backup
from services.app import create_app
from services.node import maintenance
from tests.helpers import eventually, serving


def node_app(folder: Path, **overrides: str) -> web.Application:
    values = {
        "data_dir": str(folder / "data"),
        "cluster": "node1=127.0.0.1:8001",
        # A machine that stands still costs a lone node its office for an election; its clients wait for that.
        "leader_wait_ms": "20000",
        "request_timeout_ms": "20000",
        **overrides,
    }
    return create_app(load_settings({}, values))


async def ready(client: TestClient, **headers: str) -> None:
    async def is_ready() -> bool:
        return (await client.get("/readyz", headers=headers)).status == 200

    await eventually(is_ready)


async def test_a_backup_holds_everything_acknowledged_before_it_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "queue.backup"
    async with serving(node_app(tmp_path)) as client:
        await ready(client)
        for number in range(50):
            await client.post("/queue/push", json={"queue": "q", "payload": number})

        response = await client.get("/admin/backup?group=queue")
        path.write_bytes(await response.read())

    backup = verify_backup(path)
    assert response.status == 200
    assert response.content_type == "application/vnd.mufakat.backup"
    assert (backup.head.group, backup.head.node) == ("queue", "node1")
    assert backup.meta.index >= 50


async def test_the_hash_follows_the_state(tmp_path: Path) -> None:
    """Asked twice it is the same; a write changes it; a restart does not."""
    hashes = []
    async with serving(node_app(tmp_path)) as client:
        await ready(client)
        for _ in range(2):
            hashes.append((await (await client.get("/admin/hash?group=lock")).json())["hash"])
        await client.post("/lock/acquire", json={"key": "a", "client_id": "me"})
        hashes.append((await (await client.get("/admin/hash?group=lock")).json())["hash"])
    async with serving(node_app(tmp_path)) as client:
        await ready(client)
        await client.get("/lock/status?key=a")
        again = await (await client.get("/admin/hash?group=lock")).json()

    assert hashes[0] == hashes[1] != hashes[2]
    assert again["hash"] == hashes[2]


@pytest.mark.parametrize("path", ["/admin/backup", "/admin/hash"])
async def test_the_group_must_be_one_of_the_nodes(tmp_path: Path, path: str) -> None:
    async with serving(node_app(tmp_path)) as client:
        missing = await client.get(path)
        unknown = await client.get(f"{path}?group=locks")
        text = (await unknown.json())["detail"]

    assert (missing.status, unknown.status) == (400, 400)
    assert "lock, queue, cache" in text


async def test_the_role_admin_is_needed(tmp_path: Path) -> None:
    """A backup is everything there is to read."""
    async with serving(node_app(tmp_path, auth_tokens="client:secret-client,admin:secret-admin")) as client:
        statuses = {}
        for token in ("client", "admin"):
            headers = {"Authorization": f"Bearer secret-{token}"}
            statuses[token] = (await client.get("/admin/hash?group=lock", headers=headers)).status
        without = (await client.get("/admin/backup?group=lock")).status

    assert (without, statuses) == (401, {"client": 403, "admin": 200})


async def test_only_so_many_copies_are_read_at_one_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs memory for as long as it is read."""
    monkeypatch.setattr(maintenance, "COPIES_MAX", 1)
    app = node_app(tmp_path)
    begun, blocked = asyncio.Event(), asyncio.Event()

    async def slow_hash(chunks) -> str:
        begun.set()
        await blocked.wait()
        return ""

    monkeypatch.setattr(maintenance, "hash_of", slow_hash)
    async with serving(app) as client:
        await ready(client)
        first = asyncio.ensure_future(client.get("/admin/hash?group=lock"))
        await begun.wait()
        second = await client.get("/admin/hash?group=lock")
        reason = (await second.json())["reason"]
        blocked.set()

        assert (await first).status == 200
        assert (second.status, reason) == (429, "overloaded")


async def test_damaged_data_is_refused_and_put_aside_on_the_operators_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other groups serve meanwhile; nothing is deleted. Where the disk does not let it, that is a sentence."""

    def refuse(old: object, new: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(old), None, str(new))

    folder = tmp_path / "data" / "lock"
    async with serving(node_app(tmp_path)) as client:
        await ready(client)
        sound = await client.post("/admin/repair", json={})
    segment = min(folder.glob("*.wal"))
    content = bytearray(segment.read_bytes())
    content[content.index(b"MR", 64) + 20] ^= 1
    segment.write_bytes(content)

    async with serving(node_app(tmp_path)) as client:

        async def only_lock_is_not_ready() -> bool:
            answer = await (await client.get("/readyz")).json()
            return set(answer.get("reasons", ())) == {"lock"}

        await eventually(only_lock_is_not_ready)
        reason = (await (await client.get("/readyz")).json())["reasons"]["lock"]
        refused = await client.post("/lock/acquire", json={"key": "a", "client_id": "me"})
        served = await client.post("/cache/put", json={"key": "a", "val": 1})
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", refuse)
            hindered = await client.post("/admin/repair", json={"group": "lock"})
            hindrance = (await hindered.json())["detail"]
        answer = await (await client.post("/admin/repair", json={"group": "lock"})).json()
        page = await (await client.get("/metrics")).text()

    aside = Path(answer["put_aside"]["lock"])
    assert sound.status == 400
    assert hindered.status == 503
    assert f"{folder} to {folder}.damaged-" in hindrance and "Read-only file system" in hindrance
    assert str(segment) in reason and "mufakat repair node1" in reason
    assert (refused.status, (served.status)) == (503, 200)
    assert (aside / segment.name).read_bytes() == bytes(content)
    assert aside.name.startswith("lock.damaged-")
    assert 'mufakat_group_refused{group="lock"} 1.0' in page
    assert 'mufakat_data_put_aside_total{group="lock"} 1.0' in page
    storage, recovered = open_storage(folder)
    storage.close()
    assert recovered.fresh


@pytest.mark.parametrize("path", ["/admin/backup?group=lock", "/admin/hash?group=lock"])
async def test_a_head_copies_no_state(path: str, tmp_path: Path) -> None:
    """Goal: a HEAD of a backup sent the whole backup; now it is told that there is none."""
    async with serving(node_app(tmp_path)) as client:
        await ready(client)

        response = await client.head(path)
        after = await client.get("/livez")

    assert (response.status, response.headers["Allow"], await response.read()) == (405, "GET", b"")
    assert after.status == 200


@pytest.mark.parametrize("path", ["/admin/backup?group=lock", "/admin/hash?group=lock"])
@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
async def test_no_other_page_begins_a_backup(path: str, site: str, status: int, tmp_path: Path) -> None:
    """Goal: four images that GET backups would keep everybody else from taking one."""
    async with serving(node_app(tmp_path)) as client:
        await ready(client)

        response = await client.get(path, headers={"Sec-Fetch-Site": site})

    assert response.status == status
