"""What is true about the cluster as a whole, put together from what single nodes do.

`entries` holds every committed entry by index, from the first node whose commit index covered it; a reference
machine applies them once, and every node's answers and snapshots are compared with the first ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from raft.core.types import Entry, Index, SnapshotMeta, Term
from tests.sim.observer import Observer

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.world import World


class Truth(Observer):
    """The committed log and what applying it gives. Checks state machine safety while it learns."""

    section = "paper 5.4.3"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: Committed entries, index 1 first.
        self.entries: list[Entry] = []
        #: For each the term in which it was committed, which may be later than its own.
        self.commit_terms: list[Term] = []
        #: Answer of each applied entry, index 1 first.
        self.answers: list[Any] = []
        #: Terms and their one leader.
        self.leaders: dict[Term, str] = {}
        #: Where each command first took effect, by the command's bytes.
        self.effects: dict[bytes, Index] = {}
        self._states: dict[Index, int] = {}

    @property
    def commit_index(self) -> Index:
        return len(self.entries)

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        log, known = node.core.log, self.entries
        if after <= len(known):
            return
        if log.compacted_index > len(known):
            self.fail(f"{node.id} skipped to {log.compacted_index}, committed nowhere before")
        known.extend(log.slice(len(known) + 1, entries_max=1 << 30, bytes_max=1 << 40, end=after))
        self._note_term(node)

    def on_applied(self, node: SimNode, entry: Entry, answer: Any) -> None:
        index = entry.index
        if index == len(self.entries) + 1:
            self.entries.append(entry)
            self._note_term(node)
        first = self.effects.get(entry.data) if entry.data else None
        if first is not None and first < index and self._contradicts(self.answers[first - 1][0], answer[0]):
            self.fail(f"a retry at {index} was answered {answer[0]}, not {self.answers[first - 1][0]}")
        if index > len(self.answers):
            if index != len(self.answers) + 1:
                self.fail(f"{node.id} applied {index} before anyone applied {len(self.answers) + 1}")
            self.answers.append(answer)
            self.effects.setdefault(entry.data, index)
        elif self.answers[index - 1] != answer and repr(self.answers[index - 1]) != repr(answer):
            # By `repr` where events hold objects that do not compare.
            self.fail(f"{node.id} answered {answer} at {index}, others {self.answers[index - 1]}")

    def _note_term(self, node: SimNode) -> None:
        self.commit_terms += [node.core.state.term] * (len(self.entries) - len(self.commit_terms))

    @staticmethod
    def _contradicts(first: Any, again: Any) -> bool:
        """A request that had to wait is answered with its outcome once there is one. An answer that is told again may
        leave out what does not hold any more, and tells who holds a refused lock now."""
        if not isinstance(first, dict) or first.get("waiting"):
            return first != again and not isinstance(first, dict)
        again = {name: value for name, value in again.items() if name != "replayed"}
        if "token" in first:
            return again["token"] != first["token"] or (not again["ok"] and again["reason"] != "not_held")
        if "messages" in first:
            return any(message not in first["messages"] for message in again["messages"])
        if first.get("reason") == "locked":
            return again.get("reason") != "locked"
        return first != again

    def check_snapshot(self, node: SimNode, meta: SnapshotMeta, data: tuple[bytes, ...]) -> None:
        """Replicas at the same applied index are equal, byte for byte."""
        digest = crc32(b"|".join(data))
        known = self._states.setdefault(meta.index, digest)
        if known != digest:
            self.fail(f"{node.id} holds another state at {meta.index} than the others")
        self.world.cover["replica states compared"] += 1
