"""Two logs that hold an entry of the same index and term are identical up to there (Figure 3, Log Matching).

The check knows each (index, term) with its entry and the term before it. By induction over the entries that are new
to a log, the whole prefix is equal."""

from raft.core.types import Entry, Index, Term
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LogMatching(Observer):
    section = "paper 5.3"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._known: dict[tuple[Index, Term], tuple[Term | None, Entry]] = {}

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        known = self._known
        before = node.core.log.term_at(first - 1)
        for entry in entries:
            found = known.get((entry.index, entry.term))
            if found is None:
                known[(entry.index, entry.term)] = (before, entry)
            elif found[1] is not entry and found[1] != entry:
                self.fail(f"{node.id} holds another entry ({entry.index}, {entry.term}) than the others")
            elif found[0] != before and found[0] is not None and before is not None:
                self.fail(
                    f"{node.id} holds ({entry.index}, {entry.term}) behind term {before}, not {found[0]}"
                )
            before = entry.term
