"""Runs scenario files: commands with the trace that they must leave.

    # A comment.
    $ nodes a b c                     a command
    $ timeout a                       another; its trace follows, indented
      a: pre-candidate, term 0
    $ quietly settle                  one whose trace is of no interest

`python -m tests.scenarios FILE...` prints what a file's commands do now; with `--rewrite` it writes that into the
file, to be read before it is committed. The commands are the methods `do_x` of `Scenario`; README.md tells them all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from raft.core.errors import ProposalRefused
from raft.core.membership import changed
from raft.core.messages import Message
from raft.core.types import Configuration, HardState, SnapshotMeta
from tests.core.replica import Disk, Replica, entries
from tests.scenarios.cluster import Chosen, Cluster
from tests.scenarios.telling import kind_of, tell_message


@dataclass
class Step:
    """One command of a file."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)


def read_steps(text: str) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            steps.append(Step(number, line[2:].strip()))
        elif line.startswith("  "):
            assert steps, f"line {number}: a trace before the first command"
            steps[-1].expected.append(line[2:])
        else:
            assert not line.strip() or line.startswith("#"), (
                f"line {number}: neither command, trace nor comment"
            )
    return steps


def rewrite(path: Path) -> str:
    """The file with the traces that its commands leave now."""
    scenario, lines = Scenario(), []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("  "):
            continue
        lines.append(line)
        if line.startswith("$ "):
            lines.extend("  " + told for told in scenario.run(line[2:].strip()))
    return "\n".join(lines) + "\n"


