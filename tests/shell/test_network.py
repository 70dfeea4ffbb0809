"""services/world/network.py: what links do to streams, and what they never do."""

import asyncio
import socket
from random import Random

import pytest

from services.world.loop import Process, WorldLoop
from services.world.network import Network
from services.world.threads import SimulatedThreads
from services.world.transports import Sockets
from tests.shell.test_sockets import Recorder

PORT = 7000


class Pair:
    """Two computers, a connection between them, and what each of its ends was told."""

    def __init__(self, seed: int) -> None:
        self.loop = WorldLoop(Random(seed))
        self.network = Network(self.loop, Random(seed + 1))
        self.loop.network = Sockets(self.network)
        SimulatedThreads(self.loop)
        self.processes: list[Process] = []
        for number in (1, 2):
            process = self.loop.new_process(f"p{number}")
            self.network.place(process, self.network.new_host(f"h{number}", f"10.0.0.{number}"))
            self.processes.append(process)
        self.here, self.there = (self.network.host_of(process) for process in self.processes)
        #: The client's end and the server's, once they are there.
        self._ends: dict[str, Recorder] = {}

    def connect(self) -> None:
        serving = self.processes[1].start(self.serve(), "serve")
        self.loop.run_while(lambda: not serving.done())
        asking = self.processes[0].start(self.ask(), "ask")
        self.loop.run_while(lambda: not asking.done() or len(self._ends) < 2)
        self.loop.run_for(10_000)

    async def serve(self) -> None:
        await asyncio.get_running_loop().create_server(lambda: self._end("server"), "10.0.0.2", PORT)

    async def ask(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self._end("client"), "10.0.0.2", PORT)

    def _end(self, name: str) -> Recorder:
        return self._ends.setdefault(name, Recorder())

    @property
    def ends(self) -> tuple[Recorder, Recorder]:
        return self._ends["client"], self._ends["server"]

    def set_option(self, option: int, value: int, level: int = socket.IPPROTO_TCP) -> None:
        for end in self.ends:
            end.transport.get_extra_info("socket").setsockopt(level, option, value)


@pytest.fixture(params=range(5))
def pair(request: pytest.FixtureRequest) -> Pair:
    made = Pair(request.param)
    made.connect()
    return made


def test_a_cut_link_holds_what_was_sent_and_lets_it_go_on_in_order(pair: Pair) -> None:
    client, server = pair.ends
    pair.network.cut(pair.here, pair.there)
    client.transport.write(b"one ")
    pair.loop.run_for(5_000_000)
    client.transport.write(b"two")
    pair.loop.run_for(1_000_000)
    assert server.received == b"" and not server.lost.done()
    pair.network.mend(pair.here, pair.there)
    pair.loop.run_for(6_000_000)
    assert server.received == b"one two"


def test_nothing_arrives_behind_what_was_lost(pair: Pair) -> None:
    client, server = pair.ends
    pair.set_option(socket.TCP_USER_TIMEOUT, 500)
    pair.network.link(pair.here, pair.there).delay_us = (100_000, 100_000)
    pair.network.cut(pair.here, pair.there)
    client.transport.write(b"lost")
    pair.loop.run_for(599_000)
    client.transport.write(b"behind it")
    pair.loop.run_for(50_000)
    assert isinstance(client.lost.result(), OSError)
    pair.network.mend(pair.here, pair.there)
    pair.loop.run_for(5_000_000)
    assert server.received == b""


def test_a_connection_over_a_cut_link_breaks_where_it_is_watched(pair: Pair) -> None:
    client, server = pair.ends
    pair.set_option(socket.SO_KEEPALIVE, 1, socket.SOL_SOCKET)
    for option, seconds in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
        pair.set_option(option, seconds)
    pair.network.cut(pair.there, pair.here)
    pair.loop.run_for(2_900_000)
    assert not client.lost.done() and not server.lost.done()
    pair.loop.run_for(200_000)
    assert isinstance(client.lost.result(), TimeoutError) and isinstance(server.lost.result(), TimeoutError)


def test_a_connection_that_nobody_watches_stays(pair: Pair) -> None:
    client, server = pair.ends
    pair.network.cut(pair.there, pair.here)
    pair.loop.run_for(3_000_000_000)
    assert not client.lost.done() and not server.lost.done()


def test_a_process_that_dies_ends_its_connections(pair: Pair) -> None:
    client, server = pair.ends
    pair.processes[1].kill()
    pair.loop.run_for(1_000_000)
    assert client.told[-1] == "lost"
    assert server.told == ["made"]
    refused = pair.processes[0].start(pair.ask(), "ask")
    pair.loop.run_for(1_000_000)
    assert isinstance(refused.exception(), ConnectionRefusedError)


def test_a_computer_without_power_says_nothing_and_later_refuses(pair: Pair) -> None:
    client, _ = pair.ends
    pair.there.power_off()
    pair.processes[1].kill()
    client.transport.write(b"to nobody")
    pair.loop.run_for(2_000_000)
    assert not client.lost.done()
    pair.there.power_on()
    client.transport.write(b"to its next life")
    pair.loop.run_for(5_000_000)
    assert isinstance(client.lost.result(), ConnectionResetError)


def test_a_frozen_process_reads_later(pair: Pair) -> None:
    client, server = pair.ends
    pair.processes[1].freeze()
    client.transport.write(b"later")
    pair.loop.run_for(60_000_000)
    assert server.received == b""
    pair.processes[1].thaw()
    pair.loop.run_for(1_000)
    assert server.received == b"later"


def test_a_connection_is_asked_for_until_the_way_is_free() -> None:
    pair = Pair(1)
    serving = pair.processes[1].start(pair.serve(), "serve")
    pair.loop.run_while(lambda: not serving.done())
    pair.network.cut(pair.here, pair.there)
    asking = pair.processes[0].start(pair.ask(), "ask")
    pair.loop.run_for(2_000_000)
    pair.network.mend(pair.here, pair.there)
    assert not asking.done()
    pair.loop.run_for(4_000_000)
    assert asking.done() and asking.exception() is None


def test_lost_bytes_are_sent_again(pair: Pair) -> None:
    client, server = pair.ends
    pair.network.link(pair.here, pair.there).loss_permille = 200
    sent = bytes(range(250)) * 40
    for start in range(0, len(sent), 100):
        client.transport.write(sent[start : start + 100])
        pair.loop.run_for(1_000)
    pair.loop.run_for(60_000_000)
    assert server.received == sent
