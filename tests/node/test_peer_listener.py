"""The peer listener: who is let in, who is heard, and whose answers count (raft/transport/identity.py)."""

import errno
from typing import Any
from unittest.mock import AsyncMock, Mock

import aiohttp
import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import TestClient, make_mocked_request
from structlog.testing import capture_logs

from common.logs import SparseLog
from raft.admission import EMPTY, OTHER_LIFE, AdmissionRequest
from raft.core.messages import AppendEntriesReply, InstallSnapshot, RequestVote
from raft.core.types import NOBODY, Role, SnapshotMeta
from raft.inquiries import Inquiries
from raft.life import ANY_LIFE, UNKNOWN_LIFE, given_life, restored_life
from raft.peer_messages import SnapshotChunk
from raft.transport import routes
from raft.transport.codec import encode, encode_chunk, encode_frame
from raft.transport.identity import LIVES_HEADER, does_answer_count, is_request_heard
from raft.transport.member_codec import decode_admission_reply, encode_admission_request
from raft.transport.peers import peer_url
from raft.transport.routes import PeerListener
from raft.transport.silence import SILENCE_MS
from tests.helpers import eventually
from tests.node.listening import CONFIGURATION, SECRET, StubNode, headers_of, listening, peers_of

OURS, THEIRS = restored_life(1), restored_life(1)


async def vote_status(client: TestClient, peer: str, incarnation: str, life: str = UNKNOWN_LIFE) -> int:
    message = RequestVote(peer, "a", 4, 1, 9, 3)
    headers = headers_of(peer, incarnation, life)
    response = await client.post("/raft/lock/request_vote", data=encode(message), headers=headers)
    return response.status


@pytest.mark.parametrize(
    ("peer", "incarnation", "status"), [("b", "b1", 200), ("b", "b2", 403), ("c", "c7", 200), ("d", "d1", 403)]
)
async def test_who_is_no_member_or_has_another_disk_is_refused(peer: str, incarnation: str, status: int) -> None:
    """While a leader is heard, nobody else has anything to say."""
    async with listening(StubNode(leader="c")) as client:
        assert await vote_status(client, peer, incarnation) == status


async def test_without_a_leader_a_stranger_is_heard() -> None:
    """A log that is behind does not know yet who has joined meanwhile (thesis 4.1)."""
    async with listening(StubNode(leader=NOBODY)) as client:
        assert await vote_status(client, "d", "d1") == 200


async def test_without_the_secret_nothing_is_answered() -> None:
    async with listening(StubNode()) as client:
        for path in ("request_vote", "members", "inquiry", "admission", "install_snapshot"):
            response = await client.post(f"/raft/lock/{path}", data=b"", headers={"Authorization": "Bearer no"})
            assert response.status == 401


@pytest.mark.parametrize(
    ("path", "incarnation", "status", "reason"),
    [
        ("/raft/lock/request_vote", "b1", 400, "bad_request"),
        ("/raft/lock/request_vote", "b2", 403, "forbidden"),
        ("/raft/queue/request_vote", "b1", 404, "no_such_route"),
        ("/health", "b1", 404, "no_such_route"),
        ("/raft/lock/members", "", 401, "unauthenticated"),
    ],
)
async def test_refusals_are_json_with_a_sentence(path: str, incarnation: str, status: int, reason: str) -> None:
    """Whoever mistakes this port for that of clients is told so as there."""
    headers = headers_of("b", incarnation) if incarnation else {}
    async with listening(StubNode()) as client:
        response = await client.post(path, data=b"", headers=headers)
        answer = await response.json()

    assert (response.status, answer["ok"], answer["reason"]) == (status, False, reason)
    assert answer["detail"]


async def test_the_peer_listener_unpacks_nothing() -> None:
    """Also without the secret, and on a path that there is not."""
    async with listening(StubNode()) as client:
        for path in ("/raft/lock/request_vote", "/nowhere"):
            response = await client.post(path, data=b"x", headers={"Content-Encoding": "gzip"})
            assert (response.status, (await response.json())["reason"]) == (415, "unsupported_media_type")


async def test_an_answer_says_whose_it_is() -> None:
    """So that the one who counts can tell a replaced disk."""
    async with listening(StubNode()) as client:
        data = encode(RequestVote("b", "a", 4, 1, 9, 3))
        response = await client.post("/raft/lock/request_vote", data=data, headers=headers_of("b", "b1"))

        assert response.headers["X-Mufakat-Incarnations"] == "lock=a1"


async def test_a_stranger_may_ask_for_admission() -> None:
    """With the secret; it is how one becomes a member."""
    node = StubNode(leader=NOBODY)
    node.core.log.last_index = 0
    async with listening(node) as client:
        data = encode_admission_request(AdmissionRequest("d", "d1", "d:1"))
        response = await client.post("/raft/lock/admission", data=data, headers=headers_of("d", "d1"))

        assert decode_admission_reply(await response.read()).verdict == EMPTY


