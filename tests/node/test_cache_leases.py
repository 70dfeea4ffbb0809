"""The cache's coherence over three nodes in one loop: who waits for whom, and what a local hit costs."""

import asyncio
from dataclasses import dataclass
from typing import Any

from common.metrics import Metrics
from raft.core.config import CoreConfig
from raft.node import RaftNode
from raft.replica import RESTORED_TOPIC
from services.cache.node.coherence import Coherence
from services.cache.node.invalidations import Invalidations
from services.cache.node.pending import answer_pending, pending_of
from services.cache.replicated.commands import Delete, Fill, Put
from services.cache.replicated.machine import CacheMachine
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine
from tests.helpers import eventually
from tests.node.group import Group

LEASE_MS = 600
#: What a dead holder may delay the first write of its lines by.
DELAY_MAX_S = (LEASE_MS + 200) / 1000
#: What waits for a lease that was in use a moment ago takes longer than this, and what waits for none takes less.
NO_WAIT_S = LEASE_MS / 2000


@dataclass
class Part:
    coherence: Coherence
    invalidations: Invalidations


class CacheGroup(Group):
    """Three cache nodes, asked as their routes ask them."""

    def __init__(self, *ids: str, **config: Any) -> None:
        super().__init__(ids or ("a", "b", "c"), **config)
        self.parts: dict[str, Part] = {}

    def make_machine(self) -> ReplicatedMachine:
        return ReplicatedMachine(CacheMachine)

    def core_config(self, id: str) -> CoreConfig:
        return CoreConfig(id=id, lease_ms=LEASE_MS, lease_drift_percent=5)

    def prepare(self, node: RaftNode) -> None:
        metrics = Metrics()
        coherence = Coherence(node, metrics)
        node.subscribe(RESTORED_TOPIC, lambda _: coherence.on_restored())
        node.withheld = Invalidations(node, metrics.cache_invalidation_wait_seconds.labels())
        answer_pending(node, node.withheld)
        self.parts[node.id] = Part(coherence, node.withheld)

    async def put(self, id: str, key: str, value: bytes) -> dict[str, Any]:
        answer = await self.nodes[id].propose(encode_command(Put(key, value, id)))
        self.parts[id].coherence.grant(key, answer["version"])
        return answer

    async def delete(self, id: str, key: str) -> dict[str, Any]:
        return await self.nodes[id].propose(encode_command(Delete(key)))

    async def fill(self, id: str, key: str) -> dict[str, Any]:
        answer = await self.nodes[id].propose(encode_command(Fill(key, id)))
        if answer["hit"]:
            self.parts[id].coherence.grant(key, answer["version"])
        return answer

    def local(self, id: str, key: str) -> bytes | None:
        """What the node would answer from memory at this moment."""
        line = self.parts[id].coherence.may_serve(key)
        return None if line is None else line.value

    async def ready(self) -> str:
        """Every node holds a lease; returns the leader's id."""
        leader = await self.leader()
        await eventually(lambda: all(node.may_serve_locally() for node in self.nodes.values()))
        return leader.id

    async def followers(self) -> tuple[str, str]:
        leader = await self.ready()
        first, second = (id for id in self.ids if id != leader)
        return first, second


async def test_a_writer_and_a_reader_serve_from_memory_with_no_raft_work_at_all() -> None:
    """A local hit sends nothing: commit index and message counters stand still but for heartbeats."""
    async with CacheGroup() as group:
        writer, reader = await group.followers()
        await group.put(writer, "k", b"1")
        await group.fill(reader, "k")
        nodes = group.nodes.values()
        await eventually(lambda: len({node.core.log.commit_index for node in nodes}) == 1)
        commits = [node.core.log.commit_index for node in nodes]
        leader = group.leaders[0]
        sent, began = leader.core.last_sequence, group.clock_ms()

        hits = [group.local(id, "k") for _ in range(500) for id in (writer, reader)]

        # No await since: not even a heartbeat came between.
        assert set(hits) == {b"1"}
        assert [node.core.log.commit_index for node in nodes] == commits
        assert leader.core.last_sequence == sent
        await group.pass_ms(200)
        rounds = (group.clock_ms() - began) // leader.core.config.heartbeat_ms + 2
        assert leader.core.last_sequence - sent <= 2 * rounds
        assert [node.core.log.commit_index for node in nodes] == commits


async def test_a_new_value_is_shown_to_nobody_while_another_node_may_serve_the_old_one() -> None:
    """The answer to a write comes once every holder has applied it."""
    async with CacheGroup() as group:
        leader = await group.ready()
        first, second = await group.followers()
        await group.put(leader, "k", b"0")
        for number in range(1, 60):
            writer = group.ids[number % 3]
            await group.put(writer, "k", b"%d" % number)

            assert {group.local(id, "k") for id in group.ids} <= {None, b"%d" % number}
            for id in (first, second):
                assert (await group.fill(id, "k"))["val"] == b"%d" % number


