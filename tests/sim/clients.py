"""Clients: processes that send commands and reads to any node, retry with an idempotency key, and keep a history.

The check that runs all the time uses the log, which the simulator can see. An operation that was answered took effect
at an index of the log, and that index must be after everything that was answered before the operation was called.
That is linearizability of the whole state, at the cost of one comparison. The histories are for the checker, which
sees only calls and answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raft.core.errors import NotLeading, ProposalRefused, TooMuchUncommitted, TransferInProgress
from raft.core.ready import ReadState
from raft.core.types import Entry, Index, Term
from tests.sim.observer import Violation
from tests.sim.workloads import Workload

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.world import World

#: Attempts of one operation before its client gives up and calls it unknown.
ATTEMPTS_MAX = 6
#: Commands proposed at once by the nemesis.
BURST_MAX = 40
#: The process that stands for the simulator's own probes.
PROBE = 0


@dataclass(slots=True)
class Operation:
    """One operation of one client, over all its attempts."""

    process: int
    op: str
    key: str
    value: Any
    #: None for reads.
    command: bytes | None
    call: int
    #: Highest index answered to anyone before the call.
    floor: Index
    attempts: int = 0
    #: An attempt ended without a word: the command may be in some log.
    doubtful: bool = False
    done: bool = False
    proposed_terms: set[Term] = field(default_factory=set)


@dataclass(slots=True)
class ReadAsked:
    """A read that waits for its index, or for its index to be applied."""

    operation: Operation
    attempt: int
    #: Highest commit index anywhere when it was asked.
    floor: Index
    index: Index = 0


class Clients:
    """All clients of a run, and the part of the driver that answers them."""

    def __init__(self, world: World, workload: Workload) -> None:
        self.world = world
        self.workload = workload
        self.history: list[dict[str, Any]] = []
        self._open: dict[int, Operation] = {}
        self.probe_results: list[dict[str, Any]] = []
        self.acknowledged = 0
        #: Highest log index behind any answer so far.
        self.answered_index: Index = 0
        #: (node, life) -> index -> [(term, operation, attempt)] of commands that wait to be applied there.
        self._waiting: dict[tuple[str, int], dict[Index, list[tuple[Term, Operation, int]]]] = {}
        #: Reads that wait for a ReadState, by context; unique over the whole run.
        self._reads: dict[int, tuple[tuple[str, int], ReadAsked]] = {}
        #: Reads that have their index but not the applied state, by (node, life).
        self._read_later: dict[tuple[str, int], list[ReadAsked]] = {}
        self._contexts = 0
        self._processes = 0
        self.stopped = False
        #: Wait twice as long at each further attempt, as good clients do: else more comes in than a slow group can
        #: carry out, and nothing is served in time though all is well (seed 3116).
        self.patient = False
        for _ in range(world.plan.client_count):
            self._processes += 1
            world.after(world.random.randint(0, world.plan.think_us), self._begin, self._processes)

    # A client's life

    def _begin(self, process: int) -> None:
        world = self.world
        if self.stopped:
            return
        drawn = self.workload.draw(world.random, process)
        operation = Operation(process, *drawn, call=world.events, floor=self.answered_index)
        self._open[process] = operation
        self._attempt(operation)

    def probe(self) -> list[Operation]:
        """Start a write and a read of the simulator's own."""
        probes = [
            Operation(PROBE, *drawn, call=self.world.events, floor=self.answered_index)
            for drawn in (self.workload.draw_write(), ("read", "probe", None, None))
        ]
        for probe in probes:
            self._attempt(probe)
        return probes

    def burst(self, node: SimNode, count: int) -> None:
        """Propose many commands at once on behalf of nobody."""
        commands = [self.workload.draw_write()[3] for _ in range(count)]
        try:
            node.propose(commands)
        except ProposalRefused as refusal:
            self.world.cover[_REFUSALS.get(type(refusal), "proposal refused")] += 1
            return
        node.finish_step()

    def _attempt(self, operation: Operation) -> None:
        world = self.world
        if operation.done:
            return
        if operation.attempts >= ATTEMPTS_MAX:
            self._end(operation, None if operation.doubtful else False, None)
            return
        operation.attempts += 1
        if operation.attempts > 1:
            world.cover["client retried"] += 1
        candidates = [node for node in world.nodes.values() if not node.dead]
        node = world.random.choice(candidates)
        delay_us = world.random.randint(50, 1_000)
        world.after(delay_us, self._arrive, node, operation, operation.attempts)
        timeout_us = world.plan.election_timeout_max_ms * 1000
        if self.patient and operation.process != PROBE:
            timeout_us <<= operation.attempts - 1
        world.after(timeout_us, self._on_timeout, operation, operation.attempts)

    def _on_timeout(self, operation: Operation, attempt: int) -> None:
        if not operation.done and operation.attempts == attempt:
            operation.doubtful = True
            self.world.cover["client gave up waiting"] += 1
            self._attempt(operation)

    def _retry(self, operation: Operation, attempt: int) -> None:
        if not operation.done and operation.attempts == attempt:
            self._attempt(operation)

    def _end(self, operation: Operation, ok: bool | None, result: Any) -> None:
        world = self.world
        operation.done = True
        if operation.process == PROBE:
            self.probe_results.append({"op": operation.op, "ok": ok})
            return
        world.log("end", operation.process, operation.op, operation.key, ok, result)
        del self._open[operation.process]
        self._note(operation, ok, result)
        if self.stopped:
            return
        process = operation.process
        if ok is None:
            world.cover["operation with an unknown outcome"] += 1
            # Its command may still be under way: whoever goes on is somebody else.
            self._processes += 1
            process = self._processes
        world.after(world.random.randint(1, world.plan.think_us), self._begin, process)

    def whole_history(self) -> list[dict[str, Any]]:
        """What ended, and what is still under way as of unknown outcome."""
        for operation in self._open.values():
            self._note(operation, None, None)
        self._open.clear()
        return self.history

    def _note(self, operation: Operation, ok: bool | None, result: Any) -> None:
        self.history.append(
            {
                "process": operation.process,
                "op": operation.op,
                "key": operation.key,
                "value": operation.value,
                "call": operation.call,
                "return": self.world.events,
                "ok": ok,
                "result": result,
            }
        )

    # At a node

    def _arrive(self, node: SimNode, operation: Operation, attempt: int) -> None:
        world = self.world
        if operation.done or not node.runs:
            return
        if operation.command is None:
            self._read(node, operation, attempt)
        elif node.leads:
            self._propose(node, node, node.life, operation, attempt)
        else:
            leader = world.nodes.get(node.core.state.leader)
            if leader is None:
                world.after(world.plan.heartbeat_ms * 1000, self._retry, operation, attempt)
            elif not world.network.is_cut(node.id, leader.id):
                world.cover["command forwarded by a follower"] += 1
                delay_us = world.random.randint(world.plan.delay_min_us, world.plan.delay_max_us)
                world.after(delay_us, self._propose, node, leader, node.life, operation, attempt)

    def _propose(self, node: SimNode, leader: SimNode, life: int, operation: Operation, attempt: int) -> None:
        """`leader` appends what came in at `node`; the answer is taken where `node` applies it."""
        world = self.world
        if not leader.runs or node.life != life:
            return
        try:
            index = leader.propose([operation.command])
        except ProposalRefused as refusal:
            world.cover[_REFUSALS.get(type(refusal), "proposal refused")] += 1
            world.after(world.plan.heartbeat_ms * 1000, self._retry, operation, attempt)
            return
        term = leader.core.state.term
        world.log("propose", leader.id, term, index, operation.op, operation.key, operation.value)
        waiting = self._waiting.setdefault((node.id, node.life), {})
        waiting.setdefault(index, []).append((term, operation, attempt))
        if node is not leader:
            world.after(world.plan.delay_min_us, self._catch_up, node, life, index)
        leader.finish_step()

    def _catch_up(self, node: SimNode, life: int, index: Index) -> None:
        """The follower learned where its command stands; it may have been applied here before."""
        if node.life == life and node.core is not None and index in node.applied:
            self._answer_at(node, index)

    def on_applied(self, node: SimNode, entries: tuple[Entry, ...]) -> None:
        waiting = self._waiting.get((node.id, node.life))
        if waiting:
            for entry in entries:
                if entry.index in waiting:
                    self._answer_at(node, entry.index)
        later = self._read_later.get((node.id, node.life))
        if later:
            ripe = [asked for asked in later if asked.index <= node.applied_index]
            if ripe:
                later[:] = [asked for asked in later if asked.index > node.applied_index]
                for asked in ripe:
                    self.world.cover["read waited for the applied index"] += 1
                    self._serve(node, asked)

    def _answer_at(self, node: SimNode, index: Index) -> None:
        world = self.world
        applied_term, answer = node.applied[index]
        for term, operation, attempt in self._waiting[(node.id, node.life)].pop(index, ()):
            if applied_term != term:
                # Another leader's entry stands there: ours never will.
                world.cover["proposal lost to another leader's entry"] += 1
                self._retry(operation, attempt)
            elif world.random.random() * 2000 < world.network.loss_permille:
                world.cover["answer to a client lost"] += 1
            else:
                self._acknowledge(node, operation, index, answer[0])

    def _acknowledge(self, node: SimNode, operation: Operation, index: Index, answer: Any) -> None:
        world = self.world
        if operation.done:
            return
        first = world.truth.effects[operation.command]
        if first < index:
            world.cover["idempotency hit"] += 1
            if world.truth.entries[first - 1].term != world.truth.entries[index - 1].term:
                world.cover["idempotency hit after failover"] += 1
        if first <= operation.floor:
            raise Violation(
                f"linearizability: {operation.op} took effect at {first}, but {operation.floor} was answered "
                f"before it was called"
            )
        self.acknowledged += 1
        self.answered_index = max(self.answered_index, index)
        self._end(operation, True, self.workload.result(operation.op, answer))

    # Reads

    def _read(self, node: SimNode, operation: Operation, attempt: int) -> None:
        self._contexts += 1
        asked = ReadAsked(operation, attempt, floor=self.world.truth.commit_index)
        self._reads[self._contexts] = ((node.id, node.life), asked)
        node.read(self._contexts)
        node.finish_step()

    def on_read_state(self, node: SimNode, state: ReadState) -> None:
        world = self.world
        place, asked = self._reads.pop(state.context, (None, None))
        if place != (node.id, node.life) or asked is None:
            world.cover["second answer to one read"] += 1
            return
        for hook in world.observers.on_read_state:
            hook(node, state, asked.floor)
        if state.index == 0:
            world.cover["read refused"] += 1
            world.after(world.plan.heartbeat_ms * 1000, self._retry, asked.operation, asked.attempt)
            return
        asked.index = state.index
        if not node.leads:
            world.cover["read served by a follower"] += 1
        if node.applied_index >= state.index:
            self._serve(node, asked)
        else:
            self._read_later.setdefault(place, []).append(asked)

    def _serve(self, node: SimNode, asked: ReadAsked) -> None:
        operation = asked.operation
        if operation.done:
            return
        if node.applied_index < operation.floor:
            raise Violation(
                f"stale read at {node.id}: applied {node.applied_index}, but {operation.floor} was answered "
                f"before the read was called (thesis 6.4)"
            )
        self.acknowledged += 1
        self.answered_index = max(self.answered_index, node.applied_index)
        self._end(operation, True, self.workload.read(node.service.machine, operation.key))


_REFUSALS = {
    NotLeading: "proposal refused: not leading",
    TransferInProgress: "proposal refused: transfer under way",
    TooMuchUncommitted: "proposal refused: uncommitted tail at its bound",
}
