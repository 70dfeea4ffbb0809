"""common/disk_space.py: the room on the disk, asked for so that a disk that hangs holds up nobody."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from common.disk_space import DiskSpace, watch_disk
from tests.helpers import eventually


class Watched:
    """What a watch told."""

    def __init__(self, *directories: Path, **options: Any) -> None:
        self.told: list[DiskSpace | None] = []
        self.missing: list[OSError] = []
        self.task = asyncio.create_task(
            watch_disk(
                directories,
                tell=self.told.append,
                on_missing=self.missing.append,
                interval_seconds=0.001,
                **options,
            )
        )

    async def __aenter__(self) -> "Watched":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_the_space_is_told_again_and_again(tmp_path: Path) -> None:
    async with Watched(tmp_path) as watched:
        await eventually(lambda: len(watched.told) >= 3)

    space = watched.told[0]
    assert space is not None
    assert 0 <= space.free_bytes <= space.total_bytes
    assert watched.missing == []


async def test_a_disk_that_hangs_is_asked_once_and_holds_up_nobody(tmp_path: Path) -> None:
    """statvfs(2) on a dead network disk does not return: one thread may wait there, the loop and others not."""
    answers, asked = threading.Event(), []

    def hang(directories: object) -> DiskSpace:
        asked.append(threading.current_thread())
        answers.wait()
        return DiskSpace(1, 2)

    async with Watched(tmp_path, look=hang) as watched:
        await eventually(lambda: asked)
        for _ in range(50):
            await asyncio.sleep(0.001)
        asked_meanwhile, told_meanwhile = len(asked), list(watched.told)
        answers.set()
        await eventually(lambda: watched.told)

    assert (asked_meanwhile, told_meanwhile) == (1, [])
    assert watched.told[0] == DiskSpace(1, 2)
    assert all(thread.daemon for thread in asked)


async def test_a_file_system_that_answers_with_an_error_is_told_as_unknown(tmp_path: Path) -> None:
    def fail(directories: object) -> DiskSpace:
        raise OSError(5, "Input/output error")

    async with Watched(tmp_path, look=fail) as watched:
        await eventually(lambda: watched.told)

    assert watched.told[0] is None
    assert watched.missing == []


async def test_a_directory_that_is_gone_is_told_with_its_name(tmp_path: Path) -> None:
    """Files in it can still be written, and are gone at the next start."""
    folder = tmp_path / "lock"
    folder.mkdir()
    async with Watched(tmp_path, folder) as watched:
        await eventually(lambda: watched.told)
        folder.rmdir()
        await eventually(lambda: watched.missing)

    assert watched.missing[0].filename == str(folder)