async def test_a_holder_that_is_cut_off_delays_the_first_write_of_its_lines_by_a_lease_at_most() -> None:
    """Later writes, and writes of other lines, wait for nobody."""
    async with CacheGroup() as group:
        holder, writer = await group.followers()
        await group.put(holder, "held", b"1")
        await group.put(holder, "held too", b"1")
        await group.put(writer, "other", b"1")
        await group.ready()
        group.network.isolate(holder)

        await group.put(writer, "other", b"2")
        served_before = group.local(holder, "held")
        first_s = await group.seconds_of(group.put(writer, "held", b"2"))
        served_after = group.local(holder, "held")
        later_s = await group.seconds_of(group.put(writer, "held", b"3"))
        too_s = await group.seconds_of(group.put(writer, "held too", b"3"))

        assert served_before == b"1", "the lease had not ended: the other line did not wait for it"
        assert served_after is None
        assert first_s <= DELAY_MAX_S
        assert later_s < NO_WAIT_S
        assert too_s < NO_WAIT_S


async def test_a_holder_that_comes_back_serves_nothing_old() -> None:
    """A lapsed lease is given anew only behind what was answered without it."""
    async with CacheGroup() as group:
        holder, writer = await group.followers()
        await group.put(holder, "k", b"1")
        group.network.isolate(holder)
        await group.put(writer, "k", b"2")
        group.network.heal()

        await eventually(group.nodes[holder].may_serve_locally)

        assert group.local(holder, "k") is None
        assert (await group.fill(holder, "k"))["val"] == b"2"


async def test_a_crashed_holder_is_waited_for_once() -> None:
    async with CacheGroup() as group:
        holder, writer = await group.followers()
        await group.put(holder, "k", b"1")
        await group.ready()
        await group.crash(holder)

        assert await group.seconds_of(group.put(writer, "k", b"2")) <= DELAY_MAX_S
        assert await group.seconds_of(group.put(writer, "k", b"3")) < NO_WAIT_S


async def test_a_crashed_leader_takes_no_lease_with_it() -> None:
    """Every write and fill of the new leader waits until all leases of the old one have ended."""
    async with CacheGroup() as group:
        first, second = await group.followers()
        leader = group.leaders[0].id
        await group.put(leader, "k", b"1")
        await group.fill(first, "k")
        await group.crash(leader)
        await group.leader()
        began_ms = group.clock_ms()

        answer = await group.fill(second, "k")
        filled_s = (group.clock_ms() - began_ms) / 1000

        assert answer["val"] == b"1"
        assert filled_s <= DELAY_MAX_S
        assert (await group.put(second, "k", b"2"))["ok"]
        assert group.local(first, "k") is None


async def test_a_leader_that_is_cut_off_stops_serving_before_another_answers() -> None:
    async with CacheGroup(request_timeout_ms=1_800) as group:
        first, _ = await group.followers()
        leader = group.leaders[0].id
        await group.put(leader, "k", b"1")
        group.network.isolate(leader)

        async def written() -> bool:
            try:
                return (await group.put(first, "k", b"2"))["ok"]
            except Exception:
                return False

        await eventually(written)

        assert group.local(leader, "k") is None


class MixedGroup(CacheGroup):
    """The setting is being changed: `a` still gives leases of 3 s."""

    def core_config(self, id: str) -> CoreConfig:
        return CoreConfig(id=id, lease_ms=3_000 if id == "a" else LEASE_MS, lease_drift_percent=5)


async def test_a_leader_that_gives_short_leases_waits_out_the_long_ones_of_the_one_before() -> None:
    """A holder is cut off with 3 s on its lease, and the leader that gave it is gone: whoever follows it gives 0.6 s,
    and still answers nothing before."""
    async with MixedGroup(*"abcde") as group:
        await group.lead(group.nodes["a"])
        await group.put("a", "k", b"1")
        holder = group.nodes["e"]
        await group.fill("e", "k")
        await eventually(lambda: holder.core.leases.valid_until_ms - group.clock_ms() > 2_500)
        group.network.isolate("e")
        await group.crash("a")

        await group.put("b", "k", b"2")

        assert group.local("e", "k") is None


async def test_leadership_is_handed_over_without_waiting_for_a_lease() -> None:
    """Every node hears of the new leader's no-op, so nothing is left to wait out."""
    async with CacheGroup() as group:
        first, second = await group.followers()
        await group.pass_ms(LEASE_MS)
        await group.put(second, "k", b"1")
        await group.lead(group.nodes[first])

        assert await group.seconds_of(group.put(second, "k", b"2")) < 0.5


async def test_an_absence_is_known_without_a_log_entry_some_time_after_the_removal() -> None:
    async with CacheGroup() as group:
        first, second = await group.followers()
        await group.put(first, "k", b"1")
        await group.delete(second, "k")
        coherence = group.parts[second].coherence

        early = coherence.is_surely_absent("k")
        await group.pass_ms(2_100)

        assert not early
        assert coherence.is_surely_absent("k")
        assert coherence.is_surely_absent("never there")


async def test_every_node_tells_whom_a_write_waits_for() -> None:
    """Goal: the account is the leader's; a node that cannot ask it says that it does not know."""
    async with CacheGroup() as group:
        holder, other = await group.followers()
        leader = await group.ready()
        await group.put(holder, "k", b"old")
        await group.ready()
        group.network.isolate(holder)
        write = asyncio.create_task(group.put(leader, "k", b"new"))
        await eventually(lambda: group.parts[leader].invalidations.pending("k"))

        told = {id: await pending_of(group.nodes[id], ["k", "else"]) for id in (leader, other, holder)}
        await write
        after = [await pending_of(group.nodes[id], ["k"]) for id in (leader, other)]

        assert told == {leader: [[holder], []], other: [[holder], []], holder: [None, None]}
        assert after == [[[]], [[]]]