@pytest.mark.parametrize(("role", "answer"), [(Role.LEADER, b"what?"), (Role.FOLLOWER, b"")])
async def test_a_question_to_the_service_is_answered_by_the_leader_alone(role: Role, answer: bytes) -> None:
    node = StubNode()
    node.core.state.role = role
    node.inquiries = Inquiries(node, None)
    node.inquiries.answer = lambda question: question + b"?"
    async with listening(node) as client:
        response = await client.post("/raft/lock/inquiry", data=b"what", headers=headers_of("b", "b1"))
        stranger = await client.post("/raft/lock/inquiry", data=b"what", headers=headers_of("d", "d1"))

        assert (response.status, await response.read()) == (200, answer)
        assert stranger.status == 403


async def test_a_node_that_is_not_admitted_answers_no_vote() -> None:
    node = StubNode(leader=NOBODY)
    node.admitted = False
    async with listening(node) as client:
        assert await vote_status(client, "b", "b1") == 503


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x93\xa1d\xa1x\x00"])
async def test_what_cannot_be_read_is_400(data: bytes) -> None:
    async with listening(StubNode()) as client:
        for path in ("request_vote", "members", "admission", "install_snapshot"):
            response = await client.post(f"/raft/lock/{path}", data=data, headers=headers_of("b", "b1"))
            assert response.status == 400


async def test_acknowledgements_on_a_stream_count_only_from_the_known_disk() -> None:
    """Also when no leader is heard: requests may be a stranger's, answers may not."""
    node = StubNode(leader=NOBODY)
    acknowledgement = AppendEntriesReply("b", "a", 3, 1, True, 9)
    question = RequestVote("b", "a", 4, 1, 9, 3)
    frame = encode_frame([("lock", acknowledgement), ("lock", question)])
    async with listening(node) as client:
        for incarnation, heard in (("b2", 1), ("b1", 3)):
            async with client.ws_connect("/raft/stream", headers=headers_of("b", incarnation)) as stream:
                await stream.send_bytes(frame)
                await eventually(lambda heard=heard: len(node.received) >= heard)

    assert node.received == [question, acknowledgement, question]


async def test_frames_that_cannot_be_read_are_logged_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer of another version sends as many as heartbeats; its neighbour's log must not fill up with them."""
    monkeypatch.setattr(routes, "sparse_log", SparseLog(routes.logger))
    node, headers = StubNode(leader=NOBODY), headers_of("b", "b1")
    with capture_logs() as lines:
        async with listening(node) as client, client.ws_connect("/raft/stream", headers=headers) as stream:
            for _ in range(50):
                await stream.send_bytes(b"\xc1")
            await stream.send_bytes(encode_frame([("lock", RequestVote("b", "a", 4, 1, 9, 3))]))
            await eventually(lambda: node.received)

    assert [line["peer"] for line in lines if line["event"] == "unreadable frame"] == ["b"]


async def test_a_stream_of_a_stranger_is_refused_while_a_leader_is_heard() -> None:
    async with listening(StubNode(leader="c")) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await client.ws_connect("/raft/stream", headers=headers_of("d", "d1"))

    assert refusal.value.status == 403


async def test_whose_data_is_of_another_life_is_never_heard() -> None:
    """Not even while no leader is heard, and whatever else is right about it."""
    node = StubNode(leader=NOBODY)
    node.life = OURS
    async with listening(node) as client:
        found = [await vote_status(client, "b", "b1", life) for life in (OURS, ANY_LIFE, THEIRS, UNKNOWN_LIFE)]

    assert found == [200, 200, 403, 403]


async def test_an_earlier_version_is_heard_until_the_group_is_a_restored_one() -> None:
    """It says nothing of lives, and all data of a restored life does."""
    node = StubNode(leader=NOBODY)
    headers = headers_of("b", "b1")
    del headers[LIVES_HEADER]
    data = encode(RequestVote("b", "a", 4, 1, 9, 3))
    async with listening(node) as client:
        found = []
        for node.life in (UNKNOWN_LIFE, given_life(), OURS):
            response = await client.post("/raft/lock/request_vote", data=data, headers=headers)
            found.append(response.status)

    assert found == [200, 200, 403]


async def test_a_stream_says_anew_of_which_life_its_sender_is() -> None:
    """A node learns its life while the stream stands; what it says from then on counts."""
    node = StubNode(leader=NOBODY)
    node.life = OURS
    questions = [RequestVote("b", "a", 4, sequence, 9, 3) for sequence in (1, 2)]
    headers = headers_of("b", "b1", ANY_LIFE)
    async with listening(node) as client, client.ws_connect("/raft/stream", headers=headers) as stream:
        for said, question in zip((THEIRS, OURS), questions, strict=True):
            await stream.send_str(f"lock={said}")
            await stream.send_bytes(encode_frame([("lock", question)]))
        await eventually(lambda: node.received)

    assert node.received == questions[1:]


