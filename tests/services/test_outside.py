"""services/node/outside.py: a node takes its clocks, chance, files, threads and limits from what it is given."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from aiohttp import ClientConnectionError, ClientSession

from common.config import Settings, load_settings
from common.disk_space import DiskSpace
from common.threads import SystemThreads
from raft.life import made_us
from raft.storage.backup import verify_backup
from raft.storage.incarnation import kept_life
from raft.storage.memory import MemoryFiles
from services.app import SHARES, create_app, serve
from services.http.routes import HOST
from services.node import process_file
from services.node.outside import SYSTEM, Outside
from tests.helpers import eventually, serving
from tests.services.test_maintenance import ready

#: 2030-01-01.
WALL_US = 1_893_456_000_000_000


class CountedThreads(SystemThreads):
    """The system's, and the names of those that were begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def start(self, name: str, body: Callable[[], None]) -> None:
        self.begun.append(name)
        super().start(name, body)


def settings_of(folder: Path, **values: str) -> Settings:
    return load_settings(
        {}, {"data_dir": str(folder / "data"), "cluster": "node1=127.0.0.1:8001", "cluster_id": "c-1", **values}
    )


@pytest.fixture
def outside() -> Outside:
    """As a simulation has it: no disk, a seed, a date."""
    return replace(
        SYSTEM,
        files=MemoryFiles(),
        random=Random(7),
        wall_us=lambda: WALL_US,
        look_at_disk=lambda directories: DiskSpace(1, 2),
    )


async def test_a_node_reads_and_writes_through_the_files_that_it_is_given(tmp_path: Path, outside: Outside) -> None:
    """Also the small ones beside the log; and what it finds there is what it knows when it starts again."""
    settings, names = settings_of(tmp_path, groups="lock"), {}
    async with serving(create_app(settings, outside)) as client:
        await ready(client)
        acquired = await (await client.post("/lock/acquire", json={"key": "a", "client_id": "me"})).json()
    for directory in (tmp_path / "data", tmp_path / "data" / "lock"):
        names[directory.name] = set(outside.files.names(directory))
    async with serving(create_app(settings, outside)) as client:
        await ready(client)
        status = await (await client.get("/lock/status?key=a")).json()

    assert acquired["ok"] and status["held"]
    assert names["data"] == {"CLUSTER", "lock"}
    assert "INCARNATION" in names["lock"] and any(name.endswith(".wal") for name in names["lock"])
    assert os.listdir(tmp_path) == []


async def test_damaged_data_is_put_aside_in_the_files_that_it_lies_in(tmp_path: Path, outside: Outside) -> None:
    settings, files = settings_of(tmp_path), outside.files
    async with serving(create_app(settings, outside)) as client:
        await ready(client)
    segment = next(path for path in files.contents if path.parent.name == "lock" and path.suffix == ".wal")
    files.contents[segment][files.contents[segment].index(b"MR", 64) + 20] ^= 1

    async with serving(create_app(settings, outside)) as client:
        told = [await (await client.post("/admin/repair", json={})).json() for _ in range(2)]

    aside = tmp_path / "data" / "lock.damaged-20300101T000000"
    assert [answer["put_aside"] for answer in told] == [{"lock": str(aside)}] * 2
    assert segment.name in files.names(aside) and "lock" not in files.names(aside.parent)


async def test_the_same_chance_gives_the_same_names_and_numbers(tmp_path: Path, outside: Outside) -> None:
    """A seed must lead to the same run: nothing that a node makes up may come from elsewhere."""

    async def names(seed: int) -> list[object]:
        files = MemoryFiles()
        app = create_app(settings_of(tmp_path), replace(outside, files=files, random=Random(seed)))
        async with serving(app):
            here = app[HOST]
            told: list[object] = [here.boot]
            for node in here.nodes.values():
                told += [node.incarnation, node.core.random.getstate(), node.proposals._last_batch]
            segments = [path for path in files.contents if path.suffix == ".wal"]
            return [*told, *(bytes(files.contents[path][:64]) for path in segments)]

    first, again, other = [await names(seed) for seed in (1, 1, 2)]

    assert first == again
    assert not any(one == two for one, two in zip(first, other, strict=True))


