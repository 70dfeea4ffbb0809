"""The faults of a seed, and whom they meet.

The rule of the file: a fault is a method that does something to the world and returns what undoes it, or None where
it cannot be. Which nodes it meets is drawn when it begins, and noted in `_chosen`. `tests.shell.nemesis` says when.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from services.lock.node.waiting import LockWaits
from services.world.network import DESCRIPTORS_MAX, Host
from services.world.node import Node
from tests.shell.plan import LEASES_MS, Plan

if TYPE_CHECKING:
    from tests.shell.run import Run

Mend = Callable[[], None]

#: How long each sync takes on a slow disk.
SLOW_DISK_S = (0.02, 0.3)
#: Open sockets that a node is left with where descriptors are few.
DESCRIPTORS_FEW = 20


def waits_at(node: Node) -> int:
    """How many requests wait for locks at a node."""
    waits = node.here.parts.get(LockWaits) if node.here is not None else None
    return len(waits._waits) if waits is not None else 0


class Faults:
    """See the module."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run = run
        self._world = run.world
        self._plan = plan
        #: Of the fault that begins.
        self._random = Random(f"nemesis {plan.seed}")
        #: Whom it meets; nobody: all.
        self._chosen: list[Node] = []
        #: No new fault begins.
        self._stopped = False
        #: By node and life: when it was told to stop.
        self._told_us: dict[tuple[str, int], int] = {}

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._world.loop.after(round(seconds * 1_000_000), call)

    def _tell(self, text: str) -> None:
        self._world.tell(text)

    # Whom it meets

    def _any(self) -> Node:
        self._chosen.append(self._random.choice(tuple(self._world.nodes.values())))
        return self._chosen[-1]

    def _with_waits(self) -> Node:
        """One of those at which most requests wait for locks."""
        nodes = list(self._world.nodes.values())
        self._random.shuffle(nodes)
        self._chosen.append(max(nodes, key=waits_at))
        return self._chosen[-1]

    def _leader(self) -> Node:
        group = self._random.choice(self._plan.groups)
        leader = self._world.leader(group)
        if leader is None:
            return self._any()
        self._chosen.append(leader)
        return leader

    # Processes and power

    def _kill(self, node: Node | None = None) -> Mend:
        node = node or self._any()
        self._tell(f"{node.name} is killed")
        node.kill()
        return node.start

    def _kill_leader(self) -> Mend:
        return self._kill(self._leader())

    def _stop(self, node: Node | None = None) -> Mend:
        node = node or self._any()
        self._tell(f"{node.name} is told to stop")
        if node.serves:
            self._told_us.setdefault((node.name, node.lives), self._world.loop.now_us)
        node.stop()
        return node.start

    def _stop_leader(self) -> Mend:
        return self._stop(self._leader())

    def _power_off(self, node: Node | None = None) -> Mend:
        node = node or self._any()
        self._tell(f"{node.name} loses power")
        node.power_off()

        def back() -> None:
            self._tell(f"{node.name} has power again")
            node.power_on()
            node.start()

        return back

    def _power_off_all(self) -> Mend:
        mends = [self._power_off(node) for node in self._world.nodes.values()]
        return lambda: [mend() for mend in mends] and None

    def _freeze(self, node: Node | None = None) -> Mend:
        node = node or self._any()
        self._tell(f"{node.name} freezes")
        node.freeze()

        def thaw() -> None:
            self._tell(f"{node.name} goes on")
            node.thaw()

        return thaw

    def _freeze_leader(self) -> Mend:
        return self._freeze(self._leader())

    def _suspend(self) -> Mend:
        """The node sleeps: one of its clocks stands still meanwhile, the other counts."""
        node = self._any()
        self._tell(f"{node.name} is suspended")
        node.suspend()
        return node.resume

    def _busy(self) -> Mend | None:
        """Another process takes the processor for a while."""
        node = self._any()
        if node.process is None:
            return None
        seconds = self._random.choice((0.02, 0.1, 0.4))
        self._tell(f"{node.name} gets no processor for {seconds} s")
        node.process.busy_until_us = self._world.loop.now_us + round(seconds * 1_000_000)
        return _nothing

    # The network

    def _cut(self, pairs: list[tuple[Host, Host]], text: str) -> Mend:
        self._tell(text)
        network = self._world.network
        for sender, to in pairs:
            network.cut(sender, to)

        def mend() -> None:
            self._tell(f"mended: {text}")
            for sender, to in pairs:
                network.mend(sender, to)

        return mend

    def _others(self, node: Node) -> list[Host]:
        """The computers of all other nodes."""
        return [each.host for each in self._world.nodes.values() if each is not node]

    def _cut_node(self, node: Node | None = None) -> Mend:
        node = node or self._any()
        others = self._others(node)
        pairs = [(node.host, other) for other in others] + [(other, node.host) for other in others]
        return self._cut(pairs, f"{node.name} is cut off")

    def _cut_leader(self) -> Mend:
        return self._cut_node(self._leader())

    def _cut_one_way(self) -> Mend:
        node = self._random.choice((self._any(), self._leader()))
        others = self._random.sample(self._others(node), k=self._random.randint(0, len(self._others(node))))
        if self._random.random() < 0.5:
            return self._cut([(node.host, other) for other in others], f"{node.name} is not heard")
        return self._cut([(other, node.host) for other in others], f"{node.name} hears nobody")

    def _cut_pair(self) -> Mend | None:
        nodes = tuple(self._world.nodes.values())
        if len(nodes) < 2:
            return None
        one, other = self._random.sample(nodes, 2)
        return self._cut([(one.host, other.host), (other.host, one.host)], f"{one.name} and {other.name} are cut")

    def _cut_clients(self) -> Mend:
        """A node and all clients: they know nothing of each other, and the node goes on with the others."""
        node = self._any()
        clients = self._world.hosts("clients")
        pairs = [pair for client in clients for pair in ((node.host, client), (client, node.host))]
        return self._cut(pairs, f"{node.name} is cut from its clients")

    def _reset_connections(self) -> Mend:
        node = self._any()
        sockets = tuple(node.host.sockets)
        chosen = [each for each in sockets if self._random.random() < 0.5 and each.peer is not None]
        self._tell(f"{len(chosen)} connections of {node.name} are reset")
        for each in chosen:
            each.reset_by_network()
        return _nothing

    def _lossy(self) -> Mend:
        self._tell("the network loses bytes")
        links = self._world.network.links()
        for link in links:
            link.loss_permille = 100

        def mend() -> None:
            for link in links:
                link.loss_permille = 0

        return mend

    def _slow_links(self) -> Mend:
        node, network = self._any(), self._world.network
        self._tell(f"the way to {node.name} is long")
        links = [network.link(other, node.host) for other in self._others(node)]
        before = [link.delay_us for link in links]
        for link in links:
            link.delay_us = (20_000, 200_000)

        def mend() -> None:
            for link, delay_us in zip(links, before, strict=True):
                link.delay_us = delay_us

        return mend

    # Disks

    def _slow_disk(self) -> Mend:
        node = self._any()
        self._tell(f"the disk of {node.name} is slow")
        before, node.disk.delay_s = node.disk.delay_s, SLOW_DISK_S

        def mend() -> None:
            node.disk.delay_s = before

        return mend

    def _hang_disk(self) -> Mend:
        node = self._any()
        self._tell(f"the disk of {node.name} hangs")
        node.disk.hang()

        def mend() -> None:
            self._tell(f"the disk of {node.name} goes on")
            node.disk.resume()

        return mend

    def _full_disk(self) -> Mend:
        node = self._any()
        self._tell(f"the disk of {node.name} is full")
        node.disk.is_full = True

        def mend() -> None:
            self._tell(f"the disk of {node.name} has room again")
            node.disk.is_full = False

        return mend

    def _failing_sync(self) -> Mend:
        node = self._any()
        self._tell(f"the next sync of {node.name} fails")
        node.disk.fail_next_sync()
        return _nothing

    # Clocks

    def _clock_drifts(self) -> Mend:
        node, drift = self._any(), self._plan.drift_permille
        rate = 1000 + self._random.randint(-drift, drift)
        node.clock_runs_at(rate)
        return lambda: node.clock_runs_at(1000)

    def _clock_stops(self) -> Mend:
        """For less than matters to leases: a clock that stands still is one that drifts without bound."""
        node = self._any()
        self._tell(f"the clocks of {node.name} stand still")
        node.clock_runs_at(0)
        self._after(0.005, lambda: node.clock_runs_at(1000))
        return _nothing

    def _clock_jumps(self) -> Mend:
        node, seconds = self._any(), self._random.choice((1.5, 5.0, 60.0))
        self._tell(f"the clocks of {node.name} jump by {seconds} s")
        node.clock_jumps(seconds)
        return _nothing

    # Members

    def _may_change_members(self) -> bool:
        """Two of three must answer whoever goes, and one is away at a time."""
        return self._plan.node_count >= 3 and not self._run.operator.is_busy

    def _lost_disk(self) -> Mend | None:
        if not self._may_change_members():
            return None
        leader, node = self._leader(), self._any()
        others = [each for each in self._world.nodes.values() if each not in (leader, node)]
        if node is leader or self._random.random() < 0.3:
            self._lose_disk(node)
            return _nothing
        # At the worst moment: what was acknowledged last was on that disk and on the leader's alone.
        behind = [self._cut_node(other) for other in others]

        def strike() -> None:
            if self._stopped or not self._may_change_members():
                return
            for mend in behind:
                mend()
            self._lose_disk(node)
            reach = self._cut_node(leader)
            self._after(self._plan.fault_length_s, lambda: None if self._stopped else reach())

        self._after(self._random.random(), strike)
        return lambda: [mend() for mend in behind] and None

    def _lose_disk(self, node: Node) -> None:
        self._world.count("disk lost")
        self._tell(f"{node.name} loses its disk")
        node.lose_disk()
        node.start()
        self._run.operator.begin(self._run.operator.replace(node))

    def _member_leaves(self) -> Mend | None:
        if not self._may_change_members():
            return None
        node, operator = self._random.choice((self._any(), self._leader())), self._run.operator
        # Where it is cut off, it does not know of it.
        mend = self._cut_node(node) if self._random.random() < 0.5 else _nothing
        operator.begin(operator.move_out_and_in(node, self._random.choice((0.0, 0.1, 1.0))))
        return mend

    def _member_joins(self) -> Mend | None:
        if not self._may_change_members() or len(self._world.nodes) > self._plan.node_count:
            return None
        node, operator = self._world.add_node(), self._run.operator
        self._tell(f"{node.name} comes as a new one")
        node.variables["MUFAKAT_CACHE_LEASE_MS"] = str(self._random.choice(LEASES_MS))
        self._run.set_links()
        node.start()
        operator.begin(operator.join(node))
        return _nothing

    def _other_lease(self) -> Mend:
        """A node is started anew with another length of read leases."""
        node = self._any()
        node.variables["MUFAKAT_CACHE_LEASE_MS"] = length = str(self._random.choice(LEASES_MS))
        self._tell(f"{node.name} is started anew with leases of {length} ms")
        node.kill()
        node.start()
        return _nothing

    # Limits

    def _few_descriptors(self) -> Mend:
        node = self._any()
        self._tell(f"{node.name} has few descriptors")
        node.host.descriptors_max = DESCRIPTORS_FEW

        def mend() -> None:
            node.host.descriptors_max = DESCRIPTORS_MAX

        return mend


def _nothing() -> None:
    """There is nothing to mend, or it mends itself."""
