"""What goes wrong, and when: it draws faults by the plan's weights, causes them, and ends them after a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim import reconfiguration
from tests.sim.clients import BURST_MAX
from tests.sim.node import BOUNDARIES, SimNode

if TYPE_CHECKING:
    from tests.sim.world import World


class Nemesis:
    """The source of all faults of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stopped = False
        self._kinds = sorted(world.plan.faults)
        self._weights = [world.plan.faults[kind] for kind in self._kinds]
        self.replacements = reconfiguration.Reconfiguration(world)
        if self._kinds:
            self._schedule()

    def stop(self) -> None:
        """No new faults, and what can be healed is: links, disks, armed crashes."""
        self.stopped = True
        world = self.world
        world.network.heal()
        world.slow_disks.clear()
        quick_us = world.plan.heartbeat_ms * 500
        world.plan.disk_max_us = min(world.plan.disk_max_us, quick_us)
        world.disk_min_us = min(world.disk_min_us, quick_us)
        world.plan.snapshot_write_us = min(world.plan.snapshot_write_us, quick_us)
        for node in world.nodes.values():
            node.crash_armed = ""
            node.disk.full = node.disk.hung = node.disk.fail_next_sync = False

    def _schedule(self) -> None:
        world = self.world
        gap_us = int(world.random.expovariate(1.0) * world.plan.fault_gap_us) + 1
        world.after(gap_us, self._strike)

    def _strike(self) -> None:
        if self.stopped:
            return
        world = self.world
        kind = world.random.choices(self._kinds, self._weights)[0]
        world.log("fault", kind)
        getattr(self, "_" + kind)()
        self._schedule()

    def _length_us(self) -> int:
        return int(self.world.random.expovariate(1.0) * self.world.plan.fault_length_us) + 1

    def _later(self, call, *args) -> None:
        self.world.after(self._length_us(), self._unless_stopped, call, args)

    def _unless_stopped(self, call, args) -> None:
        if not self.stopped:
            call(*args)

    def _some(self, *, up: bool = True) -> SimNode | None:
        nodes = [node for node in self.world.nodes.values() if not node.dead and (node.up or not up)]
        return self.world.random.choice(nodes) if nodes else None

    def _leader(self) -> SimNode | None:
        leaders = self.world.leaders()
        return self.world.random.choice(leaders) if leaders else None

    # Crashes

    def _crash_node(self, node: SimNode | None) -> None:
        if node is not None and node.up:
            self.world.cover["fault: crash"] += 1
            node.crash()

    def restart(self, node: SimNode) -> None:
        if node.core is None and not node.dead:
            self.world.cover["node restarted"] += 1
            node.start()

    def _crash(self) -> None:
        node = self._some()
        self._crash_node(node)
        if node is not None:
            self._later(self.restart, node)

    def _crash_leader(self) -> None:
        node = self._leader()
        self._crash_node(node)
        if node is not None:
            self._later(self.restart, node)

    def _crash_all(self) -> None:
        world = self.world
        world.cover["fault: all nodes crashed at once"] += 1
        for node in list(world.nodes.values()):
            self._crash_node(node)
            self._later(self.restart, node)

    def _crash_at_boundary(self) -> None:
        node = self._leader() if self.world.random.random() < 0.5 else self._some()
        if node is not None:
            node.crash_armed = self.world.random.choice(BOUNDARIES)
            self._later(self.restart_if_down, node)

    def restart_if_down(self, node: SimNode) -> None:
        node.crash_armed = ""
        self.restart(node)

    # Pauses

    def _pause_node(self, node: SimNode | None) -> None:
        if node is None or not node.runs:
            return
        self.world.cover["fault: pause"] += 1
        node.pause()
        self._later(node.resume)

    def _pause(self) -> None:
        self._pause_node(self._some())

    def _pause_leader(self) -> None:
        self._pause_node(self._leader())

    # The network

    def _cut(self, links: list[tuple[str, str]]) -> None:
        cuts = self.world.network.cuts
        fresh = [link for link in links if link not in cuts]
        cuts.update(fresh)
        self._later(cuts.difference_update, fresh)
        if self.world.random.random() < 0.3:
            for sender, to in fresh:
                self._tell_lost(sender, to)

    def _tell_lost(self, sender: str, to: str) -> None:
        node = self.world.nodes[to]
        if node.runs:
            self.world.cover["connection loss was told truly"] += 1
            self.world.after(1_000, node.on_peer_lost, sender)

    def _cut_node(self) -> None:
        node = self._leader() if self.world.random.random() < 0.5 else self._some()
        if node is None:
            return
        self.world.cover["fault: node cut off"] += 1
        others = [id for id in self.world.nodes if id != node.id]
        self._cut([(node.id, id) for id in others] + [(id, node.id) for id in others])

    def _cut_one_way(self) -> None:
        random, ids = self.world.random, list(self.world.nodes)
        node = self._leader() if random.random() < 0.5 else self._some()
        if node is None or len(ids) < 2:
            return
        self.world.cover["fault: one-way cut"] += 1
        others = [id for id in ids if id != node.id]
        others = random.sample(others, random.randint(1, len(others)))
        outgoing = random.random() < 0.5
        self._cut([(node.id, id) if outgoing else (id, node.id) for id in others])

    def _cut_halves(self) -> None:
        random, ids = self.world.random, list(self.world.nodes)
        if len(ids) < 2:
            return
        self.world.cover["fault: cluster cut in two"] += 1
        side = set(random.sample(ids, random.randint(1, len(ids) - 1)))
        self._cut([(a, b) for a in ids for b in ids if (a in side) != (b in side)])

    def _swizzle(self) -> None:
        """Cut nodes off one after the other, and bring them back in another order."""
        world = self.world
        ids = list(world.nodes)
        chosen = world.random.sample(ids, world.random.randint(1, len(ids)))
        world.cover["fault: swizzle"] += 1
        for position, id in enumerate(chosen):
            links = [(id, other) for other in ids if other != id] + [(o, id) for o in ids if o != id]
            delay_us = position * world.plan.fault_length_us // 4
            world.after(delay_us, self._unless_stopped, self._cut, (links,))

    def _rivals(self) -> None:
        """One follower with a slow disk stays with each leader while that is cut off from the rest: it collects
        what rival leaders left behind."""
        victim = self._some()
        if victim is not None and len(self.world.nodes) > 4:
            self.world.cover["fault: rival leaders"] += 1
            rounds = self.world.random.randint(2, 6)
            if self.world.random.random() < 0.6:
                victim.disk.hung = True
                hung_us = rounds * self.world.plan.election_timeout_max_ms * 1_500
                self.world.after(hung_us, self._unless_stopped, self._free_disk, (victim,))
            self._rivals_round(victim, rounds, [])

    def _rivals_round(self, victim: SimNode, rounds: int, cut: list[tuple[str, str]]) -> None:
        world = self.world
        world.network.cuts.difference_update(cut)
        leaders = [node for node in world.leaders() if node is not victim]
        if rounds == 0 or not leaders:
            return
        leader = max(leaders, key=lambda node: node.core.state.term)
        pair, ids = {leader.id, victim.id}, list(world.nodes)
        cut = [(a, b) for a in ids for b in ids if (a in pair) != (b in pair)]
        cut = [link for link in cut if link not in world.network.cuts]
        world.network.cuts.update(cut)
        if world.clients is not None:
            world.clients.burst(leader, world.random.randint(1, 4))
        delay_us = world.plan.election_timeout_max_ms * world.random.choice((1_200, 1_800, 2_500))
        world.after(delay_us, self._unless_stopped, self._rivals_round, (victim, rounds - 1, cut))

    def _left_behind(self) -> None:
        """A follower is cut off while the others write much: it needs a snapshot when it returns."""
        leader = self._leader()
        others = [node for node in self.world.nodes.values() if node.up and not node.leads]
        if leader is None or not others:
            return
        self.world.cover["fault: follower left behind"] += 1
        node, ids = self.world.random.choice(others), list(self.world.nodes)
        self._cut([(a, b) for a in ids for b in ids if (a == node.id) != (b == node.id)])
        for wave in range(4):
            delay_us = wave * self.world.plan.fault_length_us // 5
            self.world.after(delay_us, self._unless_stopped, self._wave, ())

    def _wave(self) -> None:
        leader = self._leader()
        if leader is not None and self.world.clients is not None:
            self.world.clients.burst(leader, self.world.random.randint(5, 20))

    def _peer_lost(self) -> None:
        """A node hears wrongly that a connection broke."""
        node = self._some()
        if node is None or not node.runs:
            return
        leader = node.core.state.leader
        anyone = self.world.random.choice(list(self.world.nodes))
        peer = leader if leader and self.world.random.random() < 0.7 else anyone
        if peer != node.id:
            self.world.cover["fault: connection loss was told falsely"] += 1
            node.on_peer_lost(peer)

    # Disks

    def _fsync_error(self) -> None:
        node = self._some()
        if node is not None:
            node.disk.fail_next_sync = True
            self._later(self.restart, node)

    def _slow_disk(self) -> None:
        node = self._leader() if self.world.random.random() < 0.5 else self._some()
        if node is not None:
            self.world.cover["fault: slow disk"] += 1
            slow = self.world.slow_disks
            slow[node.id] = self.world.plan.election_timeout_min_ms * self.world.random.choice((500, 2_000))
            self._later(slow.pop, node.id, None)

    def _disk_hang(self) -> None:
        node = self._leader() if self.world.random.random() < 0.6 else self._some()
        if node is not None:
            self.world.cover["fault: disk hangs"] += 1
            node.disk.hung = True
            self._later(self._free_disk, node)

    def _disk_full(self) -> None:
        node = self._some()
        if node is not None:
            node.disk.full = True
            self._later(self._free_disk, node)

    def _free_disk(self, node: SimNode) -> None:
        node.disk.full = node.disk.hung = False

    def _bit_flip(self) -> None:
        """What a node reads back is damaged: it must refuse, for good. Never on more than a minority."""
        node = self._some()
        if node is None or not reconfiguration.can_lose(self.world, node.id):
            return
        self.world.cover["fault: bit flip in what is read back"] += 1
        node.crash()
        node.disk.damaged = True
        node.start()
        if self.world.random.random() < 0.7:
            self.replacements.replace(node)

    # The cluster

    def _membership(self) -> None:
        self.replacements.random_change()

    def _lonely_change(self) -> None:
        """A leader that nobody hears changes the configuration, its own removal most of all, and dies: the change
        stands in its log alone (known bug 82)."""
        leader = self._leader()
        if leader is None or len(self.world.nodes) < 2:
            return
        self.world.cover["fault: configuration changed by a leader that nobody hears"] += 1
        self._cut([(leader.id, id) for id in self.world.nodes if id != leader.id])
        self.replacements.change_by(leader, itself=self.world.random.random() < 0.7)
        delay_us = self.world.plan.disk_max_us + self.world.plan.heartbeat_ms * 500
        self.world.after(delay_us, self._unless_stopped, self._crash_node, (leader,))
        self._later(self.restart, leader)

    def _transfer(self) -> None:
        node = self._leader()
        if node is None:
            return
        others = [id for id in node.core.configuration.members if id != node.id]
        if others and node.transfer(self.world.random.choice(others)):
            self.world.cover["leadership transfer started"] += 1

    def _burst(self) -> None:
        """Many proposals at once: batches, flow control, the bound of the uncommitted tail."""
        node = self._leader()
        if node is not None and self.world.clients is not None:
            self.world.cover["burst of proposals"] += 1
            self.world.clients.burst(node, self.world.random.randint(5, BURST_MAX))