async def test_lives_and_backups_are_dated_by_the_wall_clock_that_is_given(
    tmp_path: Path, outside: Outside
) -> None:
    async with serving(create_app(settings_of(tmp_path, groups="lock"), outside)) as client:
        await ready(client)
        life = await eventually(lambda: kept_life(tmp_path / "data" / "lock", fresh=False, files=outside.files))
        response = await client.get("/admin/backup?group=lock")
        (tmp_path / "lock.backup").write_bytes(await response.read())

    assert made_us(life) == WALL_US
    assert verify_backup(tmp_path / "lock.backup").head.taken_ms == WALL_US // 1_000


async def test_threads_and_looks_at_the_disk_are_those_that_are_given(tmp_path: Path, outside: Outside) -> None:
    """The data directory is on no disk of this machine, so nobody else can look there."""
    looked: list[Sequence[Path]] = []

    def look(directories: Sequence[Path]) -> DiskSpace:
        looked.append(directories)
        return DiskSpace(1, 2)

    threads = CountedThreads()
    app = create_app(settings_of(tmp_path), replace(outside, threads=threads, look_at_disk=look))
    async with serving(app):
        await eventually(lambda: app[HOST].disk_space)

    assert sorted(set(threads.begun)) == ["disk", "disk space", "snapshots"]
    assert app[HOST].disk_space == DiskSpace(1, 2)
    assert looked[0] == [tmp_path / "data", *(tmp_path / "data" / group for group in ("lock", "queue", "cache"))]


async def test_the_limit_of_open_files_is_asked_once(tmp_path: Path, outside: Outside) -> None:
    """The two ports must share one number."""
    asked: list[int] = []

    def open_files_max() -> int:
        asked.append(1_000)
        return 1_000

    app = create_app(settings_of(tmp_path), replace(outside, open_files_max=open_files_max))
    async with serving(app):
        pass

    assert asked == [1_000]
    assert 0 < app[SHARES].clients < 1_000


# serve


class Served:
    """A node that `serve` runs, without any process of its own."""

    def __init__(self, folder: Path, outside: Outside) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.settings = settings_of(folder, groups="lock", client_port=str(self.port))
        self.outside = outside
        self.stop, self.serving = asyncio.Event(), asyncio.Event()

    async def run(self, **beside: Callable[..., object]) -> BaseException | None:
        return await serve(self.settings, self.outside, self.stop, beside=beside, on_serving=self.serving.set)

    async def answers(self) -> bool:
        try:
            async with ClientSession() as client, client.get(f"http://127.0.0.1:{self.port}/livez") as response:
                return response.status == 200
        except ClientConnectionError:
            return False


async def test_serve_lets_clients_in_until_it_is_told_to_stop(tmp_path: Path, outside: Outside) -> None:
    """It needs no data directory of a process: no lock is taken, and all is closed behind it."""
    node = Served(tmp_path, outside)
    ended: list[str] = []

    async def beside(on_fatal: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("beside")

    running = asyncio.create_task(node.run(beside=beside))
    await asyncio.wait_for(node.serving.wait(), 30)
    during = await node.answers()
    node.stop.set()

    assert await asyncio.wait_for(running, 30) is None
    assert (during, await node.answers(), ended) == (True, False, ["beside"])
    assert not (tmp_path / "data" / process_file.PROCESS_NAME).exists()


async def test_serve_ends_with_the_error_that_what_runs_beside_it_tells(tmp_path: Path, outside: Outside) -> None:
    """So a process that lost its directory lets the node end."""
    node = Served(tmp_path, outside)
    error = OSError("the directory is another one")

    async def beside(on_fatal: Callable[[BaseException], None]) -> None:
        on_fatal(error)
        on_fatal(OSError("a second one counts for nothing"))

    assert await asyncio.wait_for(node.run(beside=beside), 30) is error
