"""Both sides of the seam that sockets, timers and the executor are: the loops that nodes run on, and the world's.

A case is a coroutine that is given the address to listen on. It knows nothing of the loop that it runs on.
"""

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
import uvloop

from services.world.loop import WorldLoop
from services.world.network import Network
from services.world.threads import SimulatedThreads
from services.world.transports import Sockets

Case = Callable[[str], Awaitable[None]]
CASES: list[Case] = []


def case(coroutine: Case) -> Case:
    CASES.append(coroutine)
    return coroutine


def in_the_world(coroutine: Case) -> None:
    for seed in range(5):
        loop = WorldLoop(Random(seed))
        network = Network(loop, Random(seed + 1))
        loop.network = Sockets(network)
        SimulatedThreads(loop)
        process = loop.new_process("p")
        network.place(process, network.new_host("h", "10.0.0.1"))
        for link in network.links():
            link.split_permille = 300
        running = process.start(coroutine("10.0.0.1"), "case")
        assert loop.run_while(lambda done=running.done: not done(), limit_us=60_000_000), "it hangs"
        running.result()
        assert not loop.unhandled
        loop.close()


def on_real_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[Case], None]:
    def run(coroutine: Case) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(coroutine("127.0.0.1"), 20)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    return run


SIDES = {
    "world": in_the_world,
    "asyncio": on_real_loop(asyncio.new_event_loop),
    "uvloop": on_real_loop(uvloop.new_event_loop),
}


class Recorder(asyncio.Protocol):
    """Notes what its transport tells it."""

    def __init__(self, *, keeps_open: bool = False) -> None:
        self.told: list[Any] = []
        self.received = bytearray()
        self.transport: Any = None
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.news = asyncio.Event()
        self._keeps_open = keeps_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._note("made")

    def data_received(self, data: bytes) -> None:
        assert data and isinstance(data, bytes)
        self.received += data
        self.news.set()

    def eof_received(self) -> bool:
        self._note("eof")
        return self._keeps_open

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, error: BaseException | None) -> None:
        self._note("lost")
        self.lost.set_result(error)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.news.clear()
            await self.news.wait()

    def _note(self, word: str) -> None:
        self.told.append(word)
        self.news.set()


async def pair(address: str, **options: Any) -> tuple[Recorder, Recorder, Any]:
    """A connection's two ends, the client's first, and the listener."""
    loop = asyncio.get_running_loop()
    accepted: list[Recorder] = []
    connected = asyncio.Event()

    def accept() -> Recorder:
        accepted.append(Recorder(**options))
        connected.set()
        return accepted[-1]

    server = await loop.create_server(accept, address, 0)
    _, client = await loop.create_connection(lambda: Recorder(**options), *server.sockets[0].getsockname()[:2])
    await connected.wait()
    await accepted[0].until(lambda: accepted[0].transport is not None)
    return client, accepted[0], server


@case
async def bytes_arrive_in_order_and_once(address: str) -> None:
    client, server, _ = await pair(address)
    sent = bytearray()
    for number in range(300):
        part = bytes([number % 251]) * (number % 97 + 1)
        sent += part
        client.transport.write(part)
    client.transport.writelines([b"ab", b"", b"cd"])
    client.transport.close()
    assert await server.lost is None
    assert server.received == sent + b"abcd"
    assert server.told == ["made", "eof", "lost"]
    assert await client.lost is None


@case
async def what_was_written_is_sent_before_it_closes(address: str) -> None:
    client, server, _ = await pair(address)
    client.transport.write(bytes(3_000_000))
    client.transport.close()
    client.transport.write(b"too late")
    assert client.transport.is_closing()
    await server.lost
    assert len(server.received) == 3_000_000


@case
async def nobody_listens(address: str) -> None:
    _, _, server = await pair(address)
    where = server.sockets[0].getsockname()[:2]
    server.close()
    await asyncio.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.get_running_loop().create_connection(Recorder, *where)


@case
async def a_port_is_taken_once(address: str) -> None:
    _, _, server = await pair(address)
    with pytest.raises(OSError) as raised:
        await asyncio.get_running_loop().create_server(Recorder, *server.sockets[0].getsockname()[:2])
    assert raised.value.errno == errno.EADDRINUSE


