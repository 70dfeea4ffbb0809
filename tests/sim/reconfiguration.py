"""Membership changes of a run: servers join as learners under new identities, leave, or replace lost ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core.errors import ConfigurationBusy, ConfigurationRefused, ProposalRefused, VotersSilent
from raft.core.membership import changed, decode_configuration
from raft.core.quorum import quorum_size
from raft.core.types import Configuration, EntryKind, NodeId

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.world import World

MEMBERS_MAX = 8
IDENTITIES_MAX = 16


def configurations_in_force(world: World) -> list[Configuration]:
    """The last committed configuration, and every later one in the log of a node that may come back."""
    committed = world.first_configuration
    for entry in world.truth.entries:
        if entry.kind is EntryKind.CONFIGURATION:
            committed = decode_configuration(entry.data)
    found = [committed]
    for node in world.nodes.values():
        if node.dead:
            continue
        held = list(node.disk.entries)
        for write in node.disk.queue:
            held.extend(write.persist.entries if write.persist else ())
        if node.core is not None:
            held.extend(node.core.log._entries)
        for entry in held:
            if entry.kind is EntryKind.CONFIGURATION and entry.index > world.truth.commit_index:
                found.append(decode_configuration(entry.data))
    return found


def has_living_quorum(world: World, configuration: Configuration, without: NodeId = "") -> bool:
    living = [voter for voter in configuration.voters if voter != without and not world.nodes[voter].dead]
    return len(living) >= quorum_size(len(configuration.voters))


def can_lose(world: World, id: NodeId) -> bool:
    """Whether every configuration in force keeps a quorum without `id`."""
    return all(has_living_quorum(world, one, id) for one in configurations_in_force(world))


class Reconfiguration:
    """Asks leaders for changes, again and again until they are in force."""

    def __init__(self, world: World) -> None:
        self.world = world

    def random_change(self) -> None:
        random = self.world.random
        leader = self._leader()
        if leader is None:
            return
        current = leader.core.configuration
        if random.random() < 0.1 and len(current.voters) > 3:
            # Never allowed: two voters made learners in one change.
            learners = tuple(sorted(current.learners + current.voters[-2:]))
            two_less = Configuration(current.voters[:-2], learners)
            if has_living_quorum(self.world, two_less):
                self._propose(leader, two_less)
        elif random.random() < 0.5 and len(current.members) < MEMBERS_MAX:
            self.add_server()
        else:
            candidates = [leader.id] if random.random() < 0.45 else list(current.members)
            self._remove(leader, random.choice(candidates))

    def change_by(self, leader: SimNode, *, itself: bool) -> None:
        """`leader` removes itself, or somebody."""
        members = leader.core.configuration.members
        if members:
            self._remove(leader, leader.id if itself else self.world.random.choice(members))

    def add_server(self) -> None:
        """A new identity joins: a learner, or straight as a voter."""
        world = self.world
        leader = self._leader()
        if leader is None or len(world.nodes) >= IDENTITIES_MAX:
            return
        current = leader.core.configuration
        node = world.new_node(Configuration())
        configuration = changed(current, add=node.id)
        if world.random.random() < 0.2:
            configuration = changed(configuration, add=node.id)
        if self._propose(leader, configuration):
            world.cover["server added"] += 1
            node.start()
        else:
            node.dead = True

    def replace(self, lost: SimNode, attempts: int = 0) -> None:
        """Remove `lost` and add a new identity in its place; tries again until a leader does it."""
        world = self.world
        if world.clients is None or world.clients.stopped or attempts > 60:
            return
        leader = self._leader()
        if leader is not None:
            current = leader.core.configuration
            if lost.id not in current.members:
                world.cover["lost server replaced under a new identity"] += 1
                self.add_server()
                return
            self._remove(leader, lost.id)
        world.after(world.plan.election_timeout_max_ms * 2_000, self.replace, lost, attempts + 1)

    def _leader(self) -> SimNode | None:
        leaders = self.world.leaders()
        return self.world.random.choice(leaders) if leaders else None

    def _remove(self, leader: SimNode, id: NodeId) -> None:
        world = self.world
        try:
            configuration = changed(leader.core.configuration, remove=id)
        except ConfigurationRefused:
            return
        if not has_living_quorum(world, configuration):
            return
        if self._propose(leader, configuration):
            world.cover["server removed"] += 1
            if id == leader.id:
                world.cover["leader removed itself"] += 1

    def _propose(self, leader: SimNode, configuration: Configuration) -> bool:
        world = self.world
        try:
            leader.core.propose_configuration(configuration, leader.now_ms())
        except ConfigurationRefused as refusal:
            passing = {ConfigurationBusy: "busy", VotersSilent: "too few would answer"}
            world.cover[f"configuration refused: {passing.get(type(refusal), 'never allowed')}"] += 1
            return False
        except ProposalRefused:
            return False
        world.log("configuration", leader.id, configuration)
        leader.finish_step()
        return True
