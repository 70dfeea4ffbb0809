"""What a lock, a queued message and a cache key cost in memory beyond their own bytes.

    python -m bench.memory [--objects N]            (`make bench-memory`)

Each machine is filled through its commands in a process of its own, and the growth of the process's resident memory
is divided by the number of objects. What counts as their own bytes, and is taken off, is what the client sent: the
key and the owner of a lock, the payload of a message, the key and the value of a cache line.
"""

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from common.wire import pack, unpack
from raft.state_machine import ApplyContext
from services.cache.replicated.commands import Put
from services.catalogue import SERVICES
from services.lock.replicated.commands import Acquire
from services.queue.replicated.commands import Enqueue
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine

OBJECTS = 200_000
SIZE_BYTES = 100
#: What the design promises, bytes of overhead each.
OVERHEAD_MAX = 600
#: Applied before the count begins, so that what is only there once does not count.
WARM_UP = 1_000

WHAT = {
    "lock": "lock (key and owner of 36 bytes together)",
    "queue": f"queued message of {SIZE_BYTES} bytes",
    "cache": f"cache key of {SIZE_BYTES} bytes (value of 10)",
}


def commands(group: str, count: int) -> Iterator[tuple[object, int]]:
    """Commands that each make one object, with the bytes that are the client's own."""
    for number in range(count):
        if group == "lock":
            key, owner = f"key-{number:014}", f"owner-{number:012}"
            yield Acquire(key, owner, node="node1"), len(key) + len(owner)
        elif group == "queue":
            yield Enqueue("default", b"x" * SIZE_BYTES), SIZE_BYTES
        else:
            key = f"{number:0{SIZE_BYTES}}"
            yield Put(key, b"1234567890", "node1"), SIZE_BYTES + 10


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(group: str, count: int) -> float:
    """Bytes of overhead for each object."""
    machine = ReplicatedMachine(SERVICES[group].machine)
    own = before = 0
    for number, (command, size) in enumerate(commands(group, WARM_UP + count)):
        if number == WARM_UP:
            gc.collect()
            before = resident_bytes()
        # As entries of the log reach it: decoded, so that no string is shared with this program by accident.
        answer = machine.apply(ApplyContext(number + 1, 1_000 + number), bytes(encode_command(command)))
        assert unpack(pack(answer)).get("ok"), answer
        own += size if number >= WARM_UP else 0
    gc.collect()
    return (resident_bytes() - before - own) / count


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--objects", type=int, default=OBJECTS)
    arguments.add_argument("--group", choices=list(WHAT), help="only this one, in this process")
    given = arguments.parse_args()
    if given.group:
        overhead = measure(given.group, given.objects)
        print(f"{WHAT[given.group]:46}: {overhead:4.0f} bytes of overhead (wanted: under {OVERHEAD_MAX})", flush=True)
        return 0 if overhead < OVERHEAD_MAX else 1
    arguments_of = [sys.executable, "-m", "bench.memory", "--objects", str(given.objects), "--group"]
    return max(subprocess.run([*arguments_of, group], check=False).returncode for group in WHAT)


if __name__ == "__main__":
    sys.exit(main())