@case
async def a_reader_that_pauses_makes_the_writer_pause(address: str) -> None:
    client, server, _ = await pair(address)
    server.transport.pause_reading()
    assert not server.transport.is_reading()
    written = 0
    while written < 64_000_000:
        if client.told[-1] == "pause":
            # The kernels may take some of it yet.
            await asyncio.sleep(0.05)
            if client.told[-1] == "pause":
                break
        client.transport.write(bytes(65_536))
        written += 65_536
        await asyncio.sleep(0)
    assert client.told[-1] == "pause"
    before = len(server.received)
    await asyncio.sleep(0.05)
    assert len(server.received) == before < written
    assert client.transport.get_write_buffer_size() > 65_536
    server.transport.resume_reading()
    await client.until(lambda: client.told[-1] == "resume")
    await server.until(lambda: len(server.received) == written)
    assert client.transport.get_write_buffer_size() == 0


@case
async def the_other_side_has_gone(address: str) -> None:
    client, server, _ = await pair(address)
    client.transport.write(b"x")
    server.transport.abort()
    for _ in range(10_000):
        client.transport.write(b"more")
        await asyncio.sleep(0.001)
        if client.lost.done():
            break
    assert isinstance(client.lost.result(), ConnectionError | None)
    assert client.told[-1] == "lost"
    assert await server.lost is None


@case
async def an_abort_drops_what_was_not_sent(address: str) -> None:
    client, server, _ = await pair(address)
    server.transport.pause_reading()
    client.transport.write(bytes(64_000_000))
    client.transport.abort()
    assert await client.lost is None
    server.transport.resume_reading()
    await server.lost
    assert len(server.received) < 64_000_000


@case
async def one_direction_may_end_before_the_other(address: str) -> None:
    client, server, _ = await pair(address, keeps_open=True)
    assert client.transport.can_write_eof()
    client.transport.write(b"question")
    client.transport.write_eof()
    await server.until(lambda: "eof" in server.told)
    server.transport.write(b"answer")
    await client.until(lambda: client.received == b"answer")
    assert not client.lost.done()
    server.transport.close()
    await client.until(lambda: "eof" in client.told)
    client.transport.close()
    assert await client.lost is None


@case
async def names_of_the_ends(address: str) -> None:
    client, server, listener = await pair(address)
    listening = listener.sockets[0].getsockname()[:2]
    assert client.transport.get_extra_info("peername")[:2] == listening
    assert server.transport.get_extra_info("sockname")[:2] == listening
    assert server.transport.get_extra_info("peername")[:2] == client.transport.get_extra_info("sockname")[:2]
    assert client.transport.get_extra_info("nothing", 5) == 5


@case
async def callbacks_and_timers_keep_their_order(address: str) -> None:
    loop, seen = asyncio.get_running_loop(), []
    now = loop.time()
    loop.call_at(now + 0.03, seen.append, "third")
    loop.call_later(0.01, seen.append, "first")
    cancelled = loop.call_later(0.005, seen.append, "never")
    loop.call_later(0.02, seen.append, "second")
    cancelled.cancel()
    loop.call_soon(seen.append, "soon")
    loop.call_soon(seen.append, "sooner")
    await asyncio.sleep(0.05)
    assert seen == ["soon", "sooner", "first", "second", "third"]
    assert 0.049 < loop.time() - now < 5


@case
async def what_blocks_runs_beside_the_loop(address: str) -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, sum, (1, 2, 3)) == 6
    assert await asyncio.to_thread(max, 4, 5) == 5
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 // 0)
    told: asyncio.Future[str] = loop.create_future()
    await asyncio.to_thread(loop.call_soon_threadsafe, told.set_result, "by a thread")
    assert await told == "by a thread"


@case
async def a_connect_that_is_cancelled(address: str) -> None:
    _, _, server = await pair(address)
    loop = asyncio.get_running_loop()
    connecting = asyncio.create_task(loop.create_connection(Recorder, *server.sockets[0].getsockname()[:2]))
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("coroutine", CASES, ids=lambda coroutine: coroutine.__name__)
def test_case(side: str, coroutine: Case) -> None:
    threads = threading.active_count()
    SIDES[side](coroutine)
    if side == "world":
        assert threading.active_count() == threads
