"""`/cache/watch`: what a watcher is told, in which order, and what becomes of one that is too slow."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse

from common.metrics import Counter
from raft.errors import NoLeader, Stopping
from raft.slices import Pace
from services.cache import watching
from services.cache.node import changes
from services.cache.node.changes import FUTURE, HISTORY, LAST_NUMBER, SLOW, Change, Changes, Gap
from services.cache.watching import position_of, position_text
from services.http import events
from tests.helpers import WITHIN_SECONDS, eventually
from tests.services.cache.cluster import Cluster

#: Room of a socket whose client takes nothing.
SOCKET_BYTES = 4096


class Stream:
    """A client's side of one stream."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    async def block(self) -> dict[str, Any]:
        """The next event or comment, by field; data decoded."""
        fields: dict[str, Any] = {}
        while True:
            line = await asyncio.wait_for(self._response.content.readline(), WITHIN_SECONDS)
            if not line:
                return {"event": "closed"}
            text = line.decode().rstrip("\n")
            if not text:
                return fields
            name, _, value = text.partition(": ")
            fields[name] = json.loads(value) if name == "data" else value

    async def told(self, count: int) -> list[tuple[str, str, int]]:
        """So many changes as `(event, key, version)`."""
        blocks = [await self.block() for _ in range(count)]
        return [(each["event"], each["data"]["key"], each["data"]["version"]) for each in blocks]


