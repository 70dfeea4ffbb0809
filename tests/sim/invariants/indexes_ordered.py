"""applied <= commit <= last, durable <= last, and compaction never passes what is applied (known bug 32)."""

from tests.sim.node import SimNode
from tests.sim.observer import Observer


class IndexesOrdered(Observer):
    section = "paper Figure 2, known bug 32"

    def on_state(self, node: SimNode) -> None:
        core = node.core
        log = core.log
        last = log.last_index
        if not (
            core.applied_index <= log.applied_index <= log.commit_index <= last
            and log.durable_index <= log.submitted_index <= last
            and log.compacted_index <= log.applied_index
            and log.compacted_index <= log.snapshot.index
        ):
            self.fail(
                f"{node.id}: applied {core.applied_index}/{log.applied_index}, commit {log.commit_index}, "
                f"durable {log.durable_index}/{log.submitted_index}, last {last}, "
                f"compacted {log.compacted_index}/{log.snapshot.index}"
            )
