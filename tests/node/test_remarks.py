"""raft/remarks.py: what the nodes of a group write to their logs by themselves, and how little of it."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from raft.core.config import CoreConfig
from raft.remarks import ELECTIONS_MAX, FULL_PAUSE_MS, LEADER_PAUSE_MS, Remarks
from tests.helpers import eventually
from tests.node.faulty_files import FaultyFiles
from tests.node.group import Group

LED = "the group is led"
NOT_LED = "the group has no leader, for longer than an election should take"
FULL = "the disk is full: this node refuses writes"
ROOM = "the disk has room again"


def of(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


class Told:
    """A replica of which a test says how it stands, and the lines about it."""

    def __init__(self, lines: list[Any]) -> None:
        self.state = SimpleNamespace(leader="", term=0, leader_changes=0)
        configuration = SimpleNamespace(voters=("a", "b", "c"), members=("a", "b", "c"))
        core = SimpleNamespace(state=self.state, config=CoreConfig(id="a"), configuration=configuration)
        self.node = SimpleNamespace(
            id="a", core=core, group="test", now_ms=lambda: 0, is_disk_full=False, is_member=True,
            connected_peers=lambda: (),
        )  # fmt: skip
        self._remarks = Remarks(self.node)  # type: ignore[arg-type]
        self._lines = lines

    def lead(self, leader: str, term: int) -> None:
        self.state.leader, self.state.term = leader, term
        self.state.leader_changes += 1

    def lines_after(self, now_ms: int) -> list[Any]:
        """What a turn at this moment adds to the log."""
        before = len(self._lines)
        self._remarks.observe(now_ms)
        return self._lines[before:]


@pytest.fixture
def told() -> Any:
    with capture_logs() as lines:
        yield Told(lines)


def told_of(lines: list[Any], *, after_term: int = 0) -> Counter[tuple[str, int]]:
    """How often each leader of a later term was told, by leader and term."""
    return Counter((line["leader"], line["term"]) for line in of(lines, LED) if line["term"] > after_term)


async def test_every_node_logs_once_who_leads_and_again_after_a_change() -> None:
    """Who looks into the log of any node finds when leadership moved, and where to."""
    with capture_logs() as lines:
        async with Group() as group:
            await eventually(lambda: 3 in told_of(lines).values())
            former = await group.leader()
            term = former.core.state.term
            await group.crash(former.id)
            await eventually(lambda: 2 in told_of(lines, after_term=term).values())
            await group.pass_ms(200)

    assert max(told_of(lines).values()) == 3
    assert {line["group"] for line in of(lines, LED)} == {"test"}


async def test_a_node_without_a_majority_says_once_that_nobody_leads_and_why() -> None:
    with capture_logs() as lines:
        group = Group()
        group.start("a")
        await eventually(lambda: of(lines, NOT_LED))
        await group.pass_ms(500)
        await group.crash("a")
        group.clock_ms.stop()

    assert [line["reason"] for line in of(lines, NOT_LED)] == ["1 of 3 nodes can be reached; a majority is needed"]


async def test_a_disk_that_fills_up_is_logged_when_that_begins_and_when_it_ends() -> None:
    with capture_logs() as lines:
        group = Group()
        group.files = {id: FaultyFiles() for id in group.ids}
        async with group:
            follower = await group.follower()
            group.files[follower.id].full = True
            writing = asyncio.ensure_future((await group.leader()).propose(b"notice"))
            await eventually(lambda: of(lines, FULL))
            group.files[follower.id].full = False
            await eventually(lambda: of(lines, ROOM))
            await asyncio.gather(writing, return_exceptions=True)

    assert [len(of(lines, FULL)), len(of(lines, ROOM))] == [1, 1]


def test_an_election_in_the_usual_time_is_no_line(told: Told) -> None:
    timeout_ms = CoreConfig(id="a").election_timeout_max_ms
    told.lead("a", 1)
    told.lines_after(0)

    told.state.leader = ""
    usual = told.lines_after(10_000) + told.lines_after(10_000 + timeout_ms)
    long = told.lines_after(10_000 + ELECTIONS_MAX * timeout_ms)
    longer = told.lines_after(60_000)

    assert usual == [] == longer
    assert [line["event"] for line in long] == [NOT_LED]


def test_leaders_that_change_all_the_time_are_told_once_in_a_while_with_the_last_of_them(told: Told) -> None:
    """A network that flaps must not fill the log; what holds in the end is told."""
    for term in range(1, 50):
        told.lead("ab"[term % 2], term)
        told.lines_after(term)

    line = told.lines_after(1 + LEADER_PAUSE_MS)

    assert [(each["leader"], each["term"], each["left_out"]) for each in line] == [("b", 49, 47)]
    assert told.lines_after(10 * LEADER_PAUSE_MS) == []


def test_a_removed_node_does_not_complain_that_nobody_leads(told: Told) -> None:
    told.node.is_member = False

    assert told.lines_after(0) + told.lines_after(100_000) == []


def test_a_disk_that_is_full_now_and_then_is_told_now_and_then(told: Told) -> None:
    """Writers of others fill what room there is again and again."""
    told.lead("b", 1)
    told.lines_after(0)
    events = []
    for now_ms in range(0, FULL_PAUSE_MS, 100):
        told.node.is_disk_full = not told.node.is_disk_full
        events += [line["event"] for line in told.lines_after(now_ms)]

    assert events == [FULL, ROOM]
    told.node.is_disk_full = True
    assert [line["event"] for line in told.lines_after(FULL_PAUSE_MS)] == [FULL]
