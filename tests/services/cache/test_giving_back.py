"""Leases that were given to callers who never heard of them: they go back, whatever was lost on the way."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from common.runtime import Background
from common.web import has_hung_up
from raft.errors import NoLeader, OutcomeUnknown, RaftError, Stopping
from raft.replica import RESTORED_TOPIC
from services.cache.node.filling import FillLines
from services.cache.replicated.commands import Fill
from services.cache.replicated.machine import CacheMachine
from services.http import routes
from services.replicated import withdrawals
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine
from services.replicated.versions import RaiseVersion
from tests.helpers import eventually
from tests.services.cache.cluster import Cluster, Replica, SharedLog


def lines(cluster: Cluster, node: str = "node1") -> FillLines:
    return cluster.hosts[node].parts[FillLines]


def token(cluster: Cluster, key: str = "k") -> int | None:
    """Of the lease that stands."""
    return cluster.replica("node1").machine.inner.lease_token(key)


class HandReplica(Replica):
    """Applies at once; the test answers when it likes."""

    def __init__(self, node_id: str = "node1") -> None:
        super().__init__(node_id, SharedLog())
        self.open: list[Callable[[], None]] = []

    async def propose(self, command: bytes, *, parting: bool = False) -> dict[str, Any]:
        answer = self.log.append(command)[self.id]
        future = asyncio.get_running_loop().create_future()
        self.open.append(lambda: future.set_result(answer))
        return await future


@pytest.mark.parametrize("order", ["answer, then gone", "gone, then answer"])
async def test_a_caller_that_goes_in_the_turn_of_its_answer_leaves_no_lease(order: str) -> None:
    """Goal: the answer and the end of the connection fall into one turn of the loop, in either order."""
    node = HandReplica()
    background = Background()
    fills = FillLines(node, "node1:boot", background)
    caller = asyncio.create_task(fills.read("k", lease_ms=300_000, wait_s=30))
    await eventually(lambda: node.open)
    assert node.machine.inner.lease_token("k") == 1

    acts = [node.open.pop(), caller.cancel]
    for act in acts if order == "answer, then gone" else reversed(acts):
        act()

    await eventually(lambda: node.open)
    assert node.machine.inner.lease_token("k") is None
    node.open.pop()()
    await eventually(lambda: not background)
    assert (fills._lines, fills._given, len(fills._owed)) == ({}, {}, 0)


class LateReplica(Replica):
    """Proposes when the test says so."""

    def __init__(self, node_id: str, log: SharedLog) -> None:
        super().__init__(node_id, log)
        self.go = asyncio.Event()

    async def propose(self, command: bytes, *, parting: bool = False) -> dict[str, Any]:
        await self.go.wait()
        return self.log.append(command)[self.id]


async def test_a_first_try_that_is_decided_late_leaves_the_lease_to_whom_the_retry_told_it() -> None:
    """Goal: the client asked one node, left, asked another with its key and was told the lease; then the first node's
    question is decided, and nobody is there to hear it."""
    log, background = SharedLog(), Background()
    late, other = LateReplica("node1", log), Replica("node2", log)
    log.append(encode_command(RaiseVersion(2)))
    first, second = FillLines(late, "node1:boot", background), FillLines(other, "node2:boot", background)
    trying = asyncio.create_task(first.read("k", lease_ms=300_000, wait_s=30, claim="once"))
    await eventually(lambda: first._asking)
    trying.cancel()
    told = await second.read("k", lease_ms=300_000, wait_s=30, claim="once")
    late.go.set()
    await eventually(lambda: not background)

    assert log.index == 4, "raised, told, told again, given back by the first node"
    assert other.machine.inner.lease_token("k") == told["lease"] == 2
    second.take_back("k", 2)
    await eventually(lambda: not background)
    assert other.machine.inner.lease_token("k") is None


async def test_a_client_that_is_gone_when_its_answer_is_written_leaves_no_lease(cluster: Cluster) -> None:
    """Goal: the handler has its answer, and there is no connection any more to write it to. The server
    does not cancel handlers here, so this one finds out by itself, as in the turn in which both fall together."""
    cluster.log.way = asyncio.Event()
    server = cluster.clients["node1"].server
    server.runner.server.handler_cancellation = False
    _, writer = await asyncio.open_connection(server.host, server.port)
    body = b'{"key":"k","wait":30}'
    writer.write(
        b"POST /cache/get HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await eventually(lambda: token(cluster) == 1)
    writer.close()
    await eventually(lambda: all(each.transport is None for each in server.runner.server.connections))

    cluster.log.way.set()

    await eventually(lambda: cluster.log.index == 2)
    assert token(cluster) is None
    assert lines(cluster)._given == {}


async def test_a_client_that_hangs_up_just_before_its_answer_is_written_leaves_no_lease(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the event loop has not come to hear of it, as under load, and the answer could be written: to nobody."""
    server = cluster.clients["node1"].server
    with socket.create_connection((server.host, server.port)) as client:

        def hang_up_and_look(request: web.Request, ask: Callable[[Any], bool]) -> bool:
            client.close()
            return has_hung_up(request, ask)

        monkeypatch.setattr(routes, "has_hung_up", hang_up_and_look)
        client.sendall(b"GET /cache/read?key=k&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n")

        await eventually(lambda: cluster.log.index == 2)

    assert token(cluster) is None


