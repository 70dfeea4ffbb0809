"""Invalidation by tag and leases to fill, over three nodes in one loop."""

import asyncio

import pytest

from common.runtime import Background
from services.cache.node.filling import FillLines
from services.cache.replicated import store
from services.cache.replicated.commands import Invalidate, Put
from services.replicated.envelope import encode_command
from tests.helpers import eventually
from tests.node.test_cache_leases import DELAY_MAX_S, NO_WAIT_S, CacheGroup


async def put_tagged(group: CacheGroup, id: str, key: str, value: bytes, *tags: str) -> None:
    answer = await group.nodes[id].propose(encode_command(Put(key, value, id, tags=tags)))
    group.parts[id].coherence.grant(key, answer["version"])


async def invalidate(group: CacheGroup, id: str, tag: str) -> int:
    return (await group.nodes[id].propose(encode_command(Invalidate(tag))))["invalidated"]


async def test_no_node_serves_a_tagged_line_once_its_invalidation_is_answered() -> None:
    """Whoever held it, whoever asked, and whether or not its room was taken back."""
    async with CacheGroup() as group:
        await group.ready()
        for number in range(40):
            asker, keys = group.ids[number % 3], [f"k{each}" for each in range(6)]
            for place, key in enumerate(keys):
                await put_tagged(group, group.ids[(number + place) % 3], key, b"%d" % number, "t")
            for id in group.ids:
                await group.fill(id, keys[number % 6])

            removed = await invalidate(group, asker, "t")

            assert removed == 6
            assert {group.local(id, key) for id in group.ids for key in keys} == {None}
            assert not (await group.fill(asker, keys[0]))["hit"]


async def test_a_holder_that_is_cut_off_delays_the_invalidation_of_its_tag_by_a_lease_at_most() -> None:
    """And then it serves nothing of it; other tags wait for nobody."""
    async with CacheGroup() as group:
        holder, writer = await group.followers()
        await put_tagged(group, holder, "a", b"1", "held")
        await put_tagged(group, writer, "b", b"1", "held")
        await put_tagged(group, writer, "c", b"1", "other")
        await group.ready()
        group.network.isolate(holder)

        await invalidate(group, writer, "other")
        served_before = group.local(holder, "a")
        held_s = await group.seconds_of(invalidate(group, writer, "held"))
        served_after = group.local(holder, "a")
        again_s = await group.seconds_of(invalidate(group, writer, "held"))

        assert served_before == b"1", "the lease had not ended: the other tag did not wait for it"
        assert served_after is None
        assert held_s <= DELAY_MAX_S
        assert again_s < NO_WAIT_S


async def test_an_invalidation_waits_for_who_serves_a_line_that_was_replaced_just_before() -> None:
    """The write is not answered yet, the old value is served still; it must not be behind the invalidation."""
    async with CacheGroup() as group:
        holder, writer = await group.followers()
        await put_tagged(group, holder, "k", b"old", "t")
        await group.ready()
        group.network.isolate(holder)

        write = asyncio.create_task(group.put(writer, "k", b"untagged"))
        account = group.parts[group.leaders[0].id].invalidations
        await eventually(lambda: account.pending("k") == (holder,))
        assert not write.done()
        assert group.local(holder, "k") == b"old"
        await invalidate(group, writer, "t")

        assert group.local(holder, "k") is None
        await write


async def test_what_one_entry_left_is_swept_without_another_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", 2)
    async with CacheGroup() as group:
        leader = await group.ready()
        for number in range(11):
            await put_tagged(group, leader, f"k{number}", b"1", "t")

        await invalidate(group, leader, "t")

        await eventually(
            lambda: all(node.machine.inner.statistics().lines == 0 for node in group.nodes.values()), 5
        )


async def test_a_lease_to_fill_outlives_its_leader_and_ends_by_cluster_time() -> None:
    """The node at which it was taken dies, and so does its client: who waits elsewhere gets the next one."""
    async with CacheGroup() as group:
        waiting, _ = await group.followers()
        leader = group.leaders[0].id
        background = Background()
        dying = FillLines(group.nodes[leader], f"{leader}:boot", background)
        lines = FillLines(group.nodes[waiting], f"{waiting}:boot", background)
        first = await dying.read("k", lease_ms=2_000, wait_s=0)
        waiter = asyncio.create_task(lines.read("k", lease_ms=2_000, wait_s=60))
        told = await lines.read("k", lease_ms=2_000, wait_s=0)

        await group.crash(leader)
        second = await waiter

        assert told["filling"]
        assert second["lease"] > first["lease"]
        await eventually(lambda: not background)
