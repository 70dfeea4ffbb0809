"""Callers who come, go, fill, give up and forget, at three nodes at once, with answers that take their time. Time is
turns of the event loop, so a seed gives one course of events."""

import asyncio
from random import Random
from typing import Any

import pytest

from raft.errors import NoLeader, OutcomeUnknown
from services.cache import filling
from services.cache.commands import Delete, Invalidate, Put
from services.cache.filling import FillLines
from services.envelope import encode_command
from tests.helpers import eventually
from tests.services.cache.cluster import Replica, SharedLog
from tests.services.cache.tools import NODES

KEYS = ("a", "b")
CALLERS = 150


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class SlowReplica(Replica):
    """Its answers take a moment, and now and then there is none."""

    def __init__(self, node_id: str, log: SharedLog, chance: Random) -> None:
        super().__init__(node_id, log)
        self.chance = chance
        self.faults = 0

    async def propose(self, command: bytes) -> dict[str, Any]:
        await turns(self.chance.choice((0, 0, 3)))
        if self.chance.random() < 0.03:
            self.faults += 1
            raise NoLeader("none")
        answer = self.log.append(command)[self.id]
        await turns(self.chance.choice((0, 0, 5)))
        if self.chance.random() < 0.03:
            self.faults += 1
            raise OutcomeUnknown("lost")
        return answer


class Crowd:
    """Everything of one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.log = SharedLog()
        self.background: set[asyncio.Task] = set()
        self.nodes = {id: SlowReplica(id, self.log, self.chance) for id in NODES}
        self.lines = {id: FillLines(node, f"{id}:boot", self.background) for id, node in self.nodes.items()}
        #: Tokens in the order in which callers got them.
        self.tokens: list[int] = []
        self.outcomes: dict[str, int] = {}

    async def caller(self) -> None:
        chance = self.chance
        await turns(chance.randrange(600))
        node, key = chance.choice(NODES), chance.choice(KEYS)
        read = asyncio.create_task(
            self.lines[node].read(key, lease_ms=chance.choice((50, 400)), wait_s=chance.choice((0, 60)))
        )
        if chance.random() < 0.3:
            await turns(chance.randrange(30))
            read.cancel()
        try:
            answer = await read
        except asyncio.CancelledError:
            self._count("gone")
        except (NoLeader, OutcomeUnknown):
            self._count("error")
        else:
            self._count("hit" if answer["hit"] else "filling" if "filling" in answer else "lease")
            if "lease" in answer:
                self.tokens.append(answer["lease"])
                await self._use(node, key, answer["lease"])

    async def _use(self, node: str, key: str, token: int) -> None:
        chance = self.chance
        await turns(chance.randrange(20))
        command = chance.choice(
            [
                Put(key, b"1", node, 100, tags=("t",), lease=token),
                Put(key, b"1", node, 100, tags=("t",), lease=token),
                Delete(key, lease=token),
                Delete(key),
                Invalidate("t"),
                None,
            ]
        )
        if command is not None:
            self.log.append(encode_command(command))

    async def time(self) -> None:
        """Cluster time goes on, also where nobody asks."""
        while True:
            await turns(5)
            self.log.advance(self.chance.randrange(20))

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


@pytest.mark.parametrize("seed", range(6))
async def test_nobody_waits_for_ever_and_no_lease_is_given_twice(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "RETRY_S", 0)
    crowd = Crowd(seed)
    time = asyncio.create_task(crowd.time())

    await asyncio.wait_for(asyncio.gather(*(crowd.caller() for _ in range(CALLERS))), 20)
    await eventually(lambda: not crowd.background)
    crowd.log.advance(10_000)
    time.cancel()

    assert len(set(crowd.tokens)) == len(crowd.tokens)
    assert set(crowd.outcomes) >= {"gone", "hit", "filling", "lease"}
    assert sum(node.faults for node in crowd.nodes.values()) > 0
    for lines in crowd.lines.values():
        assert (lines._lines, lines._given, lines.waiting) == ({}, {}, 0)
    machines = [node.machine for node in crowd.nodes.values()]
    assert len({tuple(machine.snapshot()) for machine in machines}) == 1
    assert machines[0].inner.statistics().fill_leases == 0
