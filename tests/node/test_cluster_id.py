"""Two clusters with the same names and secret never mix: who says another id is not heard (raft/cluster_id.py)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from structlog.testing import capture_logs

from raft.admission import OTHER_CLUSTER, AdmissionRequest
from raft.cluster_id import ClusterId
from raft.core.messages import AppendEntries, RequestVote
from raft.core.types import NOBODY
from raft.membership import ADD, MemberChange, MemberChangeReply
from raft.transport import admission_client
from raft.transport.admission_client import AdmissionClient
from raft.transport.client import PeerLink
from raft.transport.codec import encode, encode_frame
from raft.transport.identity import CLUSTER_HEADER, Identity
from tests.helpers import eventually
from tests.node.listening import SECRET, StubNode, headers_of, listening

REQUEST = AdmissionRequest("b", "b1", "b:1")


async def vote(client: TestClient, *, cluster: str, group: str = "lock", peer: str = "b") -> aiohttp.ClientResponse:
    message = RequestVote(peer, "a", 4, 1, 9, 3)
    headers = headers_of(peer, "b1", cluster=cluster)
    return await client.post(f"/raft/{group}/request_vote", data=encode(message), headers=headers)


def heartbeat(sequence: int = 1) -> AppendEntries:
    return AppendEntries("b", "a", 3, sequence, 9, 3, 9)


class Receiver:
    def __init__(self) -> None:
        self.received: list[Any] = []

    def receive(self, message: Any) -> None:
        self.received.append(message)

    def peer_lost(self, peer: str) -> None: ...


@asynccontextmanager
async def link_to(client: TestClient, receiver: Receiver, *, cluster: ClusterId) -> AsyncIterator[PeerLink]:
    """b's link to the listener."""
    link = PeerLink(
        peer="a",
        url=f"http://127.0.0.1:{client.port}",
        headers=headers_of("b", "b1"),
        receivers={"lock": receiver},
        observe_rpc=lambda *_: None,
        is_trusted=lambda *_: True,
        cluster=cluster,
    )
    link.start(lambda error: None)
    try:
        yield link
    finally:
        await link.close()


# Who is heard


@pytest.mark.parametrize(
    ("ours", "theirs", "status"),
    [("c-1", "c-1", 200), ("c-1", "", 200), ("", "c-1", 200), ("", "", 200), ("c-1", "c-2", 403), ("c-1", "é", 403)],
)
async def test_a_peer_of_another_cluster_is_refused(ours: str, theirs: str, status: int) -> None:
    """Who says none, as versions without ids do, is judged by everything else."""
    async with listening(StubNode(leader=NOBODY), cluster=ClusterId(ours)) as client:
        assert (await vote(client, cluster=theirs)).status == status


async def test_the_refusal_says_both_ids_and_the_log_does_so_once() -> None:
    async with listening(StubNode(leader=NOBODY), cluster=ClusterId("c-1")) as client:
        with capture_logs() as logged:
            answers = [await vote(client, cluster="c-2") for _ in range(3)]
        detail = (await answers[0].json())["detail"]

    assert "this node is of the cluster c-1, and 'b' is of 'c-2'" in detail
    assert answers[0].headers[CLUSTER_HEADER] == "c-1"
    lines = [(line["peer"], line["its"], line["ours"]) for line in logged if "it is not heard" in line["event"]]
    assert lines == [("b", "c-2", "c-1")]


async def test_nothing_is_heard_of_another_cluster_on_any_route() -> None:
    """Admission, members and snapshots as little as votes."""
    async with listening(StubNode(leader=NOBODY), cluster=ClusterId("c-1")) as client:
        for path in ("append_entries", "members", "inquiry", "admission", "install_snapshot"):
            response = await client.post(f"/raft/lock/{path}", data=b"", headers=headers_of("b", "b1", cluster="c-2"))
            assert response.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect("/raft/stream", headers=headers_of("b", "b1", cluster="c-2"))


async def test_without_the_secret_the_cluster_is_not_told() -> None:
    async with listening(StubNode(), cluster=ClusterId("c-1")) as client:
        response = await client.post("/raft/lock/members", data=b"", headers={"Authorization": "Bearer no"})

    assert (response.status, CLUSTER_HEADER in response.headers) == (401, False)


async def test_an_answer_says_the_cluster_that_is_known_by_then() -> None:
    cluster = ClusterId()
    async with listening(StubNode(leader=NOBODY), cluster=cluster) as client:
        before = await vote(client, cluster="c-1")
        cluster.maybe_learn("c-1")
        after = await vote(client, cluster="c-1")

    assert CLUSTER_HEADER not in before.headers
    assert after.headers[CLUSTER_HEADER] == "c-1"


