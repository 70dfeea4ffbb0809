"""Who waits for what: proposals by their place in the log, and everybody's deadline.

A proposal is registered in the same synchronous block in which it gets its place, so its entry cannot be
applied before. It is answered when this node applies the place: with the result if the entry is of its term,
with "certainly not done" if it is of another.
"""

from asyncio import Future
from collections import deque
from typing import Any

from raft.core.types import Index, Term
from raft.errors import OutcomeUnknown


class Proposal:
    """One command on its way into the log."""

    __slots__ = ("command", "future", "place_by_ms", "settle_by_ms")

    def __init__(self, command: bytes, future: Future[Any], *, place_by_ms: int, settle_by_ms: int) -> None:
        self.command = command
        self.future = future
        #: Until when it may look for a leader; after that it has certainly not been done.
        self.place_by_ms = place_by_ms
        #: Until when its outcome may stay open; after that it is unknown.
        self.settle_by_ms = settle_by_ms

    def settle(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Waiters:
    """Proposals that have a place in the log, by index. Two of different terms may hold the same index."""

    def __init__(self) -> None:
        self._by_index: dict[Index, list[tuple[Term, Proposal]]] = {}
        #: With their places, in order of their deadlines, which lie a constant time after their arrival.
        self._by_deadline: deque[tuple[Index, Proposal]] = deque()

    def __bool__(self) -> bool:
        return bool(self._by_index)

    def add(self, index: Index, term: Term, proposal: Proposal) -> None:
        self._by_index.setdefault(index, []).append((term, proposal))
        self._by_deadline.append((index, proposal))

    def take(self, index: Index, term: Term) -> tuple[list[Proposal], list[Proposal]]:
        """The entry of `term` at `index` was applied: the proposals that it is, and those that it is not."""
        waiting = self._by_index.pop(index, None)
        if waiting is None:
            return [], []
        ours = [proposal for placed_term, proposal in waiting if placed_term == term]
        lost = [proposal for placed_term, proposal in waiting if placed_term != term]
        return ours, lost

    def take_up_to(self, index: Index) -> list[Proposal]:
        """A snapshot replaced the log up to `index`: what became of these is not known here."""
        gone = [place for place in self._by_index if place <= index]
        return [proposal for place in gone for _, proposal in self._by_index.pop(place)]

    def take_all(self) -> list[Proposal]:
        everything = [proposal for waiting in self._by_index.values() for _, proposal in waiting]
        self._by_index.clear()
        self._by_deadline.clear()
        return everything

    def expire(self, now_ms: int) -> list[Proposal]:
        """Answer whoever's deadline has passed. Returns those that no longer have a place: what they are told stands,
        and nothing of them is kept for an apply that may never come."""
        gone = []
        waiting = self._by_deadline
        while waiting and (waiting[0][1].future.done() or waiting[0][1].settle_by_ms <= now_ms):
            index, proposal = waiting.popleft()
            proposal.fail(
                OutcomeUnknown("no quorum confirmed the request in time; it may still be carried out")
            )
            if self._forget(index, proposal):
                gone.append(proposal)
        return gone

    def _forget(self, index: Index, proposal: Proposal) -> bool:
        """False where it had left its place before."""
        waiting = self._by_index.get(index)
        if waiting is None:
            return False
        kept = [row for row in waiting if row[1] is not proposal]
        if kept:
            self._by_index[index] = kept
        else:
            del self._by_index[index]
        return len(kept) < len(waiting)
