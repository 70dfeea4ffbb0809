"""common/listener.py: what a client may hold on to, and what it is told, whoever in the node refuses it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from common.listener import counted_address
from common.web import json_response
from tests.helpers import eventually, serving

HEAD = b"Host: localhost\r\n"


class Served:
    """An application with one route of each kind, and what became of its requests."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.bodies: list[bytes] = []
        self.errors: list[BaseException] = []
        self.waiting = 0
        self.app = web.Application()
        self.app.router.add_post("/read", self.read)
        self.app.router.add_get("/livez", self.livez)
        self.app.router.add_get("/wait", self.wait)
        self.app.router.add_get("/large", self.large)
        self.app.router.add_get("/fault", self.fault)

    async def read(self, request: web.Request) -> web.Response:
        try:
            self.bodies.append(await request.read())
        except Exception as error:
            self.errors.append(error)
            raise
        return json_response({"ok": True})

    async def livez(self, request: web.Request) -> web.Response:
        return json_response({"ok": True})

    async def wait(self, request: web.Request) -> web.Response:
        self.waiting += 1
        await self.go_on.wait()
        return json_response({"ok": True})

    async def large(self, request: web.Request) -> web.Response:
        return web.Response(body=bytes(64 << 20))

    async def fault(self, request: web.Request) -> web.Response:
        raise ZeroDivisionError


class Raw:
    """A client that sends bytes as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *lines: bytes, body: bytes = b"") -> None:
        self.writer.write(b"\r\n".join((*lines, b"", b"")) + body)

    async def answer(self) -> tuple[str, dict[str, str], Any]:
        """First line, headers and decoded body of the next answer."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        assert headers["content-type"] == "application/json; charset=utf-8"
        return first, headers, json.loads(body)

    async def ended(self) -> bytes:
        """What still comes until the other side closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20)
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def raw(client: TestClient) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def open_connections(client: TestClient) -> int:
    return client.server.runner.server.connection_count


# Bodies that are encoded


@pytest.mark.parametrize("line", [b"POST /read HTTP/1.1", b"POST /nowhere HTTP/1.1", b"GET /livez HTTP/1.1"])
@pytest.mark.parametrize("encoding", [b"deflate", b"gzip", b"GZip", b"br", b"identity, gzip", b"nonsense", b"\xff"])
async def test_an_encoded_body_is_refused_before_it_comes(line: bytes, encoding: bytes) -> None:
    """Goal: 204 kB become 200 MiB on the event loop, and the leader is deposed. The answer is there while the body is
    not: nothing waits for it, nothing unpacks it."""
    served, refused = Served(), []
    async with serving(served.app, refused=refused) as client, raw(client) as sender:
        sender.send(line, HEAD + b"Content-Length: 204000", b"Content-Encoding: " + encoding)

        first, headers, answer = await sender.answer()

    assert first == "HTTP/1.1 415 Unsupported Media Type"
    assert (answer["ok"], answer["reason"]) == (False, "unsupported_media_type")
    assert "Content-Encoding" in answer["detail"]
    assert headers["accept-encoding"] == "identity"
    assert (served.bodies, refused) == ([], ["content_encoding"])


@pytest.mark.parametrize("encoding", ["identity", "", "Identity"])
async def test_a_body_that_is_encoded_in_no_way_is_read(encoding: str) -> None:
    served = Served()
    async with serving(served.app) as client:
        response = await client.post("/read", data=b"{}", headers={"Content-Encoding": encoding})

    assert (response.status, served.bodies) == (200, [b"{}"])


# Refusals of aiohttp


MALFORMED = {
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", "`Host` is missing"),
    "two hosts": (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "check its headers"),
    "a long header": (b"GET /livez HTTP/1.1\r\n" + HEAD + b"A: " + b"a" * 9_000 + b"\r\n\r\n", "over 8190 bytes"),
    "a long line": (b"GET /livez?" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", "over 8190 bytes"),
    "many headers": (b"GET /livez HTTP/1.1\r\n" + HEAD + b"A: a\r\n" * 200 + b"\r\n", "too many headers"),
    "both lengths": (
        b"POST /read HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "exclude each other",
    ),
    "a bad length": (b"POST /read HTTP/1.1\r\n" + HEAD + b"Content-Length: -3\r\n\r\n", "check its headers"),
    "a bad chunk": (
        b"POST /read HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        "not chunked as HTTP asks",
    ),
    "TLS": (bytes.fromhex("16030100a5010000a10303") + bytes(200), "not HTTPS"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1, not HTTP/2"),
    "an unknown method": (b"BREW /livez HTTP/1.1\r\n" + HEAD + b"\r\n", "not a method"),
    "no HTTP": (b"\x00\x01\x02\x03\r\n\r\n", "not a method"),
    "a bad version": (b"GET /livez HTTP/7.7\r\n" + HEAD + b"\r\n", "The first line is not one of HTTP"),
    "a bad header": (b"GET /livez HTTP/1.1\r\n" + HEAD + b"Secret: a\x00b\r\n\r\n", "check its headers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_is_not_http_is_told_so_in_json(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: one form for all refusals, and one line in the log without what the client sent; then the end."""
    sent, told = MALFORMED[kind]
    refused: list[str] = []
    async with serving(Served().app, refused=refused) as client, raw(client) as sender:
        sender.writer.write(sent)

        first, headers, answer = await sender.answer()
        rest = await sender.ended()

    assert (first, headers["connection"]) == ("HTTP/1.1 400 Bad Request", "close")
    assert (answer["ok"], answer["reason"], rest) == (False, "bad_request", b"")
    assert told in answer["detail"]
    assert refused == ["malformed"]
    lines = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert len(lines) <= 1
    assert not any(record.exc_info for record in lines)


