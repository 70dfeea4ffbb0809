"""Indexes in a log have no gap, and terms never fall along it."""

from raft.core.types import Entry, Index
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class LogContiguous(Observer):
    section = "paper 5.3"

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        term = node.core.log.term_at(first - 1) or 0
        for offset, entry in enumerate(entries):
            if entry.index != first + offset:
                self.fail(f"{node.id} holds {entry.index} at {first + offset}")
            if entry.term < term:
                self.fail(f"{node.id}: term {entry.term} follows {term} at {entry.index}")
            term = entry.term
        if entries and term > node.core.state.term:
            self.fail(f"{node.id} in term {node.core.state.term} holds an entry of term {term}")
