"""What goes wrong in a seed: one fault after another begins, lasts a while and is mended.

`tests.shell.faults` has the faults; here is when they begin, and what a node must do all the same.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import TYPE_CHECKING

from services.world.node import Node
from tests.shell.faults import SLOW_DISK_S, Faults, Mend
from tests.shell.plan import Plan

if TYPE_CHECKING:
    from tests.shell.run import Run

#: A node that ended by itself is started again after so long, as a supervisor does.
RESTART_S = (0.1, 0.8)
#: Faults after which a node may not answer its clients in time, and for how long after they are mended: what was lost
#: on the way is sent again.
HINDERING = frozenset({
    "kill", "kill_leader", "stop", "stop_leader", "power_off", "power_off_all", "freeze", "freeze_leader", "suspend",
    "cut_clients", "reset_connections", "lossy", "clock_drifts", "clock_stops", "clock_jumps", "busy",
    "few_descriptors", "lost_disk", "other_lease",
})  # fmt: skip
AFTER_US = 3_000_000
#: Faults during which a node may take longer to stop.
DELAYING = frozenset({
    "freeze", "freeze_leader", "suspend", "busy", "slow_disk", "hang_disk", "clock_stops", "clock_jumps",
})  # fmt: skip
#: A node that is told to stop has ended by then: what is left to be said, a handover, and requests whose bodies are
#: still on their way.
STOP_US_MAX = 5_500_000
#: A node that stops says what its clients that wait must have said, and gives up after
#: `raft.node.PARTING_SECONDS_MAX`; the clocks of computers differ a little.
PARTING_US = 900_000


class Nemesis(Faults):
    """See the module."""

    def __init__(self, run: Run, plan: Plan) -> None:
        super().__init__(run, plan)
        #: Faults that there were, the ones that were left out included.
        self.count = 0
        #: By node: from when to when, in microseconds, it may not answer its clients in time; None: still.
        self._met: defaultdict[str, list[list[int | None]]] = defaultdict(list)
        #: The node that is cut off until all is mended.
        self.silent = ""
        #: By node: since when nothing has kept it from stopping.
        self._delayed_us: defaultdict[str, int] = defaultdict(int)

    def begin(self) -> None:
        if self._plan.faults:
            self._after(self._plan.fault_gap_s * self._random.random(), self._next)

    def stop(self) -> None:
        """No new fault begins; those under way are mended by `World.heal`."""
        self._stopped = True
        for spans in self._met.values():
            for span in spans:
                span[1] = span[1] or self._world.loop.now_us

    def stop_all(self) -> None:
        """All are told to stop, and nothing keeps them from it."""
        for node in self._world.nodes.values():
            self._told_us[node.name, node.lives] = self._world.loop.now_us
            node.stop()

    def cut_for_good(self) -> None:
        """A leader is cut off until all is mended: what it sent on its streams meanwhile is as good as lost."""
        random = self._random = Random(f"nemesis {self._plan.seed} silence")
        self._chosen = []
        self._cut_leader()
        (node,) = self._chosen
        self.silent = node.name
        if random.random() < 0.5:
            self._after(random.uniform(0.2, 2.0), lambda: self._stop_at_last(node))

    def end(self, kind: str) -> float:
        """What goes wrong right before all is mended; returns for how long, in seconds."""
        random = self._random = Random(f"nemesis {self._plan.seed} ending")
        self._chosen = []
        node = self._with_waits()
        if kind == "cut":
            self._cut_node(node)
            self.silent = node.name
            return random.uniform(0.5, 4.0)
        if kind == "full_disk":
            node.disk.is_full = True
            return random.uniform(0.5, 2.0)
        if kind == "stop":
            # With slow disks, much is under way when it is told to.
            for each in self._world.nodes.values():
                each.disk.delay_s = SLOW_DISK_S
            self._chosen = list(self._world.nodes.values())
            self._meet("slow_disk")
            self._after(random.uniform(0.2, 0.6), lambda: self._stop_at_last(node))
            return random.uniform(1.0, 2.0)
        assert kind == "kills"
        for _ in self._world.nodes:
            self._kill()
        self._meet_at_last(kind="kill")
        return 0.0

    def _stop_at_last(self, node: Node) -> None:
        self._chosen = [node]
        self._stop(node)
        self._meet_at_last(kind="stop")

    def _meet_at_last(self, kind: str) -> None:
        for span in self._meet(kind):
            span[1] = self._world.loop.now_us

    def on_exit(self, node: Node) -> None:
        """A node ended by itself, or because it was told to."""
        self._after(self._random.uniform(*RESTART_S), node.start)

    def check_stop(self, node: Node) -> None:
        """It has ended as it was told."""
        now_us, told_us = self._world.loop.now_us, self._told_us.get((node.name, node.lives))
        if told_us is None or now_us - told_us >= PARTING_US:
            # It may have had no time to say everything: as if it had died.
            node.deaths_us.append(now_us)
        self._check_stop_time(node)

    def check_stops(self) -> None:
        """No node that was told to stop runs for longer than it may."""
        for node in self._world.nodes.values():
            if node.runs:
                self._check_stop_time(node)

    def _check_stop_time(self, node: Node) -> None:
        now_us, told_us = self._world.loop.now_us, self._told_us.get((node.name, node.lives))
        if told_us is not None and self._delayed_us[node.name] < told_us and now_us - told_us > STOP_US_MAX:
            self._run.fail(f"{node.name} took {(now_us - told_us) / 1_000_000} s to stop, and nothing kept it")

    def _next(self) -> None:
        if self._stopped:
            return
        plan = self._plan
        number, self.count = self.count, self.count + 1
        # Each fault draws from its own: without one of them the others are as before.
        random = self._random = Random(f"nemesis {plan.seed} {number}")
        kind = random.choices(tuple(plan.faults), tuple(plan.faults.values()))[0]
        gap_s, length_s = random.uniform(0.2, 1.8), random.uniform(0.2, 1.8)
        if number not in self._run.left_out.faults:
            self._chosen = []
            mend = getattr(self, "_" + kind)()
            if mend is not None:
                self._world.count(f"fault: {kind}")
                spans = self._meet(kind)
                self._after(plan.fault_length_s * length_s, lambda: self._mend(mend, spans))
        self._after(plan.fault_gap_s * gap_s, self._next)

    def _mend(self, mend: Mend, spans: list[list[int | None]]) -> None:
        for span in spans:
            span[1] = self._world.loop.now_us
        if not self._stopped:
            mend()

    def _meet(self, kind: str) -> list[list[int | None]]:
        """Note whom this fault may keep from answering."""
        now_us = self._world.loop.now_us
        for node in self._chosen:
            if kind in DELAYING:
                self._delayed_us[node.name] = now_us + round(2 * self._plan.fault_length_s * 1_000_000) + AFTER_US
        if kind not in HINDERING:
            return []
        nodes = self._chosen or tuple(self._world.nodes.values())
        spans: list[list[int | None]] = [[now_us, None] for _ in nodes]
        for node, span in zip(nodes, spans, strict=True):
            self._met[node.name].append(span)
        return spans

    def was_met(self, node: str, since_us: int) -> bool:
        """Whether a fault may have kept this node from answering what it was asked then."""
        return any(ended_us is None or ended_us + AFTER_US >= since_us for _, ended_us in self._met[node])
