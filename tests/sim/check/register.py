"""Registers: which orders of reads, writes and cas are possible.

This keeps the search small: a write does not have to be placed if another write was placed while it was open, because
it may have happened just before that one, and nobody saw its value. So a write becomes a debt at its call, and the
debt ends as soon as any write is placed. A write is placed at its return if its debt has not ended, when a result
needs its value, or at its return in case a later result needs its value. All values that no result ever names are one
value, `UNNAMED`. Writes that may never have happened are no debt: they are means, used when a result needs them; of
several equal means the one that expires first. And the search does not leave a value that a result still needs if no
write can bring it back. With distinct values there is then little to choose.

Core of a configuration: (value, which certain cas happened). `spent`: writes and optional cas that were placed.
`owed`: open reads and failed cas that the value has not suited since their call; open writes whose debt has not
ended.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count

from tests.sim.check.history import Operation, identity
from tests.sim.check.search import (
    Configuration,
    Effort,
    Frontier,
    Timeline,
    bits,
    lowest,
    make_timeline,
    order_by_return,
)

#: The number of every value that no result names; the others count from 1.
UNNAMED = 0


class Kind(Enum):
    """What an operation is to the search."""

    #: Must find `expects`: a read, or a successful cas that changes nothing.
    SAME = auto()
    #: Must find anything but `expects`: a cas that failed.
    OTHER = auto()
    #: Puts `writes`.
    WRITE = auto()
    #: Must find `expects` and puts `writes`: a cas.
    SWAP = auto()


@dataclass(slots=True)
class Step:
    """An operation, reduced to what it demands and does. Values are identities, then numbers."""

    kind: Kind
    call: float
    #: None where it may take effect at any later time.
    end: float | None
    expects: object = None
    writes: object = None
    #: Whether it certainly happened, and so must have a place in the order.
    must: bool = True


class RegisterModel:
    """The operations of one key, for `search.has_order`."""

    def __init__(self, operations: list[Operation], optional: Collection[int] = ()) -> None:
        """`optional`: positions of operations that happened as they say or not at all."""
        steps = _drop_idle(
            [
                step
                for position, operation in enumerate(operations)
                for step in _make_steps(operation, position in optional)
            ]
        )
        spans = [(step.call, step.end) for step in steps]
        self._steps = steps = [steps[i] for i in order_by_return(spans)]
        self.timeline: Timeline = make_timeline([(step.call, step.end) for step in steps])
        self._initial_value = _number_values(steps)
        self._make_masks()

    def _make_masks(self) -> None:
        values = 1 + max((max(step.expects, step.writes) for step in self._steps), default=UNNAMED)
        values = max(values, self._initial_value + 1)
        #: Masks by value: who writes it, who swaps it away, whom it suits, who brings it about in any way.
        self._writers = [0] * values
        self._swappers = [0] * values
        self._suits = [0] * values
        self._sources = [0] * values
        #: By value: certain operations that ask for it.
        self._askers = [0] * values
        #: By value: rank of the last call of these, and of the last return of anything that asks for it.
        self._last_asked = [-1] * values
        self._asked_until = [-1] * values
        self._others_until = -1
        self._writes = self._swaps = self._must = self._others = 0
        for number, step in enumerate(self._steps):
            self._note_step(number, step)
        others_of = [0] * values
        for number in bits(self._others):
            others_of[self._steps[number].expects] |= 1 << number
        for value in range(values):
            self._suits[value] |= self._others & ~others_of[value]
        self._effects = self._writes | self._swaps

    def _note_step(self, number: int, step: Step) -> None:
        bit, call, end = 1 << number, self.timeline.calls[number], self.timeline.returns[number]
        if step.must:
            self._must |= bit
        if step.kind is Kind.WRITE:
            self._writes |= bit
            self._writers[step.writes] |= bit
        elif step.kind is Kind.SWAP:
            self._swaps |= bit
            self._swappers[step.expects] |= bit
        elif step.kind is Kind.SAME:
            self._suits[step.expects] |= bit
        else:
            self._others |= bit
            self._others_until = max(self._others_until, end)
        if step.kind in (Kind.WRITE, Kind.SWAP):
            self._sources[step.writes] |= bit
        if step.kind in (Kind.SAME, Kind.SWAP):
            self._asked_until[step.expects] = max(self._asked_until[step.expects], end)
            if step.must:
                self._askers[step.expects] |= bit
                self._last_asked[step.expects] = max(self._last_asked[step.expects], call)

    def initial(self) -> Configuration:
        """Nothing happened; the key holds null."""
        return Configuration((self._initial_value, 0), 0, 0)

    def on_call(self, at: int, number: int, configuration: Configuration) -> Configuration:
        """A read that the value suits has happened; other reads and certain writes become debts."""
        (value, swapped), spent, owed = configuration
        bit = 1 << number
        if bit & self._swaps or bit & self._suits[value] or not bit & self._must:
            return configuration
        return Configuration((value, swapped), spent, owed | bit)

    def on_return(self, at: int, number: int, configuration: Configuration) -> Configuration | None:
        """Forgets the operation, if it happened, or need not have and is of no use."""
        (value, swapped), spent, owed = configuration
        bit = 1 << number
        if owed & bit or bit & self._swaps & self._must & ~swapped:
            return None
        if bit & self._effects & ~spent & ~swapped:
            result = self._steps[number].writes
            if self._asked_until[result] > at or self._others_until > at:
                return None
        return Configuration((value, swapped & ~bit), spent & ~bit, owed)

    def options(
        self, at: int, number: int, configuration: Configuration, effort: Effort
    ) -> list[Configuration]:
        """Every useful chain of placements that ends with the operation placed or suited.

        A chain stops there: whatever else may follow can as well follow later. An overdue write is placed
        itself, as being overwritten by another at once is what placing the other later comes to.
        """
        bit = 1 << number
        found, tie = [], count()
        # The cheapest chains first: most others turn out to be no better than these.
        agenda, frontier = [(0, 0, configuration)], Frontier()
        while agenda:
            _, _, current = heappop(agenda)
            if current is not configuration and self._is_settled(bit, current):
                (value, swapped), spent, owed = current
                found.append(Configuration((value, swapped & ~bit), spent & ~bit, owed & ~bit))
                continue
            for after in self._placements(at, number, current):
                effort.spend(1)
                if frontier.add(after.core, after):
                    heappush(agenda, (after.spent.bit_count(), next(tie), after))
        found.reverse()
        is_due = configuration.owed & bit or bit & self._swaps & self._must
        if bit & self._effects and not is_due:
            result = self._steps[number].writes
            unused = configuration._replace(spent=configuration.spent | bit)
            if configuration.core[0] == result or not self._is_lost(at, result, unused):
                found.append(configuration)
        return found

    def _is_settled(self, bit: int, configuration: Configuration) -> bool:
        (_, swapped), spent, owed = configuration
        return bool(((spent | swapped) if bit & self._effects else ~owed) & bit)

    def _is_lost(self, at: int, value: int, configuration: Configuration) -> bool:
        """Whether a certain operation still asks for the value, and nothing is left that could bring it about."""
        (_, swapped), spent, owed = configuration
        if (self._sources[value] & ~spent & ~swapped) >> self.timeline.returned[at]:
            return False
        unmet = owed | self._swaps & self.timeline.open[at] & ~swapped
        return self._last_asked[value] > at or bool(unmet & self._askers[value])

    def _placements(self, at: int, number: int, configuration: Configuration) -> Iterator[Configuration]:
        """Every single placement that may serve the operation `number` or another debt on the way to it."""
        (value, swapped), spent, owed = configuration
        free = self.timeline.open[at] & ~spent & ~swapped
        swaps = free & self._swaps
        debts = owed & ~self._writes
        wanted = self._wanted(debts, swaps)
        if wanted is not None and 1 << number & self._effects:
            step = self._steps[number]
            wanted.add(step.writes if step.kind is Kind.WRITE else step.expects)

        is_lost = self._is_lost(at, value, configuration)
        tried = set()
        for swap in bits(swaps & self._swappers[value]):
            bit, result = 1 << swap, self._steps[swap].writes
            if bit & self._must:
                after = Configuration((result, swapped | bit), spent, owed & ~self._suits[result])
                if not self._is_lost(at, value, after):
                    yield after
            elif (
                (wanted is None or result in wanted or swap == number) and not is_lost and result not in tried
            ):
                tried.add(result)
                yield Configuration((result, swapped), spent | bit, owed & ~self._suits[result])

        if is_lost:
            return
        writes = free & self._writes
        if wanted is None:
            wanted = {self._steps[write].writes for write in bits(writes)}
        for result in sorted(wanted):
            write = lowest(writes & self._writers[result])
            # A write that suits nobody and is not swapped away is useless, unless it is itself overdue.
            useful = write == number or debts & self._suits[result] or swaps & self._swappers[result]
            if write >= 0 and useful:
                after = owed & ~self._writes & ~self._suits[result]
                yield Configuration((result, swapped), spent | 1 << write, after)

    def _wanted(self, debts: int, swaps: int) -> set[int] | None:
        """Values that open operations ask for, or that lead to one by optional cas; None: any may be."""
        if debts & self._others:
            return None
        wanted = {self._steps[number].expects for number in bits(debts)}
        wanted.update(self._steps[number].expects for number in bits(swaps & self._must))
        optional = [self._steps[number] for number in bits(swaps & ~self._must)]
        grown = True
        while grown and optional:
            before = len(wanted)
            wanted.update(step.expects for step in optional if step.writes in wanted)
            grown = len(wanted) > before
        return wanted


def _make_steps(operation: Operation, is_optional: bool) -> list[Step]:
    """The operation as a step; none where it demands and does nothing."""
    if operation.ok is False:
        return []
    known = bool(operation.ok)
    end = operation.return_ if known else None
    must = known and not is_optional
    if operation.op == "read":
        step = Step(Kind.SAME, operation.call, end, expects=identity(operation.result))
    elif operation.op == "write":
        step = Step(Kind.WRITE, operation.call, end, writes=identity(operation.value))
    else:
        expects, writes = map(identity, operation.value)
        kind = Kind.SAME if expects == writes else Kind.SWAP
        if known and not operation.result:
            kind = Kind.OTHER
        step = Step(kind, operation.call, end, expects, writes)
    step.must = must
    return [step] if must or step.kind in (Kind.WRITE, Kind.SWAP) else []


def _drop_idle(steps: list[Step]) -> list[Step]:
    """Without the optional effects that no result can need: those that leave a value which nobody asks for. (A
    failed cas asks for any other value, so with one of these everything may be needed.)"""
    if any(step.kind is Kind.OTHER for step in steps):
        return steps
    while True:
        asked = {step.expects for step in steps if step.kind is not Kind.WRITE}
        kept = [step for step in steps if step.must or step.writes in asked]
        if len(kept) == len(steps):
            return kept
        steps = kept


def _number_values(steps: list[Step]) -> int:
    """Replaces the steps' values by numbers, `UNNAMED` for those that none expects; gives that of null."""
    numbers: dict[object, int] = {}
    for step in steps:
        if step.kind is not Kind.WRITE:
            numbers.setdefault(step.expects, len(numbers) + 1)
    for step in steps:
        step.expects = UNNAMED if step.kind is Kind.WRITE else numbers[step.expects]
        step.writes = numbers.get(step.writes, UNNAMED) if step.kind in (Kind.WRITE, Kind.SWAP) else UNNAMED
    return numbers.get(None, UNNAMED)
