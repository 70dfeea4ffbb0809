"""A random walk of a group whose disks are wiped: is what docs/membership.md claims so?

Cores without a driver, one seed for everything. Messages are lost, doubled and late; nodes crash and restart; a node
is wiped while its id is unbound, or bound, and comes back as `raft.admission` does it: bound by a leader, or removed
and added again. Checked after every step: one leader in a term, and one entry at each committed place, for ever.
In the end all must come back and agree. `planted` switches off one of the rules, to show that the walk would notice.

    python -m tests.core.admission_walk SEEDS ["what is planted"]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from raft.core import messages
from raft.core.config import CoreConfig
from raft.core.errors import ProposalRefused
from raft.core.membership import changed, described
from raft.core.messages import Message
from raft.core.raft import RaftCore
from raft.core.ready import Persist
from raft.core.types import NOBODY, Configuration, Entry, HardState, NodeId, Role

IDS = ("a", "b", "c")
FOUNDERS = Configuration(IDS)
ANSWERS = (messages.AppendEntriesReply, messages.RequestVoteReply, messages.InstallSnapshotReply)
IN_FLIGHT_MAX = 60
#: Of a walk, before everybody is let back.
STEPS = 500
HEALING_STEPS = 6_000

PLANTED = (
    "an empty node votes at once",
    "an empty node is admitted by an entry that is not committed",
)


class Broken(AssertionError):
    """The walk found two leaders in a term, two entries at one place, or a node that never comes back."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A message on its way, and which life of its sender's disk sent it."""

    message: Message
    incarnation: str


class Node:
    """A disk and, while it runs and was admitted, a core."""

    def __init__(self, id: NodeId) -> None:
        self.id = id
        #: Clocks go at any rate.
        self.now_ms = 0
        self.disks = 0
        self.core: RaftCore | None = None
        self.wipe()

    @property
    def incarnation(self) -> str:
        return f"{self.id}{self.disks}"

    @property
    def is_empty(self) -> bool:
        return self.hard_state == HardState() and not self.entries

    def wipe(self) -> None:
        self.core = None
        self.disks += 1
        self.hard_state, self.entries = HardState(), []

    def write(self, persist: Persist) -> None:
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        if persist.entries:
            del self.entries[persist.entries[0].index - 1 :]
            self.entries.extend(persist.entries)


