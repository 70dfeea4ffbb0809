"""The world: nodes with their computers, and clients' processes, under one seed.

    with mufakat_world(seed=7) as world:

        async def takes_the_lock() -> None:
            async with aiohttp.ClientSession() as session:
                body = {"key": "A", "client_id": "me", "ttl": 30}
                answer = await session.post(world.url("n1") + "/lock/acquire", json=body)
                assert (await answer.json())["ok"]

        world.run(takes_the_lock())
        world.nodes["n2"].kill()
        world.run(takes_the_lock())

Everything in it happens in virtual time: a minute of sleep costs what the nodes do in it, a second or less. The same
seed and the same calls give the same run. The code under test is ordinary asyncio; it must open its connections by
the running loop, as aiohttp does, and look at the loop's clock.

    run, sleep, until          let time pass
    until_all_serve            let as much pass as the nodes take to serve, after `heal` for example
    url, leader, nodes         what there is
    failures                   nodes that ended by themselves, and errors that nobody handled
    nodes["n1"]                what goes wrong with one: start, stop, kill, freeze, thaw, power_off, power_on,
                               lose_disk, suspend, resume, clock_runs_at, clock_jumps
    nodes["n1"].variables      settings that it has for itself, from its next start on
    add_node                   one more, to be started, and then to be added with `POST /admin/members`
    nodes["n1"].disk           hang, resume, is_full, fail_next_sync, delay_s
    cut, isolate, mend, heal   the network, and all of it
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, TypeVar

import structlog

from common.config import Settings, load_settings
from services.world.clock import ComputerClock
from services.world.loop import Process, WorldLoop
from services.world.network import Host, Network
from services.world.node import Node
from services.world.threads import SimulatedThreads
from services.world.transports import Sockets, close_real_sockets

Result = TypeVar("Result")

CLIENT_PORT = 8000
SECRET = "a secret of the world's own nodes"
#: How long a call of `World.run` may take in virtual time, seconds.
RUN_SECONDS_MAX = 3_600.0
#: What the world remembers of what happened.
STORY_MAX = 10_000


class WorldFailed(AssertionError):
    """Something happened that never may."""


class World:
    """See the module.

    Args:
        nodes: how many there are at first: `n1`, `n2` and so on, each on a computer of its own.
        groups: what each of them carries.
        settings: of all nodes, by variable, as in the environment.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        groups: tuple[str, ...] = ("lock", "queue", "cache"),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.seed = seed
        self.cover: Counter[str] = Counter()
        self.story: deque[tuple[int, str]] = deque(maxlen=STORY_MAX)
        self.loop = WorldLoop(Random(f"loop {seed}"))  # type: ignore[abstract]  # what is not there nobody calls
        self.network = Network(self.loop, Random(f"network {seed}"))
        self.network.count = self.count
        self._sockets = self.loop.network = Sockets(self.network)
        self.threads = SimulatedThreads(self.loop)
        self.nodes: dict[str, Node] = {}
        self.groups = groups
        self._settings = dict(settings or {})
        self._clients = 0
        #: Whom `cut` keeps from whom, until `mend`: also who comes later.
        self._cuts: list[tuple[str, str]] = []
        self._ended: list[str] = []
        #: Told of each node that ended by itself: (node, process, failure).
        self.on_exit: Callable[[Node, Process, BaseException | None], None] = self._tell_exit
        for _ in range(nodes):
            self._new_node()
        self._founders = tuple(self.nodes)

    # For everybody

    def url(self, node: str) -> str:
        """Where clients reach a node."""
        return f"http://{self.address(node)}"

    def address(self, node: str) -> str:
        """`host:port` of it for clients."""
        return f"{self.nodes[node].host.address}:{CLIENT_PORT}"

    def add_node(self) -> Node:
        """Another computer with a node that may join the groups. It does not run yet."""
        node = self._new_node()
        node.variables["MUFAKAT_JOIN"] = "true"
        return node

    def start(self) -> None:
        """Start all nodes."""
        for node in self.nodes.values():
            node.start()

    def run(self, work: Coroutine[Any, Any, Result], *, within_s: float = RUN_SECONDS_MAX) -> Result:
        """Run this as a client's process of its own until it is done, and let the world go on meanwhile.

        Raises:
            WorldFailed: it is not done in time.
        """
        task = self.new_client().start(work, "run")
        if not self.loop.run_while(lambda: not task.done(), round(within_s * 1_000_000)):
            raise WorldFailed(f"not done within {within_s} s of the world")
        return task.result()

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        self.loop.run_for(round(seconds * 1_000_000))

    def until(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        """Let time pass until this holds, looked at every few milliseconds.

        Raises:
            WorldFailed: it does not in time.
        """
        until_us = self.loop.now_us + round(within_s * 1_000_000)
        while not holds():
            if self.loop.now_us >= until_us:
                raise WorldFailed(f"not within {within_s} s: {what}")
            self.loop.run_for(5_000)

    def until_all_serve(self, within_s: float = 60.0) -> None:
        """Let time pass until every node serves and every group has a leader.

        Raises:
            WorldFailed: it is not so in time.
        """
        self.until(self.all_serve, within_s, "every node serves, and every group has a leader")

    def all_serve(self) -> bool:
        for node in self.nodes.values():
            here = node.here
            if here is None or set(here.nodes) != set(self.groups):
                return False
            for replica in here.nodes.values():
                if not replica.admitted or not replica.core.state.leader:
                    return False
        return all(self.leader(group) for group in self.groups)

    @property
    def failures(self) -> list[str]:
        """What went wrong that no call is told of: nodes that ended by themselves, and errors that nobody handled."""
        unhandled = [
            f"{name}: nobody handled {context.get('message')}: {context.get('exception')!r}"
            for name, context in self.loop.unhandled
        ]
        return [*self._ended, *unhandled]

    def leader(self, group: str) -> Node | None:
        """The node that leads the group; None where none that runs does. Of two that think so, the one of
        the later term."""
        leading = []
        for node in self.nodes.values():
            replica = node.here.nodes.get(group) if node.here is not None else None
            if replica is not None and replica.leads and not node.is_frozen:
                leading.append((replica.core.state.term, node))
        return max(leading, key=lambda each: each[0])[1] if leading else None

    def cut(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """From now on nothing of `one` reaches `other`, nor the other way round: names of nodes, or "clients", or
        "nodes"."""
        self._cuts += [(one, other), (other, one)] if both_ways else [(one, other)]
        self._cut_links()

    def _cut_links(self) -> None:
        for one, other in self._cuts:
            for sender in self.hosts(one):
                for to in self.hosts(other):
                    if sender is not to and not self.network.link(sender, to).is_cut:
                        self.network.cut(sender, to)

    def isolate(self, node: str) -> None:
        """Cut a node from all others. Its clients still reach it."""
        self.cut(node, "nodes")

    def mend(self) -> None:
        """All links carry again."""
        self._cuts.clear()
        self.network.mend_all()

    def hosts(self, name: str) -> list[Host]:
        """The computer of a node, or those of all "nodes" or "clients"."""
        if name == "nodes":
            return [node.host for node in self.nodes.values()]
        if name != "clients":
            return [self.nodes[name].host]
        return [host for host in self.network.hosts.values() if host.name.startswith("client")]

    def heal(self) -> None:
        """Mend all links, disks and clocks, and start every node that does not run. It takes a while until they serve
        (`until_all_serve`); one whose disk was lost does so once it is a member again."""
        for link in self.network.links():
            link.loss_permille = link.split_permille = 0
            link.delay_us = (100, 500)
        self.mend()
        for node in self.nodes.values():
            node.heal()

    # For the campaign

    def new_client(self, name: str = "") -> Process:
        """A process on a computer of its own, with a clock that is right."""
        self._clients += 1
        number = self._clients
        process = self.loop.new_process(name or f"c{number}", ComputerClock())
        self.network.place(process, self.network.new_host(f"client{number}", f"10.1.{number >> 8}.{number & 255}"))
        self._cut_links()
        return process

    def count(self, name: str) -> None:
        self.cover[name] += 1

    def tell(self, text: str) -> None:
        """One line of the story."""
        self.story.append((self.loop.now_us, text))

    def on_log(self, process: str, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """A node logs a line."""
        self.count(f"log: {event}")
        if level not in ("debug", "info"):
            self.tell(f"{process} logs: {event} " + " ".join(f"{name}={value}" for name, value in fields.items()))

    def close(self) -> None:
        """Nothing happens any more."""
        self.loop.close()
        close_real_sockets(self._sockets)

    def _tell_exit(self, node: Node, process: Process, failure: BaseException | None) -> None:
        text = f"{node.name} ended" + (f": {failure!r}" if failure else "")
        self.tell(text)
        if failure is not None:
            self._ended.append(text)

    def _new_node(self) -> Node:
        number = len(self.nodes) + 1
        name = f"n{number}"
        node = self.nodes[name] = Node(
            self.seed,
            name,
            f"10.0.0.{number}",
            loop=self.loop,
            network=self.network,
            threads=self.threads,
            settings=partial(self.settings_of, name),
            count=self.count,
            on_exit=lambda *ended: self.on_exit(*ended),
        )
        self._cut_links()
        return node

    def settings_of(self, name: str) -> Settings:
        """What a node is started with."""
        # As an operator would: who joins is named by its own settings alone.
        named = dict.fromkeys((*self._founders, name))
        return load_settings(
            {
                "MUFAKAT_NODE_ID": name,
                "MUFAKAT_CLUSTER": ",".join(f"{each}={self.address(each)}" for each in named),
                "MUFAKAT_CLUSTER_SECRET": SECRET,
                "MUFAKAT_GROUPS": ",".join(self.groups),
                "MUFAKAT_LISTEN_HOST": self.nodes[name].host.address,
                "MUFAKAT_DATA_DIR": f"/data/{name}",
                **self._settings,
                **self.nodes[name].variables,
            }
        )


@contextmanager
def logs_told_to(world: World) -> Iterator[None]:
    """What nodes log is the world's to hear, and nobody else's. Lines of the application go where they went."""
    before = structlog.get_config()

    def tell(logger: Any, method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        name = world.loop.process.name
        if name not in world.nodes:
            return fields
        world.on_log(name, method, str(fields.pop("event")), fields)
        raise structlog.DropEvent

    structlog.configure(processors=[tell, *before["processors"]])
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def mufakat_world(seed: int = 0, **options: Any) -> Iterator[World]:
    """A `World` whose nodes serve, all groups with a leader."""
    world = World(seed, **options)
    enabled = gc.isenabled()
    gc.disable()
    try:
        with logs_told_to(world):
            world.start()
            world.until_all_serve()
            yield world
    finally:
        world.close()
        if enabled:
            gc.enable()