class Scenario:
    """A cluster and the commands that move it."""

    def __init__(self) -> None:
        self.cluster = Cluster(Configuration())

    def run(self, command: str) -> list[str]:
        """Carry out one command; the trace that it leaves."""
        words = command.split()
        quiet = words[0] == "quietly"
        if quiet:
            del words[0]
        do: Callable[..., None] = getattr(self, "do_" + words[0].replace("-", "_"))
        do(*words[1:])
        trace = self.cluster.take_trace()
        return [] if quiet else trace

    # Making a cluster

    def do_nodes(self, *words: str) -> None:
        """`nodes a b c [learners d e] [setting=value ...]`"""
        options = dict(word.split("=") for word in words if "=" in word)
        ids = [word for word in words if "=" not in word]
        voters, learners = ids, []
        if "learners" in ids:
            at = ids.index("learners")
            voters, learners = ids[:at], ids[at + 1 :]
        config = {name: int(value) for name, value in options.items()}
        self.cluster = Cluster(Configuration(tuple(voters), tuple(learners)), **config)

    def do_disk(self, id: str, *words: str) -> None:
        """`disk a term=2 [vote=b] [log=1,1,2] [snapshot=5/1]`: start this node anew on such a disk."""
        given = dict(word.split("=") for word in words)
        cluster = self.cluster
        snapshot = None
        if "snapshot" in given:
            index, term = map(int, given["snapshot"].split("/"))
            snapshot = SnapshotMeta(index, term, 0, cluster.configuration)
        terms = [int(term) for term in given.get("log", "").split(",") if term]
        log = entries(*terms, first=1 + (snapshot.index if snapshot else 0))
        disk = Disk(HardState(int(given.get("term", 0)), given.get("vote", "")), log, snapshot)
        cluster.add(id, cluster.configuration, disk)

    def do_join(self, id: str) -> None:
        """`join d`: a new server that knows no configuration."""
        self.cluster.add(id, Configuration())

    # Time

    def do_timeout(self, id: str) -> None:
        """`timeout a`: a's election timeout passes on its own clock."""
        self.cluster.at(id, Replica.time_out)

    def do_tick(self, id: str, milliseconds: str) -> None:
        """`tick a 50`: time passes for a alone, deadline by deadline."""
        self.cluster.at(id, lambda node: node.run_ms(int(milliseconds)))

    def do_run(self, milliseconds: str) -> None:
        """`run 2000`: time passes for all, messages are delivered; tells changes only."""
        self.cluster.run(int(milliseconds))

    def do_stall(self, id: str, milliseconds: str) -> None:
        """`stall a 3000`: the process stood still for so long, and notices."""

        def stand_still(node: Replica) -> None:
            node.now_ms += int(milliseconds)
            node.core.stalled(node.now_ms)
            node.drain()

        self.cluster.at(id, stand_still)

    # The network

    def do_deliver(self, *words: str) -> None:
        """`deliver [FILTER ...]`: what flies now."""
        chosen, count = _choose(words)
        self.cluster.deliver(chosen, count)

    def do_settle(self, *words: str) -> None:
        """`settle [FILTER ...]`: until nothing of it flies."""
        chosen, _ = _choose(words)
        self.cluster.settle(chosen)

    def do_drop(self, *words: str) -> None:
        """`drop [FILTER ...]`"""
        chosen, count = _choose(words)
        self.cluster.drop(chosen, count)

    def do_duplicate(self, *words: str) -> None:
        """`duplicate [FILTER ...]`"""
        self.cluster.duplicate(_choose(words)[0])

    def do_flying(self) -> None:
        """`flying`: tell what is on its way."""
        for message in self.cluster.flying:
            self.cluster.tell(tell_message(message))

    def do_cut(self, *words: str) -> None:
        """`cut a->b`, `cut a b` (both ways), `cut a` (from everybody)"""
        self.cluster.cuts |= self._links(words)

    def do_heal(self, *words: str) -> None:
        """`heal` (everything) or as `cut`"""
        self.cluster.cuts = self.cluster.cuts - self._links(words) if words else set()

    def do_lost(self, id: str, peer: str) -> None:
        """`lost b a`: b notices that its connection from a broke."""

        def notice(node: Replica) -> None:
            node.core.peer_lost(peer, node.now_ms)
            node.drain()

        self.cluster.at(id, notice)

    def _links(self, words: tuple[str, ...]) -> set[tuple[str, str]]:
        if len(words) == 1 and "->" in words[0]:
            one, other = words[0].split("->")
            return {(one, other)}
        if len(words) == 1:
            others = [id for id in self.cluster.nodes if id != words[0]]
            return {pair for other in others for pair in ((words[0], other), (other, words[0]))}
        one, other = words
        return {(one, other), (other, one)}

    # What clients and operators do

    def do_propose(self, id: str, *commands: str) -> None:
        """`propose a x y`"""
        self._ask(id, lambda node: node.propose(*(command.encode() for command in commands)))

    def do_read(self, id: str, context: str) -> None:
        """`read a 7`: a linearizable read under this context"""
        self.cluster.at(id, lambda node: node.read(int(context)))

    def do_transfer(self, id: str, to: str) -> None:
        """`transfer a b`"""

        def transfer(node: Replica) -> None:
            if not node.transfer(to):
                self.cluster.tell(f"{id}: no transfer")

        self.cluster.at(id, transfer)

    def do_members(self, id: str, change: str, server: str) -> None:
        """`members a add d`, `members a remove d`; adding a learner promotes it"""

        def configure(node: Replica) -> None:
            arguments = {"remove": server} if change == "remove" else {"add": server}
            node.configure(changed(node.core.configuration, **arguments))

        self._ask(id, configure)

    def _ask(self, id: str, action: Callable[[Replica], object]) -> None:
        try:
            self.cluster.at(id, action)
        except ProposalRefused as refusal:
            self.cluster.tell(f"{id}: refused, {type(refusal).__name__}")

    # Disks and power

    def do_hold(self, id: str) -> None:
        """`hold a`: its disk answers no more"""
        self.cluster.nodes[id].disk_holds = True

    def do_sync(self, id: str, count: str = "") -> None:
        """`sync a [1]`: its disk answers, for so many writes or for all and from now on"""

        def sync(node: Replica) -> None:
            node.disk_holds = bool(count)
            node.sync(int(count) if count else None)

        self.cluster.at(id, sync)

    def do_crash(self, id: str) -> None:
        """`crash a`: what its disk had not answered is gone"""
        self.cluster.crash(id)

    def do_restart(self, id: str) -> None:
        """`restart a`"""
        self.cluster.restart(id)

    def do_compact(self, id: str, retain: str = "0") -> None:
        """`compact a [2]`: a takes a snapshot of all it applied and keeps so many entries"""
        self.cluster.at(id, lambda node: node.take_snapshot(retain=int(retain)))

    # Looking

    def do_show(self, *ids: str) -> None:
        """`show [a ...]`"""
        for id in ids or self.cluster.up:
            for line in self.cluster.show(id):
                self.cluster.tell(line)


def _choose(words: tuple[str, ...]) -> tuple[Chosen, int | None]:
    """Filters: `a->b`, `a->` (from a), `->b` (to b), a kind of message, and `1` for the first of them only."""
    links = [word.split("->") for word in words if "->" in word]
    count = next((int(word) for word in words if word.isdigit()), None)
    kinds = {word for word in words if "->" not in word and not word.isdigit()}

    def chosen(message: Message) -> bool:
        by_link = not links or any(
            sender in ("", message.sender) and to in ("", message.to) for sender, to in links
        )
        return by_link and (not kinds or kind_of(message) in kinds)

    return chosen, count
