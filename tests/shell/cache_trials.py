"""The cache once all is mended: what is tried out then, before the probe looks at everything.

    a line that is replaced     every node holds it, one of them is cut off or stands still, and the line is changed
    a lease to nobody           clients ask for a lease to fill a key, and leave before they are told
    a value that is waited for  a reader waits at each node, and somebody fills

Each trial gives False where something came in between and it has to be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from tests.shell.caches import CacheClient, CacheProbe
from tests.shell.client import NotDone, Unknown
from tests.shell.leavers import REQUEST_S, Leaver, leadership, stand_still

if TYPE_CHECKING:
    from tests.shell.run import Run

#: How a node is apart: for so many lengths of a lease, and as long as an election may take where it leads.
APART = ("cut", "cut", "unheard", "deaf", "late", "late and unheard", "late and unheard", "still")
APART_LEASES, LATE_US = (0.4, 1.2), (50_000, 80_000)
#: How long a reader waits for one answer; and before the next, at most.
LOOK_S, LOOK_PAUSE_S = 0.1, 0.02
#: How long a value lives where it is to go by itself, in lengths of a lease.
LIVES = (0.3, 0.6)
#: Kinds of keys, and what is done to their lines. Nothing: they go by themselves.
CHANGES: dict[str, tuple[str, ...]] = {
    "key": ("write", "write", "remove", "swap"), "tagged": ("write", "invalidate"), "ttl": (),
}  # fmt: skip
#: How often a writer leaves, and asks once more.
LEAVES = 0.4
#: A lease that reached nobody is given to the next within so long, which is far less than it runs. Who waits for a
#: value hears of it within so long.
LEAVERS, LEASE_S, GIVEN_BACK_S, TOLD_S, WAIT_S = 4, 20.0, 2.5, 2.5, 5.0


class Writer(CacheClient):
    """One that leaves now and then, and asks once more."""

    def has(self, manner: str) -> bool:
        return manner == "impatient" and self.random.random() < LEAVES


class Replacing:
    """One line that is replaced while a node is apart."""

    def __init__(self, run: Run, name: str, leader: str) -> None:
        self._run = run
        self._writer = Writer(run, f"writer {name}")
        self._reader, self._other = (CacheClient(run, f"reader {number} {name}") for number in (1, 2))
        self._random = self._writer.random
        self._lease_s = int(run.world.nodes[leader].variables["MUFAKAT_CACHE_LEASE_MS"]) / 1000
        self._election_s = int(run.plan.settings["MUFAKAT_ELECTION_TIMEOUT_MAX_MS"]) / 1000
        kind = self._random.choice(tuple(CHANGES))
        self._key, self._changes = run.caches.key(f"{kind}0"), CHANGES[kind]
        self._ttl_s = None if self._changes else self._lease_s * self._random.uniform(*LIVES)
        names = list(run.world.nodes)
        self._apart = leader if self._random.random() < 0.4 else self._random.choice(names)
        self._others = [name for name in names if name != self._apart]
        self._is_over = False
        self._works: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        self._writer.stay_at(self._random.choice(self._others))
        with suppress(NotDone, Unknown):
            await self._writer.change_line("write", self._key, ttl_s=self._ttl_s)
        for name in [*self._others, self._apart] * 2:
            await self._look(self._reader, name)
        looks = (self._look_on(self._reader, [self._apart]), self._look_on(self._other, self._others))
        self._works = [asyncio.create_task(each, name="a trial of the cache") for each in looks]
        await self._be_apart()
        self._is_over = True
        await asyncio.gather(*self._works)

    async def _be_apart(self) -> None:
        """One node is cut off, in one way or another, or stands still, and the line is changed."""
        world, random = self._run.world, self._random
        node, others = world.nodes[self._apart], [world.nodes[each] for each in self._others]
        how = random.choice(APART)
        world.count(f"cache: a node is apart: {how}")
        links = [world.network.link(each.host, node.host) for each in others]
        before = [each.delay_us for each in links]
        if how.startswith("late"):
            # What it hears is old, and then nothing, or it is not heard any more.
            for each in links:
                each.delay_us = LATE_US
            self._begin_change()
            await asyncio.sleep(self._lease_s / 2)
        if how == "still":
            node.freeze()
        for each in others:
            if how in ("cut", "late", "deaf"):
                world.network.cut(each.host, node.host)
            if how in ("cut", "late", "unheard", "late and unheard"):
                world.network.cut(node.host, each.host)
        if not how.startswith("late"):
            self._begin_change()
        is_leader = world.leader("cache") in (None, node)
        await asyncio.sleep(self._lease_s * random.uniform(*APART_LEASES) + (self._election_s if is_leader else 0.0))
        if how == "still":
            node.thaw()
        world.network.mend_all()
        for each, delay_us in zip(links, before, strict=True):
            each.delay_us = delay_us

    def _begin_change(self) -> None:
        self._works.append(asyncio.create_task(self._change_on(), name="a trial of the cache"))

    async def _look_on(self, client: CacheClient, nodes: list[str]) -> None:
        while not self._is_over:
            await self._look(client, self._random.choice(nodes))
            await asyncio.sleep(self._random.random() * LOOK_PAUSE_S)

    async def _look(self, client: CacheClient, node: str) -> None:
        client.stay_at(node)
        async with _soon():
            await client.read_key(self._key)

    async def _change_on(self) -> None:
        """Change it again and again, at a node that is not apart; or wait until it goes by itself."""
        while self._changes and not self._is_over:
            self._writer.stay_at(self._random.choice(self._others))
            try:
                await self._writer.change_line(self._random.choice(self._changes), self._key)
            except (NotDone, Unknown):
                await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def _soon() -> AsyncIterator[None]:
    """Whatever comes of it, it is over soon."""
    try:
        async with asyncio.timeout(LOOK_S):
            yield
    except (NotDone, Unknown, TimeoutError):
        pass


async def nobody_serves_the_old(run: Run, probe: CacheProbe) -> bool:
    """What all are told of the line is judged in the end."""
    leader = run.world.leader("cache")
    if leader is None:
        return False
    if len(run.world.nodes) > 1:
        await Replacing(run, probe.new_key(), leader.name).run()
    return True


async def nobody_keeps_leases(run: Run, probe: CacheProbe) -> bool:
    """Clients ask for a lease to fill and leave. If none of them can have it, the next who asks has it soon."""
    random, key, before = probe.random, f"left {probe.new_key()}", leadership(run, "cache")
    names = tuple(run.world.nodes)
    body = {"key": key, "lease_ttl": LEASE_S, "wait": random.choice((0.0, WAIT_S))}
    leavers = [Leaver(run, f"leaver{probe.new_key()}", random.choice(names)) for _ in range(LEAVERS)]
    leaving = [each.ask_and_leave("/cache/get", body, random.random() * REQUEST_S / 2) for each in leavers]
    await asyncio.gather(stand_still(run, names, probe), *leaving)
    if any(each.may_know for each in leavers):
        return True
    asked_us = probe.now_us
    try:
        told = await probe.ask("/cache/get", {**body, "wait": WAIT_S}, wait_s=WAIT_S)
    except (NotDone, Unknown):
        return False
    late_s = (probe.now_us - asked_us) / 1_000_000
    if leadership(run, "cache") != before:
        return False
    if any(each.may_know for each in leavers):
        run.world.count("cache: left with a lease")
        return True
    if "lease" not in told or late_s > GIVEN_BACK_S:
        run.fail(f"who asked for the lease of {key} left before, and after {late_s} s the next was told {told}")
    run.world.count("cache: left without a lease")
    return True


async def a_retry_keeps_its_lease(run: Run, probe: CacheProbe) -> bool:
    """A client asks one node and leaves, asks another with its key, and is told the lease. Then the question of the
    first is decided: nobody is there to hear it, and the lease stays all the same."""
    leader, before, random = run.world.leader("cache"), leadership(run, "cache"), probe.random
    others = [name for name in run.world.nodes if leader is not None and name != leader.name]
    if leader is None or len(run.world.nodes) < 3:
        return leader is not None
    late = run.world.nodes[random.choice(others)]
    links = [run.world.network.link(late.host, each.host) for each in run.world.nodes.values() if each is not late]
    delays = [each.delay_us for each in links]
    for each in links:
        each.delay_us = LATE_US
    claim = probe.new_key()
    body = {"key": f"retried {claim}", "lease_ttl": LEASE_S, "wait": WAIT_S}
    first, second = Leaver(run, f"first {claim}", late.name), Leaver(run, f"second {claim}", leader.name)
    asking = first.ask_and_leave("/cache/get", body, random.random() * REQUEST_S * 2, claim)
    try:
        _, told = await asyncio.gather(asking, second.ask("/cache/get", body, wait_s=WAIT_S, key=claim))
        await asyncio.sleep(LATE_US[1] / 500_000)
        lease = told.get("lease")
        put = await second.ask("/cache/put", {"key": body["key"], "val": "filled", "lease": lease or 1})
    except (NotDone, Unknown):
        return False
    finally:
        for each, delay_us in zip(links, delays, strict=True):
            each.delay_us = delay_us
    if leadership(run, "cache") != before or lease is None:
        return False
    if not put["ok"]:
        run.fail(f"{second.name} was told the lease {lease} of {body['key']}, and its put was refused: {put}")
    run.world.count("cache: a retry kept its lease")
    return True


async def waiting_readers_are_told(run: Run, probe: CacheProbe) -> bool:
    """One reader waits at each node, and all are told soon of what is filled."""
    key, before = f"awaited {probe.new_key()}", leadership(run, "cache")
    body = {"key": key, "lease_ttl": LEASE_S, "wait": WAIT_S}
    try:
        lease = (await probe.ask("/cache/get", body)).get("lease")
        readers = [Leaver(run, f"reader{probe.new_key()}", node) for node in run.world.nodes]
        reading = [asyncio.create_task(_read(each, body), name=each.name) for each in readers]
        await asyncio.sleep(LOOK_S)
        await probe.ask("/cache/put", {"key": key, "val": "filled", "lease": lease})
        filled_us = probe.now_us
    except (NotDone, Unknown):
        return False
    told_us = [await each for each in reading]
    if leadership(run, "cache") != before or lease is None or -1 in told_us:
        return False
    late_s = (max(told_us) - filled_us) / 1_000_000
    if late_s > TOLD_S:
        run.fail(f"{key} was filled, and a reader that waited for it was told so {late_s} s later")
    run.world.count("cache: waited for a value")
    return True


async def _read(reader: Leaver, body: dict[str, object]) -> int:
    """When it was told, whatever that was; -1: never."""
    try:
        await reader.ask("/cache/get", body, wait_s=WAIT_S)
    except (NotDone, Unknown):
        return -1
    return reader.now_us


TRIALS = (nobody_serves_the_old, nobody_keeps_leases, a_retry_keeps_its_lease, waiting_readers_are_told)
