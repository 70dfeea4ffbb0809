"""What a node knows of its commands under way: whose answer counts for those that it forwarded, how many they are."""

import asyncio
from random import Random
from typing import Any

from raft.core.config import CoreConfig
from raft.core.raft import RaftCore
from raft.core.types import Configuration
from raft.errors import NoLeader, Overloaded
from raft.forwarding import REFUSED_NOT_LEADING, REFUSED_OVERLOADED, Forward, ForwardReply
from raft.proposals import PROPOSAL_OVERHEAD_BYTES, Proposals
from tests.helpers import eventually
from tests.node.group import Group


class Follower:
    """The proposals of one life of the node `f`, which follows `leader` in term 5; what it sent is in `sent`."""

    def __init__(self, leader: str = "x") -> None:
        core = RaftCore(
            CoreConfig(id="f"), Configuration(voters=("f", "old", "x")), random=Random(1), now_ms=0
        )
        core.state.become_follower(5, leader)
        self.sent: list[Any] = []
        self.proposals = Proposals(core, lambda message: (self.sent.append(message), True)[1])

    def forward(self, command: bytes) -> tuple[Forward, asyncio.Future]:
        future = asyncio.get_running_loop().create_future()
        self.proposals.add(command, future, place_by_ms=1_000, settle_by_ms=1_800)
        self.proposals.feed(1)
        return self.sent[-1], future


async def test_a_place_that_was_named_to_an_earlier_life_is_not_taken_for_one_of_this_life() -> None:
    """Else the client is given the result of a command that another one sent before the restart."""
    before, _ = Follower().forward(b"before the restart")
    life = Follower()
    mine, future = life.forward(b"mine")

    life.proposals.on_forward_reply(ForwardReply("x", "f", before.batch, 5, 77), 70)
    life.proposals.on_applied(77, 5, "the earlier command's result")

    assert not future.done()
    life.proposals.on_forward_reply(ForwardReply("x", "f", mine.batch, 5, 78), 77)
    life.proposals.on_applied(78, 5, "mine")
    assert future.result() == "mine"


async def test_a_refusal_of_an_earlier_life_does_not_send_a_command_twice() -> None:
    before, _ = Follower("old").forward(b"before the restart")
    life = Follower("x")
    life.forward(b"incr")

    life.proposals.on_forward_reply(ForwardReply("old", "f", before.batch, 4, 0, REFUSED_NOT_LEADING), 0)
    life.proposals.feed(2)

    assert [b"incr"] == [command for message in life.sent for command in message.commands]


async def test_only_the_node_that_was_asked_answers_for_a_batch() -> None:
    """Whatever number another node names: it was not sent this command."""
    life = Follower("x")
    mine, future = life.forward(b"mine")

    life.proposals.on_forward_reply(ForwardReply("old", "f", mine.batch, 5, 77), 70)
    life.proposals.on_forward_reply(ForwardReply("old", "f", mine.batch, 4, 0, REFUSED_NOT_LEADING), 70)
    life.proposals.feed(2)
    life.proposals.on_applied(77, 5, "another one's result")

    assert not future.done()
    assert 1 == len(life.sent)


async def test_each_command_that_is_forwarded_counts() -> None:
    """A bound on batches would be none: one carries a thousand commands."""
    life = Follower("x")
    loop = asyncio.get_running_loop()
    for _ in range(3):
        life.proposals.add(b"12345", loop.create_future(), place_by_ms=1_000, settle_by_ms=1_800)

    life.proposals.feed(1)

    assert 1 == len(life.sent)
    assert 3 == len(life.proposals)
    assert 3 * (5 + PROPOSAL_OVERHEAD_BYTES) == life.proposals.memory_bytes


async def test_whatever_becomes_of_commands_none_is_counted_for_ever() -> None:
    """Answered, refused, expired in the log, given up by its caller, lost with the leader, failed at the end."""
    life = Follower("x")
    proposals = life.proposals

    answered, future = life.forward(b"answered")
    proposals.on_forward_reply(ForwardReply("x", "f", answered.batch, 5, 1), 0)
    proposals.on_applied(1, 5, "result")
    assert ("result", 0) == (future.result(), len(proposals))

    refused, _ = life.forward(b"refused")
    proposals.on_forward_reply(ForwardReply("x", "f", refused.batch, 5, 0, REFUSED_OVERLOADED), 0)
    assert 0 == len(proposals)

    for ended in ("expired", "cancelled"):
        placed, future = life.forward(ended.encode())
        proposals.on_forward_reply(ForwardReply("x", "f", placed.batch, 5, 2), 1)
        if ended == "cancelled":
            future.cancel()
        assert 1 == len(proposals)
        proposals.expire(1_800 if ended == "expired" else 1, NoLeader)
        assert 0 == len(proposals)

    given_up = asyncio.get_running_loop().create_future()
    proposals.add(b"given up", given_up, place_by_ms=1_000, settle_by_ms=1_800)
    given_up.cancel()
    proposals.feed(2)
    assert 0 == len(proposals)

    life.forward(b"lost")
    proposals.on_leader_lost("x")
    assert 0 == len(proposals)

    life.forward(b"at the end")
    proposals.fail_all(NoLeader())
    assert (0, 0) == (len(proposals), proposals.memory_bytes)


async def test_requests_that_wait_for_a_leader_are_bounded_in_bytes() -> None:
    async with Group(proposals_bytes_max=4 << 20, leader_wait_ms=300) as group:
        await group.leader()
        for id in ("a", "b"):
            await group.crash(id)
        alone = group.nodes["c"]
        await eventually(lambda: not alone.core.state.leader)

        outcomes = await asyncio.gather(*(alone.propose(bytes(1 << 20)) for _ in range(10)), return_exceptions=True)

        assert 7 == sum(isinstance(outcome, Overloaded) for outcome in outcomes)
        assert (0, 0) == (len(alone.proposals), alone.proposals.memory_bytes)