@pytest.mark.parametrize("trouble", [NoLeader("none"), OutcomeUnknown("lost")], ids=["no leader", "unknown"])
async def test_giving_back_is_repeated_until_its_outcome_is_known(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, trouble: RaftError
) -> None:
    """Goal: there is no leader just when the caller goes; the key is not blocked for the lease's time."""
    monkeypatch.setattr(withdrawals, "RETRY_S", 0.01)
    answer = await lines(cluster).read("k", lease_ms=300_000, wait_s=0)
    tries = 0
    replica = cluster.replica("node1")
    propose = replica.propose

    async def counted(command: bytes, *, parting: bool = False) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        return await propose(command)

    monkeypatch.setattr(replica, "propose", counted)
    cluster.log.broken = trouble
    lines(cluster).take_back("k", answer["lease"])
    await eventually(lambda: tries > 3)
    assert token(cluster) == 1

    cluster.log.broken = None

    await eventually(lambda: token(cluster) is None)
    await eventually(lambda: not lines(cluster)._owed)


async def test_a_lease_whose_answer_was_lost_is_given_back_where_nobody_asks_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the caller was told 504 and has gone; the entry was committed nevertheless."""
    monkeypatch.setattr(withdrawals, "RETRY_S", 0.01)
    cluster.log.way = asyncio.Event()
    asked = asyncio.create_task(cluster.post("/cache/get", {"key": "k", "wait": 0}, status=504))
    await eventually(lambda: token(cluster) == 1)
    cluster.log.broken = OutcomeUnknown("lost")
    cluster.log.way.set()
    assert (await asked)["reason"] == "outcome_unknown"

    cluster.log.broken = None

    await eventually(lambda: token(cluster) is None)
    assert "lease" in await cluster.post("/cache/get", {"key": "k", "wait": 0}, "node2")


async def test_a_question_that_is_decided_after_its_callers_were_told_gives_its_lease_back(cluster: Cluster) -> None:
    """Goal: "or later" of an unknown outcome: the entry is applied when nobody asks any more."""
    cluster.log.append(encode_command(Fill("k", "node1", 300_000, "node1:boot", "")))

    assert token(cluster) == 1
    await eventually(lambda: token(cluster) is None)


async def test_what_many_callers_leave_behind_goes_back_in_few_entries(cluster: Cluster) -> None:
    """Goal: a mass disconnect costs its leader entries by the thousand leases, and not by the lease."""
    cluster.log.way = asyncio.Event()
    keys = [f"k{number}" for number in range(300)]
    callers = [asyncio.create_task(lines(cluster).read(key, lease_ms=300_000, wait_s=30)) for key in keys]
    await eventually(lambda: cluster.log.index == len(keys))
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)

    cluster.log.way.set()

    await eventually(lambda: cluster.metric("cache_fill_leases") == 0)
    assert cluster.log.index <= len(keys) + 3


async def test_leases_that_a_snapshot_brings_and_nobody_has_go_back(cluster: Cluster) -> None:
    """Goal: the entries that told this node of its leases lie in what the snapshot skipped."""
    kept = await cluster.post("/cache/get", {"key": "kept", "lease_ttl": 300})
    replica = cluster.replica("node1")
    heard, replica.subscribers = replica.subscribers, []
    cluster.log.append(encode_command(Fill("lost", "node1", 300_000, "node1:boot", "")))
    cluster.log.append(encode_command(Fill("others", "node2", 300_000, "node2:before", "")))
    restored = ReplicatedMachine(CacheMachine)
    restored.restore(list(replica.machine.snapshot()))
    replica.machine, replica.subscribers = restored, heard

    for topic, callback in tuple(heard):
        if topic == RESTORED_TOPIC:
            callback(type("Meta", (), {"index": cluster.log.index}))

    await eventually(lambda: token(cluster, "lost") is None)
    assert (token(cluster, "kept"), token(cluster, "others")) == (kept["lease"], 3)


async def test_a_node_that_has_closed_does_not_go_on_trying(cluster: Cluster) -> None:
    answer = await lines(cluster).read("k", lease_ms=300_000, wait_s=0)
    cluster.log.broken = Stopping("stopping")
    cluster.replica("node1").close(cluster.log.broken)

    lines(cluster).take_back("k", answer["lease"])

    await eventually(lambda: not cluster.hosts["node1"].background)
    assert token(cluster) == 1


async def test_a_node_that_stops_answers_its_callers_at_once_and_gives_their_leases_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a question is under way and leadership changes hands just then; no lease is left behind."""
    monkeypatch.setattr(withdrawals, "RETRY_S", 0.01)
    cluster.log.way = asyncio.Event()
    bodies = [{"key": key, "wait": 300} for key in ("k", "l")]
    asked = [asyncio.create_task(cluster.post("/cache/get", body, status=503)) for body in bodies]
    await eventually(lambda: cluster.metric("cache_fill_leases") == 2)

    cluster.replica("node1").close(Stopping("stopping"))
    assert [(await each)["reason"] for each in asked] == ["stopping"] * 2
    cluster.log.broken = NoLeader("changing hands")
    cluster.log.way.set()
    await eventually(lambda: len(lines(cluster)._owed) == 2)
    cluster.log.broken = None

    await eventually(lambda: not cluster.hosts["node1"].background)
    assert (token(cluster), token(cluster, "l")) == (None, None)
