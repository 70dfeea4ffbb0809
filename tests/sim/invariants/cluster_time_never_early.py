"""Between two entries of a log no more cluster time passes than real time: nothing that one began ends early.

Real time is that of the fastest clock that the plan allows. Each leader between the two may round up by a
millisecond of its clock."""

from raft.core.types import Entry, Index, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class ClusterTimeNeverEarly(Observer):
    section = "design: time"

    def __init__(self, world) -> None:
        super().__init__(world)
        #: (index, term) -> by how much cluster time was ahead of real time when that entry, and each before it in its
        #: log, was stamped: the least of them, microseconds. Equal entries have equal logs before them.
        self._ahead_us: dict[tuple[Index, Term], int] = {}

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        world, log = self.world, node.core.log
        real_us = world.now_us * (1000 + world.plan.clock_spread_permille) // 1000
        before = log.term_at(first - 1)
        if before is None:
            before = log.snapshot.term
        least_us = self._ahead_us.get((first - 1, before), 1 << 62)
        for entry in entries:
            key = (entry.index, entry.term)
            known_us = self._ahead_us.get(key)
            if known_us is not None:
                least_us = known_us
                continue
            ahead_us = entry.time_ms * 1000 - real_us
            if ahead_us > least_us + 1000 * entry.term:
                self.fail(
                    f"{node.id} stamps entry {entry.index} of term {entry.term} with {entry.time_ms} ms, "
                    f"{(ahead_us - least_us) // 1000} ms more than passed since an entry before it"
                )
            if node.leads and entry.term == node.core.state.term:
                # Seen as it was stamped: elsewhere it may be seen later than that.
                least_us = min(least_us, ahead_us)
            self._ahead_us[key] = least_us