@pytest.mark.parametrize("who", ["the listener", "the peer"])
async def test_a_stream_ends_once_both_ids_are_known_and_differ(who: str) -> None:
    """One of the two may learn its id while the stream stands."""
    node, ours = StubNode(leader=NOBODY), ClusterId("c-1" if who == "the peer" else "")
    said = "" if who == "the peer" else "c-2"
    async with (
        listening(node, cluster=ours) as client,
        client.ws_connect("/raft/stream", headers=headers_of("b", "b1", cluster=said)) as stream,
    ):
        await stream.send_bytes(encode_frame([("lock", heartbeat(1))]))
        await eventually(lambda: len(node.received) == 1)
        if who == "the peer":
            await stream.send_str("lock=,cluster=c-2")
        else:
            ours.maybe_learn("c-1")
        await stream.send_bytes(encode_frame([("lock", heartbeat(2))]))

        assert (await stream.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert [message.sequence for message in node.received] == [1]


# Whose answers count


async def test_an_answer_from_another_cluster_does_not_count() -> None:
    """Not even where its sender did not notice that it was asked by a stranger."""

    async def done(change: MemberChange) -> MemberChangeReply:
        return MemberChangeReply("done")

    receiver, node = Receiver(), StubNode(leader=NOBODY)
    node.membership = SimpleNamespace(change_here=done)
    async with (
        listening(node, cluster=ClusterId("c-1")) as client,
        link_to(client, receiver, cluster=ClusterId("c-2")) as link,
    ):
        link._said_now = dict
        with capture_logs() as logged:
            link.send("lock", RequestVote("b", "a", 4, 1, 9, 3))
            with pytest.raises(ConnectionError, match="another cluster"):
                await link.change_members("lock", MemberChange(ADD, "d", "d:1"))
            await eventually(lambda: not link._posts)

    assert receiver.received == []
    assert ("a", "c-1", "c-2") in [(line["peer"], line["its"], line["ours"]) for line in logged if "its" in line]


async def test_a_link_says_its_cluster_on_the_stream_as_soon_as_it_knows_it() -> None:
    node, theirs = StubNode(leader=NOBODY), ClusterId()
    async with (
        listening(node, cluster=ClusterId("c-1")) as client,
        link_to(client, Receiver(), cluster=theirs) as link,
    ):
        await eventually(lambda: link.connected)
        link.send("lock", heartbeat(1))
        await eventually(lambda: node.received)

        theirs.maybe_learn("c-2")
        with capture_logs() as logged:
            link.send("lock", heartbeat(2))
            await eventually(lambda: any("answers do not count" in line["event"] for line in logged))

    assert [message.sequence for message in node.received] == [1]
    assert any("it is not heard" in line["event"] for line in logged)


async def test_who_asks_another_cluster_for_admission_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `/readyz` then says which address is wrong, and not that nobody answers."""
    async with listening(StubNode(leader=NOBODY), cluster=ClusterId("c-1")) as client:
        monkeypatch.setattr(admission_client, "peer_url", lambda address: f"http://127.0.0.1:{client.port}")
        verdicts = []
        for ours in ("c-1", "", "c-2"):
            asker = AdmissionClient(Identity("b", "b:1", SECRET, {"lock": "b1"}, cluster=ClusterId(ours)))
            reply = await asker.ask("lock", "h:1", REQUEST)
            await asker.close()
            verdicts.append(reply.verdict if reply else None)

    assert verdicts[2] == OTHER_CLUSTER
    assert OTHER_CLUSTER not in verdicts[:2]
    assert "the node at h:1 is of the cluster c-1 and this one of c-2" in reply.reason


# Learning


async def test_a_node_that_knows_no_cluster_learns_it_from_its_leader_alone() -> None:
    """Whoever else has the secret may be of any."""
    node, cluster = StubNode(leader="c"), ClusterId()
    async with listening(node, cluster=cluster) as client:
        async def send(peer: str, said: str) -> None:
            headers = headers_of(peer, "b1", cluster=said)
            async with client.ws_connect("/raft/stream", headers=headers) as stream:
                before = len(node.received)
                message = AppendEntries(peer, "a", 3, 1, 9, 3, 9)
                await stream.send_bytes(encode_frame([("lock", message)]))
                await eventually(lambda: len(node.received) > before)

        await send("b", "c-2")
        assert cluster.id == ""
        node.admitted = False
        await send("c", "c-2")
        assert cluster.id == ""
        node.admitted = True
        await send("c", "c-1")

    assert cluster.id == "c-1"


async def test_what_a_leader_says_on_a_post_is_learned_too() -> None:
    """Heartbeats go that way while the stream is down."""
    node, cluster = StubNode(leader="b"), ClusterId()
    async with listening(node, cluster=cluster) as client:
        await vote(client, cluster="c-1")

    assert cluster.id == "c-1"


async def test_of_two_groups_that_learn_different_ids_the_first_holds() -> None:
    """A node is of one cluster; what its other group followed is not heard any more."""
    lock, queue = StubNode(leader="b"), StubNode(leader="c", group="queue")
    cluster = ClusterId()
    async with listening(lock, queue, cluster=cluster) as client:
        statuses = [
            (await vote(client, cluster="c-1")).status,
            (await vote(client, cluster="c-2", group="queue", peer="c")).status,
        ]

    assert (cluster.id, statuses) == ("c-1", [200, 403])


@pytest.mark.parametrize("said", ["", "a b", "x" * 61, "a,lock=b"])
def test_what_is_no_id_is_not_learned(said: str) -> None:
    cluster = ClusterId()

    assert not cluster.maybe_learn(said)
    assert cluster.id == ""


async def test_a_learned_id_is_kept_as_soon_as_the_disk_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full delays it, and changes nothing else."""
    monkeypatch.setattr("raft.cluster_id.KEEP_SECONDS", 0.01)
    kept: list[str] = []

    def keep(id: str) -> None:
        kept.append(id)
        if len(kept) < 3:
            raise OSError("no room")

    cluster = ClusterId(keep=keep)
    keeping = asyncio.create_task(cluster.keep_learned())
    cluster.maybe_learn("c-1")
    cluster.maybe_learn("c-2")

    await asyncio.wait_for(keeping, 5)

    assert kept == ["c-1"] * 3


async def test_an_id_that_is_kept_is_not_written_again() -> None:
    kept: list[str] = []

    assert await ClusterId("c-1", is_kept=True, keep=kept.append).maybe_keep()
    assert await ClusterId(keep=kept.append).maybe_keep()

    assert kept == []


def test_only_two_known_ids_can_differ() -> None:
    """Empty says nothing."""
    pairs = (("", ""), ("", "c"), ("c", ""), ("c", "c"), ("c", "d"))

    found = [ClusterId(ours).is_other(said) for ours, said in pairs]

    assert found == [False, False, False, False, True]
