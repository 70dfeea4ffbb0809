"""Callers who come, go, fill, give up and forget, at three nodes at once, with answers that take their time. Time is
turns of the event loop, so a seed gives one course of events."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest

from common.runtime import Background
from common.wire import unpack
from raft.errors import NoLeader, OutcomeUnknown
from raft.state_machine import FIRST_VERSION
from services.cache.node import filling
from services.cache.node.filling import FillLines
from services.cache.replicated.commands import Delete, Fill, GiveBack, Invalidate, Put
from services.replicated import withdrawals
from services.replicated.envelope import encode_command
from services.replicated.versions import KNOWN, RaiseVersion
from tests.helpers import eventually
from tests.services.cache.cluster import Replica, SharedLog
from tests.services.cache.tools import NODES

KEYS = ("a", "b")
CALLERS = 150
#: A lease that does not end by its time in a run.
LONG_MS = 10_000_000


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class SlowReplica(Replica):
    """Its answers take a moment, and now and then there is none."""

    def __init__(self, node_id: str, log: SharedLog, chance: Random) -> None:
        super().__init__(node_id, log)
        self.chance = chance
        self.faults = 0

    async def propose(self, command: bytes, *, parting: bool = False) -> dict[str, Any]:
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


class WatchedLog(SharedLog):
    """Looks whether what is given back is with a caller."""

    def __init__(self) -> None:
        super().__init__()
        #: Callers who were told of it and are about to use it, by token.
        self.having: Counter[int] = Counter()

    def append(self, command: bytes) -> dict[str, Any]:
        machine = self.nodes[0].machine.inner
        before = [machine.lease_token(key) for key in KEYS]
        answers = super().append(command)
        if unpack(command)[0] == GiveBack.OP:
            for key, token in zip(KEYS, before, strict=True):
                assert token is None or machine.lease_token(key) == token or not self.having[token], "was given back"
        return answers


class Crowd:
    """Everything of one seed."""

    def __init__(self, seed: int, version: int) -> None:
        self.chance = Random(seed)
        self.log = WatchedLog() if version >= Fill.FIELDS_SINCE["beside"] else SharedLog()
        self.background = Background()
        self.nodes = {id: SlowReplica(id, self.log, self.chance) for id in NODES}
        self.lines = {id: FillLines(node, f"{id}:boot", self.background) for id, node in self.nodes.items()}
        self.log.append(encode_command(RaiseVersion(version)))
        #: Tokens in the order in which callers got them, and the claim of each caller.
        self.tokens: list[tuple[int, str]] = []
        self.outcomes: dict[str, int] = {}

    async def caller(self) -> None:
        chance = self.chance
        await turns(chance.randrange(600))
        node, key = chance.choice(NODES), chance.choice(KEYS)
        claim = chance.choice(("", "", "", "c", "d"))
        lease_ms, wait_s = chance.choice((50, 400, LONG_MS)), chance.choice((0, 60))
        read = asyncio.create_task(self.lines[node].read(key, lease_ms=lease_ms, wait_s=wait_s, claim=claim))
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
                if chance.random() < 0.2:
                    self._count("lost")
                    self.lines[node].take_back(key, answer["lease"])
                    return
                self.tokens.append((answer["lease"], claim))
                having = getattr(self.log, "having", Counter())
                having[answer["lease"]] += 1
                await self._use(node, key, answer["lease"])
                having[answer["lease"]] -= 1

    async def _use(self, node: str, key: str, token: int) -> None:
        chance = self.chance
        await turns(chance.randrange(20))
        uses = [
            Put(key, b"1", node, 100, tags=("t",), lease=token),
            Put(key, b"1", node, 100, tags=("t",), lease=token),
            Delete(key, lease=token),
            Delete(key),
        ]
        lease = self.nodes[node].machine.inner.fill_lease(key)
        if lease is None or lease.expires_at - self.log.time_ms < LONG_MS // 2:
            # Who has a long lease does something with it: one that stands in the end was lost.
            uses += [Invalidate("t"), None]
        command = chance.choice(uses)
        if command is not None:
            self.log.append(encode_command(command))

    async def time(self) -> None:
        """Cluster time goes on, also where nobody asks."""
        while True:
            await turns(5)
            self.log.advance(self.chance.randrange(20))

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


@pytest.mark.parametrize("version", [FIRST_VERSION, KNOWN])
@pytest.mark.parametrize("seed", range(6))
async def test_nobody_waits_for_ever_and_no_lease_is_given_twice_or_lost(
    seed: int, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "RETRY_S", 0)
    monkeypatch.setattr(withdrawals, "RETRY_S", 0)
    crowd = Crowd(seed, version)
    time = asyncio.create_task(crowd.time())

    await asyncio.wait_for(asyncio.gather(*(crowd.caller() for _ in range(CALLERS))), 20)
    time.cancel()
    await eventually(lambda: not crowd.background)
    crowd.log.advance(10_000)

    unclaimed = [token for token, claim in crowd.tokens if not claim]
    assert len(set(unclaimed)) == len(unclaimed)
    assert len({token for token, _ in crowd.tokens}) == len(set(crowd.tokens))
    assert set(crowd.outcomes) >= {"gone", "hit", "filling", "lease", "lost"}
    assert sum(node.faults for node in crowd.nodes.values()) > 0
    for lines in crowd.lines.values():
        assert (lines._lines, lines._given, len(lines._owed), lines.waiting) == ({}, {}, 0, 0)
    machines = [node.machine for node in crowd.nodes.values()]
    assert len({tuple(machine.snapshot()) for machine in machines}) == 1
    assert machines[0].inner.statistics().fill_leases == 0
