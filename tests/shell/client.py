"""A client as clients are: it asks any node, believes what it is told, and may leave at any moment.

    told       an answer came: 200, or a refusal that says what it means
    NotDone    certainly not done: refused, or nobody listened
    Unknown    the connection ended, the time was over, or the node said that it does not know

How a client behaves at a request (`tests.shell.plan.MANNERS`) is drawn anew each time.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from services.world.transports import Transport
from services.world.world import CLIENT_PORT
from tests.shell.wire import Answer, Hung, Wire, message

if TYPE_CHECKING:
    from tests.shell.run import Run

#: A patient client waits so much longer than it allows the request to take. No node may need longer to say at least
#: that it does not know: what a request may take, a wait for a leader, the grace of a wait, and dawdling clients.
PATIENCE_S = 7.0
#: Pause before a request is sent again.
RETRY_S = (0.02, 0.3)

#: Refusals after which the same may be sent again; 504 says that the outcome is unknown.
NOT_DONE = (408, 429, 503)


class NotDone(Exception):
    """It has certainly not been done."""


class Unknown(Exception):
    """It may have been done, or may be yet."""


class Vanished(Unknown):
    """The client left in the middle and does not ask again."""


@dataclass(slots=True)
class Try:
    """One time that a request was sent."""

    node: str
    asked_us: int
    #: What the node wrote on the connection since, read by the client or not.
    written: bytearray


class Client:
    """One application: a process with connections of its own. `loop_body` is what it does for ever."""

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self.world = run.world
        self.name = name
        self.random = Random(f"{run.plan.seed} {name}")
        self.process = run.world.new_client(name)
        self.is_done = False
        self._idle: dict[str, Wire] = {}
        self._keys = 0
        #: Of the request that is under way.
        self.tries: list[Try] = []

    def start(self) -> None:
        work = self.process.start(self._run(), self.name)
        work.add_done_callback(self._on_end)

    @property
    def now_us(self) -> int:
        return self.world.loop.now_us

    def has(self, manner: str) -> bool:
        """Whether it behaves so this time."""
        permille = self.run.plan.manners.get(manner, 0)
        if self.run.healed_us is not None or not permille or self.random.random() * 1000 >= permille:
            return False
        self.world.count(f"client {manner}")
        return True

    def new_key(self) -> str:
        self._keys += 1
        return f"{self.name}-{self._keys}"

    async def _run(self) -> None:
        while not self.run.is_over:
            await asyncio.sleep(self.random.expovariate(1 / self.run.plan.think_s))
            try:
                await self.act()
            except (NotDone, Unknown):
                await asyncio.sleep(self.random.uniform(*RETRY_S))
        self.leave()
        self.is_done = True
        for wire in self._idle.values():
            wire.close()

    def _on_end(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and work.exception() is not None:
            self.run.client_failed(self, work.exception())

    async def act(self) -> None:
        """One thing that it does: each kind of client has its own, and a probe, which is asked, has none."""
        raise NotImplementedError

    def leave(self) -> None:
        """It does nothing more."""

    def any_node(self) -> str:
        return self.random.choice(tuple(self.world.nodes))

    # Asking

    async def settle(
        self, path: str, body: dict[str, Any], *, wait_s: float = 0.0, key: str | None = None
    ) -> dict[str, Any]:
        """The answer to a POST, sent again, to another node where that helps, until there is one. A request without a
        key is not sent again once it may have been done.

        Raises:
            NotDone, Unknown.
        """
        until_us = self.now_us + round((wait_s + 2 * PATIENCE_S) * 1_000_000)
        is_unknown = False
        self.tries = []
        while True:
            try:
                answer = await self.ask(path, body, wait_s=wait_s, key=key)
            except NotDone:
                if self.now_us >= until_us:
                    raise (Unknown if is_unknown else NotDone) from None
            except Vanished:
                raise
            except Unknown:
                is_unknown = True
                if key is None or self.now_us >= until_us:
                    raise
            else:
                if key is not None and self.has("repeats"):
                    self.check_repeated(path, body, key, answer)
                return answer
            await asyncio.sleep(self.random.uniform(*RETRY_S))

    def check_repeated(self, path: str, body: dict[str, Any], key: str, answer: dict[str, Any]) -> None:
        """Send what was answered once more, beside all else: the answer must be the same."""
        self.process.start(self._ask_again(path, body, key, answer), f"{self.name} again")

    async def _ask_again(self, path: str, body: dict[str, Any], key: str, answer: dict[str, Any]) -> None:
        try:
            again = await self.ask(path, body, key=key)
        except (NotDone, Unknown):
            return
        self.on_repeated(path, answer, again)

    def on_repeated(self, path: str, answer: dict[str, Any], again: dict[str, Any]) -> None:
        """What a repeated request was told beside what it was told at first."""

    async def ask(
        self, path: str, body: dict[str, Any], *, wait_s: float = 0.0, key: str | None = None,
        leaves_s: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """One try at any node. The client leaves after `leaves_s`, where that is given.

        Raises:
            NotDone, Unknown.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        if leaves_s is None and (self.has("vanishes") or (key is not None and self.has("impatient"))):
            leaves_s = self.random.choice((0.0, 0.001, 0.01, 0.1, 0.5)) * self.random.random()
        patience_s = wait_s + PATIENCE_S if leaves_s is None else leaves_s
        node, asked_us = self.any_node(), self.now_us
        encoded, too_much = json.dumps(body).encode(), False
        if self.has("sends_much"):
            too_much = self.random.random() < 0.5
            encoded = encoded.ljust(self.world.settings_of(node).body_bytes_max + too_much)
        head, data = message("POST", path, encoded, headers)
        try:
            async with asyncio.timeout(patience_s):
                answer = await self._exchange(node, head, data)
        except TimeoutError:
            if leaves_s is None:
                self.run.on_slow(self, node, path, asked_us)
                raise Unknown from None
            # With a key it comes again; without, nobody is there any more.
            raise (Vanished if key is None else Unknown) from None
        if too_much:
            if answer.status in (200, 504):
                self.run.fail(f"{self.name} was told {answer.status} by {path} of {len(encoded)} bytes")
            self.world.count(f"told {answer.status} of a body of one byte too much")
            raise NotDone
        return self.read(path, answer)

    async def ask_get(self, path: str, node: str = "") -> dict[str, Any]:
        """One question. Raises: NotDone, Unknown."""
        head, _ = message("GET", path)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._exchange(node or self.any_node(), head, b"")
        except TimeoutError:
            raise Unknown from None
        return self.read(path, answer)

    def read(self, path: str, answer: Answer) -> dict[str, Any]:
        """What an answer says. Raises: NotDone, Unknown."""
        told: dict[str, Any] = answer.json()
        if answer.status == 200 or answer.status in (409, 422):
            return told
        self.world.count(f"told {answer.status} {told.get('reason')}")
        if answer.status == 504:
            raise Unknown
        if answer.status in NOT_DONE:
            raise NotDone
        self.run.fail(f"{self.name} was told {answer.status} by {path}: {answer.body[:200]!r}")
        raise NotDone

    async def _exchange(self, node: str, head: bytes, data: bytes) -> Answer:
        wire = self._idle.pop(node, None)
        if wire is not None and wire.is_over:
            wire = None
        is_fresh = wire is None
        if wire is None:
            try:
                wire = await Wire.connect(self.world.nodes[node].host.address, CLIENT_PORT)
            except OSError:
                raise NotDone from None
        kept = False
        written = bytearray()
        self.tries.append(Try(node, self.now_us, written))
        assert isinstance(wire.transport, Transport)
        if wire.transport.kernel.peer is not None:
            wire.transport.kernel.peer.on_written = written.extend
        try:
            answer = await self._speak(wire, head, data)
            kept = not wire.is_over and answer.headers.get("connection") != "close"
            return answer
        except Hung:
            raise Unknown from None
        finally:
            assert wire.transport is not None
            wire.transport.resume_reading()
            if kept and node not in self._idle:
                self._idle[node] = wire
            elif self.random.random() < 0.5 or is_fresh:
                wire.abort()
            else:
                wire.close()

    async def _speak(self, wire: Wire, head: bytes, data: bytes) -> Answer:
        transport = wire.transport
        assert transport is not None
        if self.has("dawdles_reading"):
            transport.pause_reading()
            asyncio.get_running_loop().call_later(self.random.random(), transport.resume_reading)
        if self.has("pipelines"):
            # Something harmless before, whose answer comes first.
            wire.request("GET", "/healthz").add_done_callback(lambda answer: answer.exception())
        if not self.has("dawdles_writing"):
            return await wire.expect(head + data)
        cut = self.random.randint(1, len(head) + len(data) - 1)
        answer = wire.expect((head + data)[:cut])
        await asyncio.sleep(self.random.random() * 0.3)
        wire.send((head + data)[cut:])
        return await answer
