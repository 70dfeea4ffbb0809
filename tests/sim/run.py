"""One seed from start to end: faults, then a healed majority that must serve, then everything must converge.

chaos     the plan's faults, until its events are used up
majority  a random majority is healed and the rest frozen: it must elect, commit and serve in time
all       all nodes are healed: all must reach equal state
after     nothing acknowledged is missing, and the histories have an explanation
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from traceback import format_exc
from typing import Any

from raft.core.quorum import quorum_size
from tests.sim.clients import Clients, Operation
from tests.sim.histories import check_histories
from tests.sim.invariants import load_invariants
from tests.sim.nemesis import Nemesis
from tests.sim.node import SimNode
from tests.sim.observer import Observer, Violation
from tests.sim.plan import Plan, draw_plan
from tests.sim.reconfiguration import configurations_in_force, has_living_quorum
from tests.sim.situations import load_situations
from tests.sim.workloads import machine_and_workload
from tests.sim.world import World

EVENTS_DEFAULT = 3_000
#: Loaded once, before workers are forked.
INVARIANTS = load_invariants()
SITUATIONS = load_situations()
#: A healed majority must have served within this many election timeouts, and everyone be equal within these.
SERVE_TIMEOUTS_MAX = 60
CONVERGE_TIMEOUTS_MAX = 150


@dataclass(slots=True)
class Outcome:
    """How a seed ended. `failure` is empty where every promise held."""

    seed: int
    events: int = 0
    failure: str = ""
    detail: str = ""
    phase: str = ""
    cover: Counter[str] = field(default_factory=Counter)


class Run:
    """One seed's world and its phases."""

    def __init__(
        self, plan: Plan, watchers: list[type[Observer]], trace: Callable[[str], None] | None = None
    ) -> None:
        self.plan = plan
        make_machine, workload = machine_and_workload(plan)
        self.phase = "start"
        self.world = World(plan, watchers, make_machine, trace)
        self.clients = self.world.clients = Clients(self.world, workload)
        self.nemesis = Nemesis(self.world)
        self._probes: list[Operation] = []

    def run(self) -> None:
        """Raises Violation, or an assertion of the core's own, where a promise is broken."""
        self.phase = "chaos"
        while self.world.events < self.plan.events:
            self.world.run_event()
        self._heal_majority()
        self._heal_all()
        self._check_after()

    # Majority

    def _heal_majority(self) -> None:
        self.phase = "majority"
        self.clients.patient = True
        world = self.world
        self.nemesis.stop()
        chosen = self._choose_majority()
        if chosen is None:
            world.cover["no living majority: liveness not judged"] += 1
            return
        world.log("majority", sorted(chosen))
        ids = list(world.nodes)
        for node in world.nodes.values():
            if node.id in chosen:
                node.resume()
                self.nemesis.restart(node)
            else:
                self._freeze(node, ids)
        limit_us = SERVE_TIMEOUTS_MAX * self.plan.election_timeout_max_ms * 1000
        self._probes = []
        if not world.run_until(self._has_served, limit_us):
            world.fail(f"liveness: {sorted(chosen)} did not elect, commit and serve in {limit_us} us")
        world.cover["healed majority served"] += 1

    def _freeze(self, node: SimNode, ids: list[str]) -> None:
        world = self.world
        if node.runs:
            node.pause()
            world.cover["node frozen for the majority phase"] += 1
        world.network.cuts.update((node.id, id) for id in ids)
        world.network.cuts.update((id, node.id) for id in ids)

    def _choose_majority(self) -> set[str] | None:
        """A random set of living nodes with a quorum of every configuration in force."""
        world = self.world
        forces = configurations_in_force(world)
        if not all(has_living_quorum(world, one) for one in forces):
            return None
        members = sorted({member for one in forces for member in one.voters if not world.nodes[member].dead})
        world.random.shuffle(members)
        chosen: set[str] = set()
        for member in members:
            needed = any(
                member in one.voters and len(chosen.intersection(one.voters)) < quorum_size(len(one.voters))
                for one in forces
            )
            if needed:
                chosen.add(member)
        # A learner that has caught up may become a voter that is needed, at any moment (seed 6319).
        learners = {learner for one in forces for learner in one.learners if not world.nodes[learner].dead}
        return chosen | learners

    def _has_served(self) -> bool:
        """A write and a read that began in this phase were answered."""
        waiting = [probe for probe in self._probes if not probe.done]
        if not waiting:
            served = {ended["op"] for ended in self.clients.probe_results if ended["ok"]}
            if {"write", "read"} <= served:
                return True
            self._probes = self.clients.probe()
        return False

    # All

    def _heal_all(self) -> None:
        self.phase = "all"
        world = self.world
        world.network.cuts.clear()
        self.clients.stopped = True
        for node in world.nodes.values():
            node.resume()
            self.nemesis.restart(node)
        limit_us = CONVERGE_TIMEOUTS_MAX * self.plan.election_timeout_max_ms * 1000
        if not all(has_living_quorum(world, one) for one in configurations_in_force(world)):
            return
        if not world.run_until(self._has_converged, limit_us):
            world.fail("liveness: not converged: " + "; ".join(self._standing()))
        world.cover["all converged"] += 1

    def _has_converged(self) -> bool:
        world = self.world
        leader = max(world.leaders(), key=lambda node: node.core.state.term, default=None)
        if leader is None or leader.core.log.commit_index != leader.core.log.last_index:
            return False
        due_ms = leader.service.next_due_ms()
        if due_ms is not None and due_ms <= leader.core.cluster_time_ms(leader.now_ms()):
            # What is due has to happen without anybody's traffic (known bug 76).
            return False
        members = [world.nodes[id] for id in leader.core.configuration.members]
        return all(
            node.dead or (node.up and node.applied_index == leader.core.log.last_index) for node in members
        )

    def _standing(self) -> list[str]:
        return [
            f"{node.id} dead"
            if node.dead
            else f"{node.id} {node.core.status()}"
            if node.core
            else f"{node.id} down"
            for node in self.world.nodes.values()
        ]

    # After

    def _check_after(self) -> None:
        self.phase = "after"
        world = self.world
        states = {}
        for node in world.nodes.values():
            if node.core is not None:
                states.setdefault(node.applied_index, set()).add(node.service.snapshot())
        for index, found in states.items():
            if len(found) > 1:
                world.fail(f"nodes that applied {index} hold {len(found)} different states")
        if self.clients.answered_index > world.truth.commit_index:
            world.fail("durability: something was acknowledged and is not committed")
        check_histories(world, self.clients.whole_history())


def run_seed(
    seed: int,
    *,
    events: int = EVENTS_DEFAULT,
    machine: str = "",
    trace: Callable[[str], None] | None = None,
    situations: bool = True,
) -> Outcome:
    """Run one seed; never raises for what the run finds."""
    plan = draw_plan(seed, events, machine)
    watchers = INVARIANTS + (SITUATIONS if situations else [])
    outcome = Outcome(seed)
    run: Run | None = None
    try:
        run = Run(plan, watchers, trace)
        run.run()
    except Violation as violation:
        outcome.failure = str(violation)
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {error}"
        outcome.detail = format_exc()
    if run is not None:
        outcome.events, outcome.phase, outcome.cover = run.world.events, run.phase, run.world.cover
        if outcome.failure:
            tail = (" ".join(map(str, words)) for words in run.world.trace_tail)
            outcome.detail += "\n".join(tail)
    return outcome


def describe(plan: Plan) -> str:
    """The plan in one line, for a failure's report."""
    values: dict[str, Any] = {name: getattr(plan, name) for name in plan.__slots__}
    return " ".join(f"{name}={value}" for name, value in values.items())
