"""A stream whose packets vanish without a word is broken, at both ends and in time."""

import asyncio
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest
from aiohttp import WSMsgType, web

from raft.core.messages import AppendEntries
from raft.transport import silence
from raft.transport.client import PeerLink
from tests.helpers import eventually


class Group:
    """What a link tells a group."""

    def __init__(self) -> None:
        self.lost = 0

    def receive(self, message: object) -> None:
        pass

    def peer_lost(self, peer: str) -> None:
        self.lost += 1


class Peer:
    """A listener that counts the frames of streams and the POSTs that reach it."""

    def __init__(self) -> None:
        self.frames = self.posts = self.port = 0
        self.request_sockets: list[socket.socket] = []

    async def __aenter__(self) -> "Peer":
        app = web.Application()
        app.router.add_get("/raft/stream", self._stream)
        app.router.add_post("/raft/g/{operation}", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        async for frame in stream:
            self.frames += frame.type is WSMsgType.BINARY
        return stream

    async def _post(self, request: web.Request) -> web.Response:
        self.posts += 1
        raise web.HTTPServiceUnavailable


class SilentProxy:
    """Passes bytes on, until it is told to keep them; connections stay open and are accepted all the same."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0

    async def __aenter__(self) -> "SilentProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer), return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._open.wait()
                writer.write(data)
        finally:
            writer.close()


def link_to(port: int, group: Group) -> PeerLink:
    return PeerLink(
        peer="b",
        url=f"http://127.0.0.1:{port}",
        headers={},
        receivers={"g": group},
        observe_rpc=lambda *_: None,
        is_trusted=lambda *_: True,
    )


async def beat(link: PeerLink) -> None:
    """Heartbeats, as a leader sends them."""
    number = 0
    while True:
        number += 1
        link.send("g", AppendEntries("a", "b", 1, number, 0, 0, 0))
        await asyncio.sleep(0.02)


async def test_a_stream_whose_pings_are_not_answered_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that works on every system: nothing comes back, although the connection stands."""
    monkeypatch.setattr(silence, "PING_SECONDS", 0.2)
    group = Group()
    async with Peer() as peer, SilentProxy(peer.port) as proxy:
        link = link_to(proxy.port, group)
        link.start(lambda error: None)
        beating = asyncio.create_task(beat(link))
        await eventually(lambda: peer.frames)
        assert not group.lost

        proxy.cut()
        await eventually(lambda: group.lost and not link.connected)
        proxy.heal()

        frames = peer.frames
        await eventually(lambda: link.connected and peer.frames > frames)
        assert peer.posts
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await link.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no such option")
async def test_the_kernel_breaks_what_is_silent_for_as_long_as_the_settings_allow() -> None:
    with socket.socket() as connection:
        silence.break_on_silence(connection, 1_500)

        assert 1_500 == connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert 2 == connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


#: Runs in a network of its own, whose only interface it takes down and up again.
BLACK_HOLE = """
    import asyncio, fcntl, socket, struct, time
    from tests.node.test_silence import Group, Peer, beat, link_to

    def switch(on):
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41 if on else 0))  # SIOCSIFFLAGS

    async def main():
        switch(True)
        group = Group()
        async with Peer() as peer:
            link = link_to(peer.port, group)
            link.start(lambda error: None)
            beating = asyncio.create_task(beat(link))
            while not peer.frames:
                await asyncio.sleep(0.01)
            switch(False)
            began = time.monotonic()
            while link.connected and time.monotonic() - began < 6:
                await asyncio.sleep(0.01)
            noticed = not link.connected and group.lost
            await asyncio.sleep(max(0, began + 6 - time.monotonic()))
            before, healed = peer.posts + peer.frames, time.monotonic()
            switch(True)
            while peer.posts + peer.frames == before and time.monotonic() - healed < 6:
                await asyncio.sleep(0.01)
            reached = peer.posts + peer.frames > before
            print("noticed" if noticed else "not noticed", "reached" if reached else "not reached")
            beating.cancel()
            await link.close()

    asyncio.run(main())
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--net"]


def may_unshare() -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run([*UNSHARE, "true"], capture_output=True).returncode


@pytest.mark.skipif(not may_unshare(), reason="no network namespaces here")
def test_packets_that_vanish_break_the_stream_and_a_heartbeat_arrives_once_the_network_is_whole() -> None:
    """TCP alone stays connected, and after 6 s of silence waits for many more before it tries again. By POST or on a
    new stream, whichever is first."""
    ran = subprocess.run(
        [*UNSHARE, sys.executable, "-c", textwrap.dedent(BLACK_HOLE)], capture_output=True, text=True, timeout=60
    )

    # Before it, the log may say that the stream broke.
    assert ["noticed reached"] == ran.stdout.splitlines()[-1:], ran.stderr
