"""How often a bounded node finds a line in its memory, beside an ideal LRU of the same room.

    python -m bench.hit_ratio            (`make bench-hit-ratio`)

A Zipf(1.0) trace of 10,000 keys, room for 10 % of them, through the very table that serves local hits, under each
policy that a node may be told.
"""

import sys
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import Any

from common.config import Settings
from common.metrics import Metrics
from common.parsers import CACHE_POLICIES
from raft.state_machine import ApplyContext
from services.cache.node.coherence import Coherence
from services.cache.node.policies import make_held_lines
from services.cache.replicated.commands import Fill, Put
from services.cache.replicated.machine import CacheMachine
from services.replicated.machine import ReplicatedMachine

KEYS = 10_000
ROOM = KEYS // 10
REQUESTS = 300_000
#: The first requests fill the room and do not count.
WARM_UP = 30_000
RATIO_MIN = 0.95


class Holder:
    """A node that holds every line and has a valid lease."""

    id = "node1"

    def __init__(self) -> None:
        self.machine = ReplicatedMachine(CacheMachine)

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        return lambda: None

    def now_ms(self) -> int:
        return 0

    def cluster_time_ms(self) -> int:
        return 0

    def may_serve_locally(self) -> bool:
        return True

    def removal_unknown_ms(self) -> int:
        return 0


def trace(seed: int = 1, requests: int = REQUESTS) -> list[str]:
    """Key `n` is asked for in proportion to 1 / n."""
    chance = Random(seed)
    sums = list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    return [f"key-{bisect_left(sums, chance.random() * sums[-1])}" for _ in range(requests)]


def ours(keys: list[str], policy: str) -> float:
    """The share of hits in a node's table."""
    node = Holder()
    for number in range(KEYS):
        node.machine.inner.apply(ApplyContext(2 * number + 1, 0), Put(f"key-{number}", b"1", "node2"))
        node.machine.inner.apply(ApplyContext(2 * number + 2, 0), Fill(f"key-{number}", "node1"))
    held = make_held_lines(Settings(cache_policy=policy, cache_lines_max=ROOM))
    coherence = Coherence(node, Metrics(), held=held)
    hits = 0
    for number, key in enumerate(keys):
        if coherence.may_serve(key) is not None:
            hits += number >= WARM_UP
        else:
            line = node.machine.inner.line(key)
            assert line is not None
            coherence.grant(key, line.version)
    return hits / (len(keys) - WARM_UP)


def ideal(keys: list[str]) -> float:
    """The share of hits in an LRU that is nothing else."""
    room: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for number, key in enumerate(keys):
        if key in room:
            hits += number >= WARM_UP
            room.move_to_end(key)
        else:
            room[key] = None
            if len(room) > ROOM:
                room.popitem(last=False)
    return hits / (len(keys) - WARM_UP)


def main() -> int:
    keys = trace()
    wanted = ideal(keys)
    print(f"Zipf(1.0), {KEYS} keys, room for {ROOM}, {len(keys)} reads")
    print(f"ideal LRU    {wanted:.4f} of the reads are hits; wanted: {RATIO_MIN} of it or more")
    enough = True
    for policy in CACHE_POLICIES:
        found = ours(keys, policy)
        enough = enough and found / wanted >= RATIO_MIN
        print(f"{policy:12} {found:.4f} of the reads are hits, {found / wanted:.3f} of it")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
