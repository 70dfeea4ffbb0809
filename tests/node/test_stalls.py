"""A process that stood still, or whose disk does: what a node does before it believes anything (design: failover)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from raft.core.messages import AppendEntriesReply
from raft.core.types import Role
from raft.errors import OutcomeUnknown
from raft.node import RaftNode
from tests.helpers import eventually
from tests.node.faulty_files import FaultyFiles
from tests.node.group import Group

#: Defaults of `CoreConfig`, seconds.
ELECTION_TIMEOUT_MAX_S = 0.8


class JumpingClock:
    """The group's clock, which a test moves forward: as after SIGSTOP, a suspend or a starved machine."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self.ahead_ms = 0

    def __call__(self) -> int:
        return self._clock_ms() + self.ahead_ms


class ClockGroup(Group):
    """Nodes that have a clock of their own each."""

    def __init__(self) -> None:
        super().__init__()
        self.clocks = {id: JumpingClock(self.clock_ms) for id in self.ids}

    async def __aenter__(self) -> "ClockGroup":
        for id in self.ids:
            self.start(id, clock_ms=self.clocks[id])
        return self


def recorded(monkeypatch: pytest.MonkeyPatch, core: Any) -> list[str]:
    """The order in which a core is told of a stall and of messages."""
    order: list[str] = []
    for name in ("stalled", "receive"):
        original = getattr(core, name)

        def call(*arguments: Any, name: str = name, original: Any = original) -> Any:
            order.append(name)
            return original(*arguments)

        monkeypatch.setattr(core, name, call)
    return order


def acknowledgement(sender: str, leader: RaftNode) -> AppendEntriesReply:
    """A follower's answer of the leader's term, as it may wait in a socket."""
    core = leader.core
    return AppendEntriesReply(sender, leader.id, core.state.term, core.last_sequence, True, core.log.last_index)


async def test_after_a_stall_the_core_is_told_before_what_arrived_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledgements in the sockets of a frozen leader are as old as the freeze (cowsql#99)."""
    async with ClockGroup() as group:
        leader = await group.leader()
        others = [node for node in group.nodes.values() if node is not leader]
        await eventually(lambda: leader.core.log.commit_index == leader.core.log.last_index)
        order = recorded(monkeypatch, leader.core)

        group.clocks[leader.id].ahead_ms += 300
        leader.receive(acknowledgement(others[0].id, leader))
        await eventually(lambda: order)

        assert order[0] == "stalled"
        assert "receive" in order
        assert leader.stalls == 1
        assert leader.core.state.role is not Role.LEADER


async def test_a_short_delay_is_no_stall() -> None:
    """Half an election timeout is allowed: a busy machine must not change leaders for nothing."""
    async with ClockGroup() as group:
        leader = await group.leader()
        before = leader.stalls

        group.clocks[leader.id].ahead_ms += 60
        await leader.propose(b"x")

        assert leader.stalls == before
        assert leader.core.state.role is Role.LEADER


async def test_a_leader_that_was_frozen_answers_no_read_from_before() -> None:
    """It finds a reader waiting when it wakes, and answers with what the others wrote meanwhile (known bug 68)."""
    async with ClockGroup() as group:
        leader = await group.leader()
        await leader.propose(b"old")
        group.network.isolate(leader.id)
        await (await group.leader_after(leader)).propose(b"new")

        group.clocks[leader.id].ahead_ms += 2_000
        reading = asyncio.ensure_future(leader.read_index())
        group.network.heal()
        await reading

        assert leader.machine.commands == [b"old", b"new"]


async def test_a_leader_whose_disk_hangs_steps_down_within_two_election_timeouts() -> None:
    """Heartbeats need no disk and would keep it leader for ever (etcd#3068); what it took is unknown, not failed."""
    group = Group()
    group.files = {id: FaultyFiles() for id in group.ids}
    async with group:
        leader = await group.leader()
        await leader.propose(b"before")
        group.files[leader.id].answers.clear()
        try:
            writing = asyncio.ensure_future(leader.propose(b"hangs"))
            stepped_down_s = await group.seconds_of(eventually(lambda: leader.core.state.role is not Role.LEADER))
            other = await group.leader_after(leader)

            assert await other.propose(b"served by others") >= 2
        finally:
            group.files[leader.id].answers.set()
            outcome = (await asyncio.gather(writing, return_exceptions=True))[0]

        assert stepped_down_s < 2 * ELECTION_TIMEOUT_MAX_S
        assert isinstance(outcome, int | OutcomeUnknown)
