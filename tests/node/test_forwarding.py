"""What a follower makes of the answers to the commands that it forwarded."""

import asyncio
from random import Random
from typing import Any

from raft.core.config import CoreConfig
from raft.core.raft import RaftCore
from raft.core.types import Configuration
from raft.forwarding import REFUSED_NOT_LEADING, Forward, ForwardReply
from raft.proposals import Proposals


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
