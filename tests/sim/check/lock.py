"""Locks: which orders of acquires and releases are possible.

The tokens say in which order the known holds of a key began. Two questions are open. How did each hold end: by a
known release of its owner, or by one of the owner's unknown releases? And which known release ended a hold that
nobody saw (a *phantom*: an unknown acquire of the same process, placed right before that release)? Unknown operations
are means, used only for these. A hold ends only when the next one has to begin.

Core of a configuration: (number of known holds that began, whether the last of them still lasts, tokens that
phantoms used up since, which known releases happened). `spent`: unknown operations that were used.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tests.sim.check.history import Operation, identity
from tests.sim.check.search import (
    NEVER,
    Configuration,
    Effort,
    Timeline,
    lowest,
    make_timeline,
    order_by_return,
)


@dataclass(slots=True)
class Hold:
    """A time for which a process had the lock, known by its token; every acquire with that token is of it."""

    token: int
    process: object
    #: Tokens between the hold before and this one, for phantoms; negative: it cannot follow that one.
    gap: int = NEVER
    #: Rank of the first call of one of its acquires.
    first_call: int = NEVER


class LockModel:
    """The operations of one key, for `search.has_order`."""

    def __init__(self, operations: list[Operation], optional: Collection[int] = ()) -> None:
        """`optional`: positions of operations to be taken for unknown ones."""
        operations = [o.unknown() if i in optional else o for i, o in enumerate(operations)]
        operations = _drop_idle([operation for operation in operations if operation.ok is not False])
        spans = [(operation.call, operation.return_ if operation.ok else None) for operation in operations]
        order = order_by_return(spans)
        self.timeline: Timeline = make_timeline([spans[i] for i in order])
        self._make_holds([operations[i] for i in order])

    def _make_holds(self, operations: list[Operation]) -> None:
        self._process = [identity(operation.process) for operation in operations]
        #: Masks by process: its known releases, its unknown releases, its unknown acquires.
        self._releases: dict[object, int] = {}
        self._free_releases: dict[object, int] = {}
        self._free_acquires: dict[object, int] = {}
        holds: dict[tuple[int, object], Hold] = {}
        of_acquire: dict[int, Hold] = {}
        for number, operation in enumerate(operations):
            process = self._process[number]
            if operation.ok and operation.op == "acquire":
                hold = holds.setdefault((operation.result, process), Hold(operation.result, process))
                hold.first_call = min(hold.first_call, self.timeline.calls[number])
                of_acquire[number] = hold
                continue
            if operation.ok:
                masks = self._releases
            else:
                masks = self._free_releases if operation.op == "release" else self._free_acquires
            masks[process] = masks.get(process, 0) | 1 << number
        self._holds = sorted(holds.values(), key=lambda hold: (hold.token, hold.first_call))
        for before, hold in zip(self._holds, self._holds[1:], strict=False):
            hold.gap = hold.token - before.token - 1
        positions = {id(hold): position for position, hold in enumerate(self._holds)}
        #: Position of its hold, for each known acquire; -1 for all other operations.
        self._hold_of = [
            positions[id(of_acquire[n])] if n in of_acquire else -1 for n in range(len(operations))
        ]
        self._phantoms_max = sum(mask.bit_count() for mask in self._free_acquires.values())

    def initial(self) -> Configuration:
        """Nobody ever held the lock."""
        return Configuration((0, False, 0, 0), 0, 0)

    def on_call(self, at: int, number: int, configuration: Configuration) -> Configuration | None:
        """An acquire whose hold has ended came too late."""
        began, lasts, _, _ = configuration.core
        position = self._hold_of[number]
        if 0 <= position < began and not (lasts and position == began - 1):
            return None
        return configuration

    def on_return(self, at: int, number: int, configuration: Configuration) -> Configuration | None:
        """Nothing to decide for an acquire whose hold began, or a release that happened."""
        (began, lasts, used, released), spent, owed = configuration
        if self._hold_of[number] >= 0:
            return configuration if self._hold_of[number] < began else None
        if not released >> number & 1:
            return None
        return Configuration((began, lasts, used, released & ~(1 << number)), spent, owed)

    def options(
        self, at: int, number: int, configuration: Configuration, effort: Effort
    ) -> list[Configuration]:
        """Every useful chain of ends, phantoms and beginnings that ends with the operation done."""
        found: list[Configuration] = []
        # Phantoms between two holds go by rising number; the last one's number comes with the configuration.
        start = (configuration, -1)
        stack, seen = [start], {start}
        while stack:
            current, last_phantom = stack.pop()
            for after in self._placements(at, number, current, last_phantom):
                effort.spend(1)
                if after in seen:
                    continue
                seen.add(after)
                settled = self.on_return(at, number, after[0])
                if settled is None:
                    stack.append(after)
                else:
                    found.append(settled)
        found.reverse()
        return found

    def _placements(
        self, at: int, number: int, configuration: Configuration, last_phantom: int
    ) -> Iterator[tuple[Configuration, int]]:
        (began, lasts, used, released), spent, owed = configuration
        is_open = self.timeline.open[at]
        if lasts:
            process = self._holds[began - 1].process
            release = lowest(self._releases.get(process, 0) & is_open & ~released)
            if release >= 0:
                yield Configuration((began, False, used, released | 1 << release), spent, owed), -1
            unknown = lowest(self._free_releases.get(process, 0) & is_open & ~spent)
            if unknown >= 0:
                yield Configuration((began, False, used, released), spent | 1 << unknown, owed), -1
            return
        gap = self._holds[began].gap if began < len(self._holds) else NEVER
        if began < len(self._holds) and used <= gap and self._holds[began].first_call <= at:
            yield Configuration((began + 1, True, 0, released), spent, owed), -1
        if used < gap:
            # Where the tokens cannot run out, they need not be counted.
            used_after = 0 if gap >= self._phantoms_max else used + 1
            for release, acquire in self._phantoms(is_open, released, spent):
                # One that is not due itself is of use only ahead of the hold that would make it impossible.
                if release > last_phantom and not (release == number and last_phantom >= 0):
                    core = (began, False, used_after, released | 1 << release)
                    yield Configuration(core, spent | 1 << acquire, owed), release

    def _phantoms(self, is_open: int, released: int, spent: int) -> Iterator[tuple[int, int]]:
        """A `(known release, unknown acquire)` for each process that has both to spare."""
        for process, acquires in self._free_acquires.items():
            acquire = lowest(acquires & is_open & ~spent)
            release = lowest(self._releases[process] & is_open & ~released)
            if acquire >= 0 and release >= 0:
                yield release, acquire


def _drop_idle(operations: list[Operation]) -> list[Operation]:
    """Without the unknown operations that no result can need: acquires of those who never released, releases of
    those who never acquired."""
    acquirers = {identity(o.process) for o in operations if o.ok and o.op == "acquire"}
    releasers = {identity(o.process) for o in operations if o.ok and o.op == "release"}
    needed_by = {"acquire": releasers, "release": acquirers}
    return [o for o in operations if o.ok or identity(o.process) in needed_by[o.op]]