async def test_a_stream_of_another_life_is_refused() -> None:
    node = StubNode(leader=NOBODY)
    node.life = OURS
    async with listening(node) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect("/raft/stream", headers=headers_of("b", "b1", THEIRS))


async def test_an_answer_says_of_which_life_it_is_at_that_moment() -> None:
    """So that nobody counts a disk of another life."""
    node = StubNode()
    async with listening(node) as client:
        said = []
        for node.life in (ANY_LIFE, OURS):
            data = encode(RequestVote("b", "a", 4, 1, 9, 3))
            response = await client.post("/raft/lock/request_vote", data=data, headers=headers_of("b", "b1", OURS))
            said.append(response.headers[LIVES_HEADER])

    assert said == [f"lock={ANY_LIFE}", f"lock={OURS}"]


def test_an_answer_of_another_life_does_not_count() -> None:
    node: Any = StubNode()
    node.life = OURS

    counts = [does_answer_count(node, "b", "b1", life) for life in (OURS, ANY_LIFE, THEIRS, UNKNOWN_LIFE)]

    assert counts == [True, True, False, False]


async def test_a_node_of_another_life_that_asks_for_admission_is_told_so() -> None:
    node = StubNode(leader=NOBODY)
    node.life = OURS
    async with listening(node) as client:
        data = encode_admission_request(AdmissionRequest("b", "b1", "b:1"))
        response = await client.post("/raft/lock/admission", data=data, headers=headers_of("b", "b1", THEIRS))
        reply = decode_admission_reply(await response.read())

    assert reply.verdict == OTHER_LIFE
    assert "stop b, move its folder of the group lock away and start it again" in reply.reason


async def test_a_stream_is_not_compressed() -> None:
    """A frame would be unpacked on the event loop, whatever it becomes; who offers that is not taken up on it."""
    async with (
        listening(StubNode()) as client,
        client.ws_connect("/raft/stream", headers=headers_of("b", "b1"), compress=15) as stream,
    ):
        assert stream.compress == 0


async def test_a_snapshot_meets_a_disk_that_fails() -> None:
    """The node ends, and that is told: the piece is refused as by a node that stops, and is no failure of its own."""
    node: Any = StubNode()
    node.snapshotter = Mock(receive=AsyncMock(side_effect=OSError(errno.EIO, "the disk")))
    message = InstallSnapshot("b", "a", 4, 1, SnapshotMeta(9, 3, 0, CONFIGURATION))
    chunk = SnapshotChunk(message, "1-1-1-00000000", 1, 0, b"", 0)
    async with listening(node) as client:
        response = await client.post(
            "/raft/lock/install_snapshot", data=encode_chunk(chunk), headers=headers_of("b", "b1")
        )
        refusal = await response.json()

    assert (response.status, refusal["reason"]) == (503, "not_ready")


async def test_a_peer_that_hangs_up_before_its_stream_stands_is_no_failure() -> None:
    """Its request had come, and aiohttp hands it on all the same."""
    asked = {hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "Upgrade", hdrs.SEC_WEBSOCKET_VERSION: "13"}
    headers = {**headers_of("b", "b1"), **asked, hdrs.SEC_WEBSOCKET_KEY: "MTIzNDU2Nzg5MDEyMzQ1Ng=="}
    request = make_mocked_request("GET", "/raft/stream", headers)
    request.protocol.transport = None
    node = StubNode()
    peers = peers_of(node)

    answer = await PeerListener(peers.nodes, peers, SECRET).stream(request)

    assert not isinstance(answer, web.WebSocketResponse)
    assert peers.known_by("lock", "b") is None


def test_what_counts_and_what_is_heard() -> None:
    node: Any = StubNode(leader="c")

    assert [does_answer_count(node, *who) for who in (("b", "b1"), ("b", ""), ("c", "x"))] == [True, False, True]
    assert [is_request_heard(node, *who) for who in (("b", "b2"), ("c", "x"), ("d", ""))] == [False, True, False]


@pytest.mark.parametrize(
    ("address", "url"), [("h:8000", "http://h:18000"), ("[::1]:8001", "http://[::1]:18001")]
)
def test_the_peer_port_follows_from_the_address(address: str, url: str) -> None:
    assert peer_url(address) == url


async def test_the_reading_end_of_a_stream_notices_silence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else answers count as possible for ever over a stream whose other end is gone."""
    watched = []
    monkeypatch.setattr(routes, "break_on_silence", lambda connection, silence_ms: watched.append(silence_ms))
    async with (
        listening(StubNode(leader="b")) as client,
        client.ws_connect("/raft/stream", headers=headers_of("b", "b1")),
    ):
        await eventually(lambda: watched)

    assert [SILENCE_MS] == watched