async def test_the_log_is_not_filled_by_what_is_not_http(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a scanner costs a line now and then, and no traceback."""
    refused: list[str] = []
    async with serving(Served().app, refused=refused) as client:
        for _ in range(50):
            async with raw(client) as sender:
                sender.writer.write(MALFORMED["no host"][0])
                await sender.ended()

    assert len(refused) == 50
    assert len([record for record in caplog.records if record.levelno >= logging.INFO]) <= 1


@pytest.mark.parametrize("parts", [(b"zz\r\nabc\r\n",), (b"3\r\nab", b"cdefg\r\n0\r\n\r\n")])
async def test_a_chunk_that_goes_wrong_later_is_answered(parts: tuple[bytes, ...]) -> None:
    """Goal: the body's reader is told; else it waits for a body that cannot come, and the client for its answer."""
    served = Served()
    async with serving(served.app, body_timeout_s=0.4) as client, raw(client) as sender:
        sender.send(b"POST /read HTTP/1.1", HEAD + b"Transfer-Encoding: chunked")
        for part in parts:
            await asyncio.sleep(0.02)
            sender.writer.write(part)

        first, headers, answer = await sender.answer()
        rest = await sender.ended()

    assert (first, headers["connection"], rest) == ("HTTP/1.1 400 Bad Request", "close", b"")
    assert "not chunked" in answer["detail"]
    assert len(served.errors) == 1


async def test_an_expectation_that_is_not_known_is_417() -> None:
    async with serving(Served().app) as client, raw(client) as sender:
        sender.send(b"POST /read HTTP/1.1", HEAD + b"Content-Length: 3", b"Expect: foo")

        first, headers, answer = await sender.answer()

    assert (first, headers["connection"]) == ("HTTP/1.1 417 Expectation Failed", "close")
    assert (answer["reason"], "`Expect: foo`" in answer["detail"]) == ("bad_request", True)


async def test_a_fault_outside_of_the_middleware_is_json_as_well() -> None:
    async with serving(Served().app) as client:
        response = await client.get("/fault")

        assert (response.status, (await response.json())["reason"]) == (500, "internal")


# Slow and silent clients


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: loc"])
async def test_who_sends_no_request_is_closed(sent: bytes) -> None:
    """Goal: after 60 s, 400 of 400 silent clients were still there."""
    async with serving(Served().app, header_timeout_s=0.2) as client, raw(client) as sender:
        sender.writer.write(sent)

        assert await sender.ended() == b""
        await eventually(lambda: open_connections(client) == 0)


async def test_headers_that_trickle_do_not_put_the_end_off() -> None:
    async with serving(Served().app, header_timeout_s=0.3) as client, raw(client) as sender:
        sender.writer.write(b"GET /livez HTTP/1.1\r\n")

        async def trickle() -> None:
            while not sender.reader.at_eof():
                sender.writer.write(b"A: a\r\n")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        assert await sender.ended() == b""
        trickling.cancel()


async def test_who_asks_no_more_is_closed() -> None:
    """Goal: the pause between two requests has a bound of its own."""
    async with serving(Served().app, header_timeout_s=20.0, idle_timeout_s=0.2) as client, raw(client) as sender:
        sender.send(b"GET /livez HTTP/1.1", HEAD)
        assert (await sender.answer())[0] == "HTTP/1.1 200 OK"

        assert await sender.ended() == b""


async def test_who_waits_for_an_answer_is_not_closed() -> None:
    """Goal: `wait` may be an hour, and event streams have no end."""
    served = Served()
    bounds = {"header_timeout_s": 0.1, "idle_timeout_s": 0.1, "body_timeout_s": 0.1}
    async with serving(served.app, **bounds) as client, raw(client) as sender:
        sender.send(b"GET /wait HTTP/1.1", HEAD)
        await eventually(lambda: served.waiting)
        await asyncio.sleep(1.0)
        served.go_on.set()

        assert (await sender.answer())[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("trickle", [b"", b"a"])
async def test_a_body_that_does_not_get_on_is_408(trickle: bytes) -> None:
    """Goal: not done, said in JSON, and the connection is free again."""
    served, refused = Served(), []
    bounds = {"body_timeout_s": 0.4, "bytes_per_second_min": 10_000}
    async with serving(served.app, refused=refused, **bounds) as client, raw(client) as sender:
        sender.send(b"POST /read HTTP/1.1", HEAD + b"Content-Length: 100000", body=b"a" * 100)
        answering = asyncio.create_task(sender.answer())
        while not answering.done():
            sender.writer.write(trickle)
            await asyncio.sleep(0.05)

        first, headers, answer = answering.result()
        await sender.ended()

    assert (first, headers["connection"]) == ("HTTP/1.1 408 Request Timeout", "close")
    assert (answer["ok"], answer["reason"]) == (False, "too_slow")
    assert (served.bodies, refused) == ([], ["too_slow"])


async def test_an_end_does_not_wait_for_a_body() -> None:
    """Goal: who has sent half a request is told at once; nobody reads the rest."""
    served = Served()
    async with serving(served.app) as client, raw(client) as sender:
        sender.send(b"POST /read HTTP/1.1", HEAD + b"Content-Length: 1000", body=b"a" * 100)
        await eventually(lambda: open_connections(client) == 1)
        await asyncio.sleep(0.05)

        await asyncio.wait_for(client.server.runner.cleanup(), 5)
        first, headers, answer = await sender.answer()
        await sender.ended()

    assert (first, headers["connection"]) == ("HTTP/1.1 503 Service Unavailable", "close")
    assert (answer["ok"], answer["reason"]) == (False, "stopping")
    assert served.bodies == []


async def test_a_body_on_a_slow_line_arrives() -> None:
    """Goal: what bounds is the rate, not the whole: five times the timeout, and it is taken."""
    served = Served()
    bounds = {"body_timeout_s": 0.4, "bytes_per_second_min": 1_000}
    async with serving(served.app, **bounds) as client, raw(client) as sender:
        sender.send(b"POST /read HTTP/1.1", HEAD + b"Content-Length: 40000")
        for _ in range(40):
            sender.writer.write(b"a" * 1_000)
            await asyncio.sleep(0.05)

        assert (await sender.answer())[0] == "HTTP/1.1 200 OK"

    assert served.bodies == [b"a" * 40_000]


async def test_who_does_not_take_its_answer_is_cut_off() -> None:
    """Goal: an answer of 16 MiB stays in memory for as long as nobody takes it."""
    refused: list[str] = []
    async with serving(Served().app, refused=refused, body_timeout_s=0.4) as client, raw(client) as sender:
        sender.send(b"GET /large HTTP/1.1", HEAD)
        # Take the head, and no more than the buffers on the way do.
        await sender.reader.readuntil(b"\r\n\r\n")
        sender.writer.transport.pause_reading()

        await eventually(lambda: open_connections(client) == 0)

    assert refused == ["too_slow"]


async def test_who_takes_one_answer_after_the_other_is_not_cut_off() -> None:
    """Goal: each is under way whenever somebody looks, but never the same one."""
    refused: list[str] = []
    async with serving(Served().app, refused=refused, body_timeout_s=0.2, bytes_per_second_min=100) as client:
        for _ in range(8):
            response = await client.get("/large")
            taken = 0
            while piece := await response.content.read(4 << 20):
                taken += len(piece)
                await asyncio.sleep(0.004)
            assert taken == 64 << 20

    assert refused == []


# As many as there may be


PATHS = frozenset({"/livez"})


@pytest.mark.parametrize(
    "bounds",
    [{"connections_max": 3}, {"connections_max": 100, "connections_per_address_max": 3}],
    ids=["in all", "from one address"],
)
async def test_what_is_too_much_may_only_ask_how_it_goes(bounds: dict[str, int]) -> None:
    """Goal: clients cannot use up what a health check needs, nor what the node does."""
    refused: list[str] = []
    limits = {**bounds, "spare_connections": 1, "spare_paths": PATHS}
    async with serving(Served().app, refused=refused, **limits) as client:
        async with raw(client) as one, raw(client), raw(client):
            await eventually(lambda: open_connections(client) == 3)
            async with raw(client) as late:
                late.send(b"POST /read HTTP/1.1", HEAD + b"Content-Length: 0")
                first, headers, answer = await late.answer()
                rest = await late.ended()
            async with raw(client) as prober:
                prober.send(b"GET /livez HTTP/1.1", HEAD)
                probed = await prober.answer()
                assert await prober.ended() == b""
            one.send(b"GET /livez HTTP/1.1", HEAD)
            served = await one.answer()
        await eventually(lambda: open_connections(client) == 0)
        after = await client.post("/read")

    assert (first, headers["connection"], rest) == ("HTTP/1.1 429 Too Many Requests", "close", b"")
    assert (answer["ok"], answer["reason"], headers["retry-after"]) == (False, "overloaded", "1")
    assert (probed[0], served[0]) == ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK")
    assert after.status == 200
    assert refused == ["too_many_connections"] * 2


async def test_a_health_check_takes_the_place_of_who_says_nothing() -> None:
    """Goal: silent clients cannot hold the spare connections either, and there are never more than these."""
    limits = {"connections_max": 1, "spare_connections": 2, "spare_paths": PATHS}
    async with serving(Served().app, **limits) as client:
        silent = [await asyncio.open_connection(client.host, client.port) for _ in range(40)]
        async with raw(client) as prober:
            prober.send(b"GET /livez HTTP/1.1", HEAD)

            assert (await prober.answer())[0] == "HTTP/1.1 200 OK"
            await eventually(lambda: open_connections(client) <= 3)
        for _, writer in silent:
            writer.close()


async def test_without_spare_connections_what_is_too_much_is_closed() -> None:
    async with serving(Served().app, connections_max=1) as client, raw(client) as one, raw(client) as two:
        assert await two.ended() == b""
        one.send(b"GET /livez HTTP/1.1", HEAD)
        assert (await one.answer())[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("peername", "counted"),
    [
        (("10.0.0.7", 5), "10.0.0.7"),
        (("::ffff:10.0.0.7", 5, 0, 0), "10.0.0.7"),
        (("2001:db8:0:7:1:2:3:4", 5, 0, 0), "2001:db8:0:7::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (("::1", 5, 0, 0), "::/64"),
        (None, ""),
    ],
)
def test_whose_connections_are_counted_together(peername: Any, counted: str) -> None:
    """Goal: who has an address of IPv6 has 2^64 of them."""
    assert counted_address(peername) == counted
