"""How long the event loop stands still at most while a replica takes a snapshot, and while it restores one.

    python -m bench.snapshot_stall [--messages N]            (`make bench-snapshot`)

A real `RaftNode` on a real disk holds a million queued messages of 100 bytes. A ticker on its event loop, like a
heartbeat but finer, measures the gap between two of its turns, while the node also takes writes. Both figures must
stay under 50 ms; the gaps of the node at rest are printed beside them, for they are what the machine itself costs.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.replica import (
    Ticker,
    enqueue,
    open_replica,
    take_no_more,
    take_snapshot_soon,
    wait_for,
    wait_leading,
)
from common.runtime import freeze_garbage, run
from raft.node import RaftNode
from services.queue.replicated.commands import Enqueue
from services.replicated.envelope import encode_command

MESSAGES = 1_000_000
PAYLOAD_BYTES = 100
#: What the design promises.
STALL_MS_MAX = 50.0
REST_SECONDS = 3.0
#: Pause between two writes during a measurement.
WRITE_PAUSE_SECONDS = 0.005


async def measure(messages: int, directory: Path) -> int:
    node = open_replica(directory, snapshot_entries=1 << 60, snapshot_bytes=1 << 60)
    node.start()
    freeze_garbage()
    await wait_leading(node)
    began = time.monotonic()
    await enqueue(node, messages, b"x" * PAYLOAD_BYTES)
    print(f"{messages:,} messages of {PAYLOAD_BYTES} bytes queued in {time.monotonic() - began:.1f} s", flush=True)
    rest = await _measured(node, "at rest, with writes", asyncio.sleep(REST_SECONDS))
    taking = await _measured(node, "taking a snapshot", _snapshot(node))
    # One that covers all that was applied: what a follower restores has nothing of its own behind it.
    await wait_for(lambda: not len(node.proposals))
    await _snapshot(node)
    size = sum(entry.stat().st_size for entry in os.scandir(directory) if entry.name.endswith(".snapshot")) // 2
    restoring = await _measured(node, "restoring it at run time", _restore(node), writes=False)
    await node.stop()
    print(f"the snapshot takes {size / 1e6:.0f} MB on disk")
    print(
        f"largest event-loop stall: {taking:.1f} ms taking, {restoring:.1f} ms restoring "
        f"(at rest: {rest:.1f} ms; wanted: under {STALL_MS_MAX:.0f} ms)"
    )
    return 0 if max(taking, restoring) < STALL_MS_MAX else 1


async def _measured(node: RaftNode, what: str, work, *, writes: bool = True) -> float:
    """Run `work` beside a ticker and, if wanted, a writer; the largest gap in milliseconds."""
    writer = asyncio.create_task(_write(node)) if writes else None
    began = time.monotonic()
    async with Ticker() as ticker:
        await work
    seconds = time.monotonic() - began
    if writer is not None:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    print(
        f"{what:26}: {seconds:5.1f} s, largest gap {ticker.largest_ms:6.1f} ms, p99 {ticker.p99_ms:5.1f} ms",
        flush=True,
    )
    return ticker.largest_ms


async def _write(node: RaftNode) -> None:
    command = encode_command(Enqueue("other", b"x" * PAYLOAD_BYTES))
    while True:
        await node.propose(command)
        await asyncio.sleep(WRITE_PAUSE_SECONDS)


async def _snapshot(node: RaftNode) -> None:
    take_snapshot_soon(node)
    taken = node.snapshotter.taken
    await node.propose(encode_command(Enqueue("other", b"x")))
    take_no_more(node)
    await wait_for(lambda: not node.snapshotter.taking)
    assert node.snapshotter.taken == taken + 1, "no snapshot was taken"


async def _restore(node: RaftNode) -> None:
    """What a follower does that was sent this snapshot: rebuild the machine beside the serving one."""
    installed = node.snapshotter.installed
    node.snapshotter.restore(node.core.log.snapshot)
    await wait_for(lambda: node.snapshotter.installed > installed)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--messages", type=int, default=MESSAGES)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="mufakat-bench-") as folder:
        return run(measure(given.messages, Path(folder) / "queue"))


if __name__ == "__main__":
    sys.exit(main())