@asynccontextmanager
async def watch(cluster: Cluster, query: str, node: str = "node1", **headers: str) -> AsyncIterator[Stream]:
    async with cluster.clients[node].get(f"/cache/watch?{query}", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        yield Stream(response)


@contextmanager
def unread(cluster: Cluster, path: str) -> Iterator[None]:
    """A request to node1 whose answer nobody takes. What the sockets hold is little: it is full after some events."""
    server = cluster.clients["node1"].server
    for site in server.runner.sites:
        for listening in site._server.sockets:
            # Connections inherit it.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        client.connect((server.host, server.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        yield


def hub(cluster: Cluster, node: str = "node1") -> Changes:
    return cluster.hosts[node].parts[Changes]


async def test_a_watcher_of_a_key_is_told_of_its_changes_and_no_others(cluster: Cluster) -> None:
    async with watch(cluster, "key=k", "node2") as stream:
        begin = await stream.block()
        await cluster.post("/cache/put", {"key": "other", "val": 1})
        await cluster.post("/cache/put", {"key": "k", "val": 1})
        await cluster.post("/cache/get", {"key": "k"}, "node3")
        await cluster.post("/cache/delete", {"key": "k"})
        blocks = [await stream.block() for _ in range(3)]

    assert begin["event"] == "ready"
    assert begin["data"] == {"position": f"0-{LAST_NUMBER}", "node": "node2"}
    assert begin["retry"] == "1000"
    assert [(each["id"], each["event"]) for each in blocks] == [("2-0", "write"), ("3-0", "fill"), ("4-0", "delete")]
    assert blocks[1]["data"] == {
        "key": "k",
        "version": 2,
        "previous_version": 2,
        "states": {"node1": "S", "node3": "S"},
        "previous_states": {"node1": "M"},
    }
    assert (blocks[2]["data"]["version"], blocks[2]["data"]["states"]) == (0, {})


async def test_a_watcher_of_a_prefix_is_told_of_every_cause(cluster: Cluster) -> None:
    async with watch(cluster, "prefix=u:") as stream:
        await stream.block()
        await cluster.post("/cache/put", {"key": "u:1", "val": 1, "tags": ["t"]})
        await cluster.post("/cache/put", {"key": "v:1", "val": 1, "tags": ["t"]})
        await cluster.post("/cache/put", {"key": "u:2", "val": 1, "ttl": 1})
        await cluster.post("/cache/invalidate", {"tag": "t"})
        cluster.log.advance(5000)

        assert await stream.told(4) == [
            ("write", "u:1", 1), ("write", "u:2", 3), ("invalidate", "u:1", 0), ("expire", "u:2", 0)
        ]  # fmt: skip


@pytest.mark.parametrize("query", ["key=k&since=1", "key=k&since=1-0", "prefix=&since=1"])
async def test_a_watcher_goes_on_behind_a_version(cluster: Cluster, query: str) -> None:
    """Goal: read a line, then watch from its version on: nothing is missed in between."""
    for number in range(3):
        await cluster.post("/cache/put", {"key": "k", "val": number})

    async with watch(cluster, query) as stream:
        await stream.block()
        await cluster.post("/cache/put", {"key": "k", "val": 9})

        assert await stream.told(3) == [("write", "k", 2), ("write", "k", 3), ("write", "k", 4)]


async def test_a_browser_goes_on_at_another_node_in_the_middle_of_an_entry(cluster: Cluster) -> None:
    """Goal: every node numbers the changes of an entry alike; the header is above what the address says."""
    await cluster.post("/cache/mput", {"items": [{"key": key, "val": 1} for key in "abc"]})
    async with watch(cluster, "prefix=&since=0") as stream:
        await stream.block()
        ids = [(await stream.block())["id"] for _ in range(2)]

    async with watch(cluster, "prefix=&since=0", "node2", **{"Last-Event-ID": ids[-1]}) as stream:
        await stream.block()
        assert await stream.told(1) == [("write", "c", 1)]
    assert ids == ["1-0", "1-1"]


async def test_what_the_client_saw_at_a_node_that_was_ahead_is_not_told_again(cluster: Cluster) -> None:
    cluster.replica("node1").behind = asyncio.Event()
    async with watch(cluster, "key=k&since=2") as stream:
        await stream.block()
        for number in range(2):
            await cluster.post("/cache/put", {"key": "k", "val": number})
        cluster.replica("node1").behind.set()
        await cluster.post("/cache/put", {"key": "k", "val": 2})

        assert await stream.told(1) == [("write", "k", 3)]


@pytest.mark.parametrize(
    ("query", "headers"),
    [("key=k", {"Last-Event-ID": "99999999-0"}), ("key=k&since=5000", {}), ("prefix=&since=2", {})],
)
async def test_a_position_that_no_node_has_reached_is_told_as_a_gap(
    cluster: Cluster, query: str, headers: dict[str, str]
) -> None:
    """Goal: after a wipe a browser comes with the last event of another history, and is not left in silence."""
    await cluster.post("/cache/put", {"key": "k", "val": 0})

    async with watch(cluster, query, **headers) as stream:
        await stream.block()
        gap = await stream.block()
        await cluster.post("/cache/put", {"key": "k", "val": 1})
        assert await stream.told(1) == [("write", "k", 2)]

    assert (gap["event"], gap["data"]["reason"]) == ("gap", FUTURE)
    assert gap["id"] == gap["data"]["position"] == f"1-{LAST_NUMBER}"
    assert cluster.metric("cache_watch_gaps_total") == 1


async def test_a_position_is_judged_once_a_leader_can_tell(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a watcher that connects during an election stays connected, and is told afterwards."""
    monkeypatch.setattr(watching, "RETRY_S", 0.01)
    replica = cluster.replica("node1")
    replica.unreadable = NoLeader("none")
    async with watch(cluster, "key=k&since=5000") as stream:
        await stream.block()
        await eventually(lambda: replica.read_rounds > 2)
        assert cluster.metric("cache_watch_gaps_total") == 0

        replica.unreadable = None

        assert (await stream.block())["data"]["reason"] == FUTURE


async def test_a_position_that_this_node_has_applied_asks_nobody(cluster: Cluster) -> None:
    await cluster.post("/cache/put", {"key": "k", "val": 0})

    async with watch(cluster, "key=k&since=1") as stream:
        await stream.block()

    assert cluster.replica("node1").read_rounds == 0


def test_a_position_from_before_a_restore_is_older_than_what_is_kept() -> None:
    """Goal: a restored group goes on at higher positions; whoever comes with one of before has missed something."""
    hub = Changes(FakeNode(applied_index=1_000_000), Counter())

    watcher = hub.watch(key="k", prefix="", since=(500, 0))

    (gap,) = watcher.take(10)
    assert (gap.reason, gap.position) == (HISTORY, (1_000_000, LAST_NUMBER))
    assert not hub.is_ahead(watcher)


async def test_who_asks_for_more_than_is_kept_is_told_of_the_gap(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "HISTORY_MAX", 2)
    for number in range(4):
        await cluster.post("/cache/put", {"key": "k", "val": number})

    async with watch(cluster, "key=k&since=1") as stream:
        await stream.block()
        gap = await stream.block()
        await cluster.post("/cache/put", {"key": "k", "val": 9})
        assert await stream.told(1) == [("write", "k", 5)]
    async with watch(cluster, "key=k&since=3") as stream:
        await stream.block()
        assert await stream.told(2) == [("write", "k", 4), ("write", "k", 5)]

    assert (gap["event"], gap["data"]["reason"]) == ("gap", HISTORY)
    assert gap["id"] == gap["data"]["position"] == f"4-{LAST_NUMBER}"
    assert cluster.metric("cache_watch_gaps_total") == 1


async def test_a_snapshot_makes_a_gap(cluster: Cluster) -> None:
    async with watch(cluster, "key=k") as stream:
        await stream.block()
        hub(cluster)._on_restored(type("Meta", (), {"index": 90}))
        gap = await stream.block()

        assert (gap["event"], gap["data"]) == ("gap", {"reason": "snapshot", "position": f"90-{LAST_NUMBER}"})
    async with watch(cluster, "key=k&since=7") as stream:
        await stream.block()
        assert (await stream.block())["event"] == "gap"


async def test_a_slow_watcher_loses_what_it_has_not_taken_and_apply_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: what waits is bounded, the loss is said, and what comes after it is told again."""
    monkeypatch.setattr(changes, "BUFFER_MAX", 3)
    watcher = hub(cluster).watch(key="k", prefix="", since=None)
    for number in range(5):
        await cluster.post("/cache/put", {"key": "k", "val": number})

    told = watcher.take(100)

    assert [type(each) for each in told] == [Gap, Change]
    assert (told[0].reason, told[0].position, told[1].position) == (SLOW, (4, 0), (5, 0))
    assert cluster.metric("cache_watch_gaps_total") == 1
    hub(cluster).leave(watcher)


async def test_a_client_that_takes_nothing_is_let_go(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: a socket that is full holds up its own stream and nothing else, and puts no traceback into the log."""
    monkeypatch.setattr(events, "STALL_SECONDS_MAX", 0.2)
    key = "k" * 250
    with unread(cluster, f"/cache/watch?key={key}"):
        await eventually(lambda: len(hub(cluster)) == 1)

        async def written() -> bool:
            for _ in range(50):
                await cluster.post("/cache/put", {"key": key, "val": 1}, "node2")
            return len(hub(cluster)) == 0

        await eventually(written)
        await eventually(lambda: not cluster.clients["node1"].server.runner.server.connections)

    assert [record.getMessage() for record in caplog.records if record.name == "aiohttp.server"] == []


async def test_a_silent_stream_has_heartbeats(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "HEARTBEAT_SECONDS", 0.02)
    async with watch(cluster, "key=k") as stream:
        await stream.block()

        assert await stream.block() == {"": "heartbeat"}


async def test_a_client_that_goes_is_forgotten(cluster: Cluster) -> None:
    async with watch(cluster, "key=k") as one, watch(cluster, "prefix=k") as other:
        await one.block()
        await other.block()
        assert cluster.metric("cache_watching") == 2

    await eventually(lambda: len(hub(cluster)) == 0)


async def test_a_node_that_stops_ends_its_streams(cluster: Cluster) -> None:
    async with watch(cluster, "key=k") as stream:
        await stream.block()
        await cluster.post("/cache/put", {"key": "k", "val": 1})
        cluster.replica("node1").close(Stopping("stopping"))

        assert await stream.told(1) == [("write", "k", 1)]
        assert await stream.block() == {"event": "end", "data": {"reason": "stopping"}}
        assert (await stream.block())["event"] == "closed"


async def test_a_stream_that_begins_at_a_node_that_stops_ends_at_once(cluster: Cluster) -> None:
    cluster.replica("node1").close(Stopping("stopping"))

    async with watch(cluster, "key=k") as stream:
        assert (await stream.block())["event"] == "ready"
        assert (await stream.block())["event"] == "end"


async def test_watchers_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "WATCHERS_MAX", 1)
    async with watch(cluster, "key=k") as stream:
        await stream.block()
        assert (await cluster.get("/cache/watch?key=k", status=429))["reason"] == "quota"


@pytest.mark.parametrize(
    "query", ["", "key=k&prefix=k", "key=", "key=k&since=x", "key=k&since=1-2-3", "key=k&since=-1"]
)
async def test_a_wish_that_cannot_be_is_refused(cluster: Cluster, query: str) -> None:
    assert (await cluster.get(f"/cache/watch?{query}", status=400))["reason"] == "bad_request"


async def test_there_is_nothing_to_watch_for_a_head(cluster: Cluster) -> None:
    """Goal: no stream that could never end."""
    async with cluster.clients["node1"].head("/cache/watch?key=k") as response:
        assert response.status == 405


def test_positions_are_read_as_they_are_written() -> None:
    assert position_of("7") == (7, LAST_NUMBER)
    assert position_of(position_text((7, 3))) == (7, 3)
    assert position_of(position_text((7, LAST_NUMBER))) == (7, LAST_NUMBER)
    assert position_of(None) is None


async def test_an_apply_costs_the_same_however_slow_the_watchers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: nothing that a watcher does not take is kept beyond its bound, nor what nobody was handed yet."""
    for bound in ("BUFFER_MAX", "HISTORY_MAX", "UNDELIVERED_MAX"):
        monkeypatch.setattr(changes, bound, 10)
    hub = Changes(FakeNode(), Counter())
    watcher = hub.watch(key="k", prefix="", since=None)

    for index in range(1, 1000):
        hub._on_transition(Quiet(index))
        assert len(hub._undelivered) <= 10
    await eventually(lambda: not hub._undelivered)

    assert isinstance(watcher.take(1)[0], Gap)
    assert len(watcher._waiting) <= 10
    assert len(hub._history) == 10


async def test_an_apply_costs_the_same_however_many_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 watchers of everything, and 1,000 lines that change: not one is looked at before the turn is over, and
    then some thousand changes are handed out before others run."""
    offers: list[int] = []
    offer = Changes._offer
    monkeypatch.setattr(Changes, "_offer", lambda *offered: (offers.append(1), offer(*offered)))
    monkeypatch.setattr(changes.Watcher, "wants", None)
    hub = Changes(FakeNode(), Counter())
    watchers = [hub.watch(key=None, prefix="", since=None) for _ in range(500)]

    for number in range(1_000):
        hub._on_transition(Quiet(1 + number // 500))
    in_the_turn = len(offers)
    slices = []
    while hub._undelivered:
        before = len(offers)
        await asyncio.sleep(0)
        slices.append(len(offers) - before)

    assert in_the_turn == 0
    assert max(slices) <= changes.DELIVERED_PER_SLICE_MAX
    assert [len(watcher.take(10_000)) for watcher in watchers] == [1_000] * 500


async def test_who_joins_before_the_history_was_handed_out_is_told_of_it_once() -> None:
    hub = Changes(FakeNode(), Counter())
    first = hub.watch(key="k", prefix="", since=None)
    for index in range(1, 4):
        hub._on_transition(Quiet(index))

    late = hub.watch(key="k", prefix="", since=(1, LAST_NUMBER))
    await eventually(lambda: not hub._undelivered)

    assert [change.position for change in late.take(10)] == [(2, 0), (3, 0)]
    assert len(first.take(10)) == 3


async def test_many_streams_word_so_many_events_before_others_run() -> None:
    """All that are woken at once would do their work before the loop looks at anything else."""
    pace = Pace(200)
    done = []

    async def work() -> None:
        await pace.wait_turn()
        pace.spend(150)
        done.append(1)

    tasks = [asyncio.create_task(work()) for _ in range(20)]
    slices = []
    while len(done) < len(tasks):
        before = len(done)
        await asyncio.sleep(0)
        slices.append(len(done) - before)

    assert max(slices) <= 2


class FakeNode:
    closed = None

    def __init__(self, applied_index: int = 0) -> None:
        self.applied_index = applied_index

    def subscribe(self, topic: str, callback: Any) -> Any:
        return lambda: None

    def status(self) -> Any:
        return type("Status", (), {"applied_index": self.applied_index})


class Quiet:
    """As much of a transition as keeping it needs."""

    key = "k"

    def __init__(self, index: int) -> None:
        self.index = index