class Walk:
    def __init__(self, seed: int, planted: str = "") -> None:
        assert not planted or planted in PLANTED
        self.random = Random(seed)
        self.planted = planted
        self.nodes = {id: Node(id) for id in IDS}
        self.flights: list[Flight] = []
        #: Cut off from the others; what they sent and are sent waits.
        self.cut: set[NodeId] = set()
        self.leaders: dict[int, NodeId] = {}
        self.committed: list[Entry] = []
        #: No second disk is lost before the first is made good: only then can everybody be expected to come back.
        self.careful = self.random.random() < 0.5
        #: How rarely a node that runs asks to be bound: most of what can go wrong needs ids that are not.
        self.unbound = self.random.choice((0.5, 0.95, 1.0))
        self.wipes = self.admissions = self.commands = 0
        for node in self.nodes.values():
            self.start(node)

    def run(self, steps: int) -> None:
        moves = (self.deliver,) * 12 + (self.tick,) * 4
        moves += (self.propose, self.propose, self.crash, self.wipe, self.ask, self.ask, self.separate)
        for _ in range(steps):
            self.random.choice(moves)()
        self.heal()

    def heal(self) -> None:
        """Nobody is cut off, wiped or crashed any more: all come back."""
        self.cut.clear()
        for _ in range(HEALING_STEPS):
            self.random.choice((self.deliver,) * 8 + (self.tick, self.ask))()
            if self.agree():
                return
        if self.careful:
            raise Broken("not everybody came back")

    def is_whole(self, node: Node) -> bool:
        """Whether the group could do with this node and one more."""
        core = node.core
        return core is not None and core.is_voter and core.log.last_index >= len(self.committed)

    def agree(self) -> bool:
        """Everybody runs, votes, and has committed the same."""
        cores = [node.core for node in self.nodes.values() if node.core is not None]
        places = {(core.log.commit_index, core.log.last_index, core.is_voter) for core in cores}
        return len(cores) == len(IDS) and places == {(len(self.committed), len(self.committed), True)}

    # Moves

    def tick(self) -> None:
        node = self.any_node()
        node.now_ms += self.random.choice((1, 20, 100, 450))
        if node.core is not None:
            node.core.tick(node.now_ms)
            self.drain(node)

    def deliver(self) -> None:
        if not self.flights:
            return
        at = self.random.randrange(len(self.flights))
        if self.cut & {self.flights[at].message.sender, self.flights[at].message.to}:
            return
        chance = self.random.random()
        # One in five stays behind, to arrive once more; one in ten is lost.
        flight = self.flights[at] if chance < 0.2 else self.flights.pop(at)
        node = self.nodes[flight.message.to]
        if chance > 0.9 or node.core is None or not self.is_wanted(node.core, flight):
            return
        node.core.receive(flight.message, node.now_ms)
        self.drain(node)

    def propose(self) -> None:
        node = self.any_node()
        if node.core is None or node.core.state.role is not Role.LEADER:
            return
        try:
            node.core.propose((b"%d" % self.commands,), node.now_ms)
        except ProposalRefused:
            return
        self.commands += 1
        self.drain(node)

    def crash(self) -> None:
        """And restart; what it had sent may still arrive."""
        if self.random.random() < 0.3:
            self.start(self.any_node())

    def wipe(self) -> None:
        if self.random.random() > 0.2:
            return
        node = self.any_node()
        others = [other for other in self.nodes.values() if other is not node]
        if any(other.core is None for other in others) or (self.careful and not all(map(self.is_whole, others))):
            return
        node.wipe()
        self.wipes += 1
        self.start(node, empty_may_vote=self.planted == "an empty node votes at once")
        # Whom it finds first may be a leader that others have deposed already.
        self.separate()
        self.ask(node)

    def separate(self) -> None:
        """Cut a node off, a leader if there is one, or let it back."""
        leaders = [id for id, node in self.nodes.items() if node.core and node.core.state.role is Role.LEADER]
        if self.cut and self.random.random() < 0.5:
            self.cut.clear()
        elif self.random.random() < 0.5:
            self.cut = {self.random.choice(leaders or IDS)}

    def ask(self, asker: Node | None = None) -> None:
        """An empty node asks a leader; one that runs sees now and then whether it is bound."""
        empty = [node for node in self.nodes.values() if node.core is None]
        asker = asker or (empty or [self.any_node()])[0]
        asked = self.any_node().core
        if asker.core is not None and self.random.random() < self.unbound:
            return
        if asked is None or asked.state.role is not Role.LEADER or (asker.core is None and asker.id == asked.id):
            return
        current = asked.configuration
        bound = current.incarnation_of(asker.id)
        if asker.id not in current.members:
            self.configure(asked, lambda: changed(current, add=asker.id))
        elif not bound:
            self.configure(asked, lambda: described(current, asker.id, incarnation=asker.incarnation))
        elif bound != asker.incarnation:
            self.configure(asked, lambda: changed(current, remove=asker.id))
        elif asker.core is None:
            known = asked.configurations.at(asked.log.commit_index)
            if self.planted == "an empty node is admitted by an entry that is not committed":
                known = current
            if known.incarnation_of(asker.id) == asker.incarnation:
                self.admit(asker, asked)

    # What they need

    def admit(self, node: Node, leader: RaftCore) -> None:
        self.admissions += 1
        node.core = self.new_core(node)
        node.core.admit(leader.state.term, leader.id, node.now_ms)
        self.drain(node)

    def configure(self, leader: RaftCore, wanted) -> None:
        try:
            leader.propose_configuration(wanted(), leader.now_ms)
        except ProposalRefused:
            return
        self.drain(self.nodes[leader.id])

    def start(self, node: Node, *, empty_may_vote: bool = False) -> None:
        # Only at the birth of the group do empty nodes begin by themselves.
        if node.is_empty and node.disks > 1 and not empty_may_vote:
            node.core = None
            return
        node.core = self.new_core(node)

    def new_core(self, node: Node) -> RaftCore:
        return RaftCore(
            CoreConfig(id=node.id, append_entries_max=2),
            FOUNDERS,
            random=self.random,
            now_ms=node.now_ms,
            hard_state=node.hard_state,
            entries=list(node.entries),
        )

    def any_node(self) -> Node:
        return self.nodes[self.random.choice(IDS)]

    def is_wanted(self, core: RaftCore, flight: Flight) -> bool:
        """As `raft.transport.identity` has it."""
        sender = flight.message.sender
        counts = core.configuration.incarnation_of(sender) in ("", flight.incarnation)
        if isinstance(flight.message, ANSWERS):
            return counts
        heard = sender in core.configuration.members and counts
        return heard or core.state.leader in (NOBODY, sender)

    def drain(self, node: Node) -> None:
        core = node.core
        assert core is not None
        for _ in range(100):
            ready = core.take_ready()
            if not ready:
                break
            if ready.committed:
                core.applied(ready.committed[-1].index)
            self.send(node, ready.messages)
            if ready.persist is not None:
                node.write(ready.persist)
                core.persisted(ready.persist, node.now_ms)
            self.send(node, ready.messages_after_persist)
        self.check(core)

    def send(self, node: Node, sent: Sequence[Message]) -> None:
        self.flights.extend(Flight(message, node.incarnation) for message in sent)
        while len(self.flights) > IN_FLIGHT_MAX:
            self.flights.pop(self.random.randrange(len(self.flights)))

    def check(self, core: RaftCore) -> None:
        if core.state.role is Role.LEADER:
            other = self.leaders.setdefault(core.state.term, core.id)
            if other != core.id:
                raise Broken(f"{other} and {core.id} both lead in term {core.state.term}")
        for index in range(1, core.log.commit_index + 1):
            entry = core.log.entry(index)
            if index > len(self.committed):
                self.committed.append(entry)
            elif self.committed[index - 1] != entry:
                raise Broken(f"{core.id} committed {entry}, and {self.committed[index - 1]} was committed before")


def main() -> int:
    seeds, planted = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    wipes = 0
    for seed in range(1, seeds + 1):
        walk = Walk(seed, planted)
        try:
            walk.run(STEPS)
        except Broken as broken:
            print(f"seed {seed}: {broken}")
            return 1
        wipes += walk.wipes
    print(f"{seeds} walks, {wipes} disks wiped: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
