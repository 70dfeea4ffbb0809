"""The wait-for graph: owners are the nodes, and a place in line is an edge to everyone it waits behind.

An owner waits for the holders and for the earlier places that it conflicts with. Granting, releasing and giving up
only take edges away, so a cycle can only be closed by an owner that joins a line: checking there, and refusing the
one that would close it, keeps the graph free of cycles for ever. An owner stands for one thread of work, and has one
place in a line however often it asks, so no request is let in unchecked on behalf of another that may go first.

The search is bounded. Where it would have to look at more than `STEPS_MAX` holders and places, the owner is refused:
letting it in could close a cycle that nobody has seen.
"""

from collections.abc import Iterator, Mapping

from services.lock.replicated.records import Hold, Lock, Waiter

#: Holders and places that one search looks at: a full line behind as many readers as a key may have, and as much
#: again.
STEPS_MAX = 40_000
#: Steps of a cycle that are shown.
CYCLE_SHOWN_MAX = 16

#: How far each line was looked at: (key, exclusive) -> `arrived_index` of the place that looked.
Looked = dict[tuple[str, bool], int]


class GraphTooLarge(Exception):
    """Whether there is a cycle cannot be said within `STEPS_MAX`."""


class Search:
    """One owner's question whether it may join a line: `cycle` holds the answer, `steps` what it cost."""

    def __init__(
        self, locks: Mapping[str, Lock], waits: Mapping[str, Mapping[str, Waiter]], now_ms: int
    ) -> None:
        self._locks = locks
        self._waits = waits
        #: Who has ended by then is in nobody's way, swept or not.
        self._now_ms = now_ms
        self._looked: Looked = {}
        #: Holders and places looked at.
        self.steps = 0

    def find_cycle(self, request: Waiter) -> list[Waiter] | None:
        """The places along the cycle that `request` would close by joining its line, its own first; each waits for
        the owner of the next, and the last for the owner of the first. None where it may join.

        Takes time in proportion to the holders and places that can be reached, not to the edges between them.

        Raises: GraphTooLarge.
        """
        #: The place by which an owner was reached.
        reached: dict[str, Waiter] = {}
        pending = [request]
        while pending:
            waiter = pending.pop()
            for blocker in self._blockers(self._locks[waiter.key], waiter):
                if blocker.owner == request.owner:
                    return _path(reached, waiter, request)
                if blocker.owner not in reached and blocker.owner != waiter.owner:
                    reached[blocker.owner] = waiter
                    places = (place.at(self._now_ms) for place in self._waits.get(blocker.owner, {}).values())
                    pending.extend(place for place in places if place is not None)
        return None

    def _blockers(self, lock: Lock, waiter: Waiter) -> Iterator[Hold | Waiter]:
        """Who stands in the way of `waiter`, except those that an earlier look at this line has given already."""
        exclusive = waiter.exclusive
        looked = self._looked
        seen = max(looked.get((waiter.key, True), 0), looked.get((waiter.key, exclusive), 0))
        if waiter.arrived_index <= seen:
            return
        looked[(waiter.key, exclusive)] = waiter.arrived_index
        for hold in lock.holds():
            self._step()
            if (exclusive or hold.exclusive) and not hold.has_ended(self._now_ms):
                yield hold
        for ahead in (lock.queue or {}).values():
            if ahead.arrived_index >= waiter.arrived_index:
                return
            self._step()
            place = ahead.at(self._now_ms)
            if place is not None and (exclusive or place.exclusive) and place.arrived_index >= seen:
                yield place

    def _step(self) -> None:
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise GraphTooLarge


def shown(cycle: list[Waiter]) -> list[dict[str, str]]:
    """One `{"owner", "waits_for_key", "held_by"}` for each of the first owners along a cycle; `held_by` is the next
    owner, who holds that key or stands ahead in its line."""
    following = [*cycle[1 : CYCLE_SHOWN_MAX + 1], cycle[0]]
    return [
        {"owner": waiter.owner, "waits_for_key": waiter.key, "held_by": after.owner}
        for waiter, after in zip(cycle[:CYCLE_SHOWN_MAX], following, strict=False)
    ]


def _path(reached: Mapping[str, Waiter], last: Waiter, request: Waiter) -> list[Waiter]:
    path = [last]
    while path[-1] is not request:
        path.append(reached[path[-1].owner])
    path.reverse()
    return path
