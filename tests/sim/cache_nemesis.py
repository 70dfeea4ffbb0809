"""What goes wrong in the lease simulation: the ordinary faults, and short stories in which a lease and a change of
the line, of the leader or of the clock meet.

The rule of the file: a story breaks things and repairs them again; it never looks at what the code believes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING

from raft.core.types import Role
from tests.sim.cache_node import Node

if TYPE_CHECKING:
    from tests.sim.cache_cluster import World

Way = tuple[str, str]


class Nemesis:
    """Faults of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance: Random = world.random
        #: Ways on which nothing gets through; a way may be cut twice over.
        self._cut: Counter[Way] = Counter()
        #: Nodes whose messages are slow, and by how much at most.
        self._slow: dict[str, float] = {}
        #: How often each thing was done.
        self.done: Counter[str] = Counter()
        self._stories: tuple[Callable[[], None], ...] = (
            self.crash,
            self.freeze,
            self.pause_after_clock,
            self.cut_one,
            self.cut_leader_off,
            self.cut_leader_off,
            self.outlast_a_lease,
            self.outlast_a_lease,
            self.be_unheard,
            self.lag_then_cut,
            self.mute_a_writer,
            self.transfer,
        )

    def begin(self) -> None:
        """A story now and another one after a while."""
        story = self.chance.choice(self._stories)
        if self.chance.random() < 0.8:
            self.world.everybody_reads()
            self.world.at(self.chance.uniform(5, 40), story)
        else:
            story()
        self.world.at(self.chance.uniform(150, 1_500), self.begin)

    # What the network asks

    def is_cut(self, sender: str, to: str) -> bool:
        return self._cut[sender, to] > 0

    def delay_ms(self, sender: str, to: str) -> float:
        """A further delay of a message."""
        slow = self._slow.get(sender, 0.0) or self._slow.get(to, 0.0)
        return self.chance.uniform(0, slow) if slow else 0.0

    # Ordinary faults

    def crash(self, node: Node | None = None) -> None:
        node = node or self._someone()
        if not node.alive:
            return
        self.done["crash"] += 1
        node.alive = False
        self._lose(node.id, 0.7)
        self.world.at(self._length_ms(), lambda: self._restart(node))

    def freeze(self, node: Node | None = None) -> None:
        self.done["freeze"] += 1
        (node or self._someone()).frozen_until = self.world.time_ms + self._length_ms()

    def pause_after_clock(self) -> None:
        self.done["pause"] += 1
        self._someone().pause_ms = self._length_ms()

    def cut_one(self) -> None:
        """A node hears nobody, or nobody hears it, or both, for some of the others or for all."""
        self.done["cut"] += 1
        node = self._someone().id
        others = [id for id in self.world.ids if id != node]
        self.chance.shuffle(others)
        others = others[: self.chance.randint(1, len(others))]
        self._cut_for(self._ways([node], others), self._length_ms())
        self._lose(node, 0.3)

    def transfer(self) -> None:
        leader = self._leader()
        if leader is not None and leader.runs:
            self.done["transfer"] += 1
            to = self.chance.choice([id for id in self.world.ids if id != leader.id])
            leader.core.transfer_leadership(to, leader.now_ms())

    # Stories

    def cut_leader_off(self) -> None:
        """The leader is left with less than a majority: alone, or with a holder on its side. The others elect and
        write, while the clients on its side go on."""
        leader = self._leader()
        if leader is None:
            return
        self.done["leader cut off"] += 1
        others = [id for id in self.world.ids if id != leader.id]
        self.chance.shuffle(others)
        # Of three, one is a minority; of five, two.
        company = others[: self.chance.choice((0, 1, 1)) if len(others) > 2 else 0]
        away = [id for id in others if id not in company]
        lease_ms = self.world.plan.lease_ms
        length_ms = self.chance.uniform(0.8, 3.5) * lease_ms
        side = [leader.id, *company]
        self._cut_for({(a, b) for a in side for b in away} | {(b, a) for a in side for b in away}, length_ms)
        if self.chance.random() < 0.6:
            self.world.at(self.chance.uniform(0, 100), lambda: self._lose(leader.id, 1.0, away))
        writer = self.world.nodes[away[0]]
        for leases in (0.8, 1.3, 1.8, 2.5):
            self.world.at(leases * lease_ms, lambda: self.world.writes_through(writer))

    def outlast_a_lease(self) -> None:
        """A holder is away until its lease has run out, and comes back lagging; just then the leader goes, or
        something is written."""
        leader = self._leader()
        holder = self._someone(but=leader)
        self.done["lease outlasted"] += 1
        length_ms = self.chance.uniform(0.9, 1.5) * self.world.plan.lease_ms
        others = [id for id in self.world.ids if id != holder.id]
        self._cut_for(self._ways([holder.id], others, one_way=0.2), length_ms)
        if leader is None:
            return
        just_then = self.chance.choice(
            (
                self.transfer,
                lambda: self.crash(leader),
                lambda: self.freeze(leader),
                lambda: self.world.writes_through(self._someone(but=holder)),
            )
        )
        self.world.at(max(0.0, length_ms + self.chance.uniform(-120, 30)), just_then)

    def be_unheard(self) -> None:
        """A holder hears all and nobody hears it until its lease has run out. As it is heard again, something is
        written that reaches it late."""
        holder = self._someone(but=self._leader())
        self.done["unheard"] += 1
        length_ms = self.chance.uniform(1.05, 1.3) * self.world.plan.lease_ms
        self._cut_for({(holder.id, other) for other in self.world.ids if other != holder.id}, length_ms)

        def slow() -> None:
            self._slow[holder.id] = self.chance.uniform(20, 150)
            self.world.at(250, lambda: self._slow.pop(holder.id, None))

        self.world.at(length_ms - 20, slow)
        for after_ms in range(-20, 80, 10):
            self.world.at(length_ms + after_ms, lambda: self.world.writes_through(self._someone(but=holder)))

    def lag_then_cut(self) -> None:
        """What is sent to a holder and by it takes long; then nothing new gets through, while the old arrives."""
        holder = self._someone(but=self._leader())
        self.done["lag"] += 1
        self._slow[holder.id] = self.chance.uniform(100, 0.8 * self.world.plan.lease_ms)
        lag_ms = self.chance.uniform(200, 600)

        def cut() -> None:
            self._slow.pop(holder.id, None)
            others = [id for id in self.world.ids if id != holder.id]
            self._cut_for(self._ways([holder.id], others, one_way=0.3), self._length_ms())

        self.world.at(lag_ms, cut)

    def mute_a_writer(self) -> None:
        """A node can send and hears nothing: what it forwards is done, and it is the last to know."""
        node = self._someone(but=self._leader())
        self.done["mute"] += 1
        ways = {(other, node.id) for other in self.world.ids if other != node.id}
        self.world.at(self.chance.uniform(0, 20), lambda: self.world.writes_through(node))
        self._cut_for(ways, self.chance.uniform(0.2, 1.2) * self.world.plan.lease_ms)
        self.world.writes_through(node)

    # Helpers

    def _length_ms(self) -> float:
        """Shorter and longer than a lease and an election."""
        return self.chance.choice((0.15, 0.5, 0.9, 1.05, 1.2, 2.5)) * self.world.plan.lease_ms

    def _leader(self) -> Node | None:
        leaders = [
            node for node in self.world.nodes.values() if node.core.state.role is Role.LEADER and node.alive
        ]
        return max(leaders, key=lambda node: node.core.state.term, default=None)

    def _someone(self, *, but: Node | None = None) -> Node:
        """The leader more often than others, unless it is the one that is meant not to be."""
        leader = self._leader()
        if leader is not None and leader is not but and self.chance.random() < 0.4:
            return leader
        return self.chance.choice([node for node in self.world.nodes.values() if node is not but])

    def _ways(self, side: list[str], others: list[str], *, one_way: float = 0.5) -> set[Way]:
        there = {(a, b) for a in side for b in others}
        back = {(b, a) for a in side for b in others}
        if self.chance.random() < one_way:
            return self.chance.choice((there, back))
        return there | back

    def _cut_for(self, ways: Iterable[Way], length_ms: float) -> None:
        # In one order, whatever the hash seed.
        ways = sorted(ways)
        self._cut.update(ways)
        self.world.at(length_ms, lambda: self._cut.subtract(ways))

    def _lose(self, lost: str, probability: float, told: list[str] | None = None) -> None:
        """The others' connections to a node break."""
        if self.chance.random() < probability:
            for id in self.world.ids if told is None else told:
                if id != lost:
                    self.world.at(
                        self.chance.uniform(0, 30), lambda id=id: self.world.nodes[id].peer_lost(lost)
                    )

    def _restart(self, node: Node) -> None:
        node.alive = True
        node.start()
