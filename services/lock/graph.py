"""The wait-for graph: owners are the nodes, and a request in line is an edge to everyone it waits behind.

A request waits for the holders and for the earlier requests that it conflicts with. Granting, releasing and
giving up only take edges away, so a cycle can only be closed by a request that joins a line: checking there,
and refusing the one that would close it, keeps the graph free of cycles for ever.

An owner stands for one thread of work. Two requests of one owner in one line are taken for the same request
sent twice: they are answered together as soon as one of them is granted, so neither waits for the other.
"""

from collections.abc import Iterator, Mapping

from services.lock.records import Hold, Lock, Waiter

#: How far each line was looked at: (key, exclusive) -> `arrived_index` of the request that looked.
Looked = dict[tuple[str, bool], int]


def find_cycle(
    locks: Mapping[str, Lock], waits: Mapping[str, Mapping[str, Waiter]], request: Waiter, now_ms: int
) -> list[dict] | None:
    """The cycle that `request` would close by joining its line, None where it may join.

    Returns one `{"owner", "waits_for_key", "held_by"}` for each owner along the cycle, the requester first;
    `held_by` is the next owner, who holds that key or stands ahead in its line. Takes time in proportion to the
    holders and waiters that can be reached, not to the edges between them. Who has ended by `now_ms` is in nobody's
    way, swept or not.
    """
    owner = request.owner
    for earlier in waits.get(owner, {}).values():
        covers = earlier.exclusive or not request.exclusive
        if covers and earlier.key == request.key and earlier.deadline_ms > now_ms:
            return None
    #: The wait by which an owner was reached.
    reached: dict[str, Waiter] = {}
    looked: Looked = {}
    pending = [request]
    while pending:
        waiter = pending.pop()
        for blocker in _blockers(locks[waiter.key], waiter, looked, now_ms):
            if blocker.owner == owner:
                return _path(reached, waiter, request)
            if blocker.owner not in reached and blocker.owner != waiter.owner:
                reached[blocker.owner] = waiter
                pending.extend(w for w in waits.get(blocker.owner, {}).values() if w.deadline_ms > now_ms)
    return None


def _blockers(lock: Lock, waiter: Waiter, looked: Looked, now_ms: int) -> Iterator[Hold | Waiter]:
    """Who stands in the way of `waiter`, except those that an earlier look at this line has given already."""
    exclusive = waiter.exclusive
    seen = max(looked.get((waiter.key, True), 0), looked.get((waiter.key, exclusive), 0))
    if waiter.arrived_index <= seen:
        return
    looked[(waiter.key, exclusive)] = waiter.arrived_index
    for hold in lock.holds():
        if (exclusive or hold.exclusive) and (hold.expires_ms is None or hold.expires_ms > now_ms):
            yield hold
    for ahead in (lock.queue or {}).values():
        if ahead.arrived_index >= waiter.arrived_index:
            return
        if (exclusive or ahead.exclusive) and ahead.arrived_index >= seen and ahead.deadline_ms > now_ms:
            yield ahead


def _path(reached: Mapping[str, Waiter], last: Waiter, request: Waiter) -> list[dict]:
    steps = []
    held_by = request.owner
    waiter = last
    while True:
        steps.append({"owner": waiter.owner, "waits_for_key": waiter.key, "held_by": held_by})
        if waiter is request:
            break
        held_by = waiter.owner
        waiter = reached[waiter.owner]
    steps.reverse()
    return steps
