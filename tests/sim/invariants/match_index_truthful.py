"""What a leader believes about a follower is true on that follower's disk, unless the follower durably moved to a
later term."""

from raft.core.types import Role
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class MatchIndexTruthful(Observer):
    section = "paper 5.3 (matchIndex), known bug 28"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._checked: dict[str, tuple[int, dict[str, int]]] = {}

    def on_state(self, node: SimNode) -> None:
        core = node.core
        state = core.state
        if state.role is not Role.LEADER:
            return
        term, checked = self._checked.get(node.id, (0, {}))
        if term != state.term:
            checked = {}
            self._checked[node.id] = (state.term, checked)
        for peer, progress in core.progress.items():
            match = progress.match_index
            if match != checked.get(peer):
                checked[peer] = match
                self._check(node, peer, match)

    def _check(self, node: SimNode, peer: str, match: int) -> None:
        log = node.core.log
        disk = self.world.nodes[peer].disk
        if disk.hard_state.term > node.core.state.term or match == 0:
            return
        if match > log.last_index:
            self.fail(f"{node.id} believes that {peer} holds {match}, beyond its own log")
        term = log.term_at(match)
        if term is not None and not disk.holds(match, term):
            self.fail(f"{node.id} believes that {peer} holds ({match}, {term}); its disk does not")
