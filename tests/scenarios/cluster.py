"""A cluster that does only what a scenario says: every message flies until it is delivered or dropped, every node has
a clock of its own, and everything that changes is told in one line each."""

from collections.abc import Callable, Iterable
from typing import Any

from raft.core.messages import InstallSnapshot, Message
from raft.core.types import Configuration, NodeId, Role
from tests.core.replica import Disk, Replica
from tests.scenarios.telling import tell_message, tell_role

#: Rounds of `settle` after which something must be wrong.
ROUNDS_MAX = 500
#: Step of `run`: how often all nodes tick, and how long a message takes.
STEP_MS = 10

Chosen = Callable[[Message], bool]


class Cluster:
    """Nodes by id, the messages on their way, and the trace of what happened since it was last taken."""

    def __init__(self, configuration: Configuration, **config: Any) -> None:
        self.nodes: dict[NodeId, Replica] = {}
        self.configuration = configuration
        self._config = config
        self.flying: list[Message] = []
        self.down: set[NodeId] = set()
        #: One-way links that lose everything.
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self._trace: list[str] = []
        #: What was last told of each node.
        self._seen: dict[NodeId, dict[str, Any]] = {}
        for id in configuration.members:
            self.add(id, configuration)

    def add(self, id: NodeId, configuration: Configuration, disk: Disk | None = None) -> None:
        """A node with this disk; another of that id is replaced."""
        seed = sum(map(ord, id))
        self.nodes[id] = Replica(id, configuration, disk=disk, seed=seed, **self._config)
        self._seen[id] = _look(self.nodes[id], {})

    def take_trace(self) -> list[str]:
        taken, self._trace = self._trace, []
        return taken

    def tell(self, line: str) -> None:
        self._trace.append(line)

    # Doing something at a node

    def at(self, id: NodeId, action: Callable[[Replica], object]) -> None:
        """Do it, tell what changed, and let what it sends fly."""
        node = self.nodes[id]
        assert id not in self.down, f"{id} is down"
        action(node)
        self._tell_changes(id)
        for state in node.read_states:
            told = f"may be served at {state.index}" if state.index else "is refused"
            self.tell(f"{id}: read {state.context} {told}")
        node.read_states = []
        self.flying.extend(m for m in node.sent() if (m.sender, m.to) not in self.cuts)

    def _tell_changes(self, id: NodeId) -> None:
        before, after = self._seen[id], _look(self.nodes[id], self._seen[id])
        if before is after:
            return
        self._seen[id] = after
        if before["role"] != after["role"]:
            self.tell(f"{id}: {after['role']}")
        old, new = before["log"], after["log"]
        if before["first"] == after["first"] and old != new:
            same = next((i for i, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), None)
            same = min(len(old), len(new)) if same is None else same
            cut = f"cuts {len(old) - same}, " if len(old) > same else ""
            added = " ".join(f"{index}/{term}" for index, term in new[same:])
            self.tell(f"{id}: {cut}appends {added}" if added else f"{id}: {cut}appends nothing")
        elif before["first"] != after["first"]:
            self.tell(f"{id}: log begins at {after['first']}, ends at {after['last']}")
        if before["voters"] != after["voters"]:
            self.tell(f"{id}: {after['voters']}")
        if before["commit"] != after["commit"]:
            self.tell(f"{id}: commits up to {after['commit']}")

    # The network

    def deliver(self, chosen: Chosen, count: int | None = None) -> bool:
        """Deliver the chosen messages that fly now; not what they cause. False where there was none."""
        moving = [message for message in self.flying if chosen(message)][:count]
        for message in moving:
            self.flying.remove(message)
            self._arrive(message)
        return bool(moving)

    def settle(self, chosen: Chosen) -> None:
        """Deliver until none of the chosen flies any more."""
        for _ in range(ROUNDS_MAX):
            if not self.deliver(chosen):
                return
        raise AssertionError("the cluster does not come to rest")

    def drop(self, chosen: Chosen, count: int | None = None) -> None:
        for message in [message for message in self.flying if chosen(message)][:count]:
            self.flying.remove(message)
            self.tell(f"lost {tell_message(message)}")
            self._report_snapshot(message, delivered=False)

    def duplicate(self, chosen: Chosen) -> None:
        self.flying.extend([message for message in self.flying if chosen(message)])

    def _arrive(self, message: Message) -> None:
        to = message.to
        if to in self.down or to not in self.nodes or (message.sender, to) in self.cuts:
            self._report_snapshot(message, delivered=False)
            return
        self.tell(tell_message(message))
        self.at(to, lambda node: node.receive(message))
        self._report_snapshot(message, delivered=True)

    def _report_snapshot(self, message: Message, *, delivered: bool) -> None:
        """A driver must tell its core how streaming the data ended."""
        if isinstance(message, InstallSnapshot) and message.sender not in self.down:
            sender = self.nodes[message.sender]
            sender.core.snapshot_sent(message.to, delivered=delivered, now_ms=sender.now_ms)
            self.at(message.sender, Replica.drain)

    # Time

    def run(self, milliseconds: int) -> None:
        """Time passes everywhere alike, messages take one step; only what changes is told, not what is said."""
        for _ in range(milliseconds // STEP_MS):
            moving, self.flying = self.flying, []
            kept = self.take_trace()
            for message in moving:
                self._arrive(message)
            for id in self.up:
                node = self.nodes[id]
                node.now_ms += STEP_MS
                if node.core.next_deadline_ms() <= node.now_ms:
                    self.at(id, lambda node: node.pass_ms(0))
            changes = [line for line in self.take_trace() if " -> " not in line]
            self._trace = kept + changes

    @property
    def up(self) -> Iterable[NodeId]:
        return [id for id in sorted(self.nodes) if id not in self.down]

    def crash(self, id: NodeId) -> None:
        self.down.add(id)

    def restart(self, id: NodeId) -> None:
        self.down.discard(id)
        self.nodes[id].disk_holds = False
        self.nodes[id].restart()
        restarted = _look(self.nodes[id], {})
        self._seen[id] = {**self._seen[id], "key": None, "role": "", "commit": restarted["commit"]}
        self._tell_changes(id)

    # Looking

    def show(self, id: NodeId) -> list[str]:
        """One line for a node, and for a leader one for each peer."""
        node = self.nodes[id]
        log = node.core.log
        terms = " ".join(map(str, node.log_terms)) or "empty"
        lines = [
            f"{id}: {tell_role(node)}; log from {log.first_index}: {terms}; "
            f"committed {log.commit_index}, durable {log.durable_index}"
        ]
        if node.role is Role.LEADER:
            for peer, progress in sorted(node.core.progress.items()):
                inflight = f", {progress.inflight_messages} in flight" if progress.inflight_messages else ""
                paused = ", paused" if progress.probe_sent else ""
                lines.append(
                    f"  {peer}: {progress.state.value}, match {progress.match_index}, "
                    f"next {progress.next_index}{inflight}{paused}"
                )
        return lines


def _look(node: Replica, before: dict[str, Any]) -> dict[str, Any]:
    """What is told when it changes; `before` itself where nothing did."""
    log, state = node.core.log, node.core.state
    configuration = node.core.configuration
    ends = (log.first_index, log.last_index, log.last_term, log.commit_index)
    key = (state.role, state.leader, state.hard_state, ends, configuration)
    if before.get("key") == key:
        return before
    learners = f", learners {' '.join(configuration.learners)}" if configuration.learners else ""
    return {
        "key": key,
        "role": tell_role(node),
        "first": log.first_index,
        "last": log.last_index,
        "log": [(index, log.term_at(index)) for index in range(log.first_index, log.last_index + 1)],
        "commit": log.commit_index,
        "voters": f"voters {' '.join(configuration.voters) or 'nobody'}{learners}",
    }
