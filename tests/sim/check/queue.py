"""Queues: which orders of enqueues and dequeues are possible.

The order of overlapping enqueues does not matter until they are dequeued, so it is never searched. A value may be the
oldest exactly if no enqueue that is still in the queue returned before that value's enqueue was called. The queue may
be empty exactly if every enqueue that has returned is dequeued. So a configuration only needs the set of dequeued
enqueues. To take out a value, everything that returned before its call has to go first, in the order of the returns,
each by a dequeue that gave this value or by an unknown one. With distinct values there is nothing to choose. Unknown
dequeues are means, used only then. Unknown enqueues never return, so they stop nothing.

Core of a configuration: (dequeued enqueues, dequeues with a value that happened), as masks. `spent`: unknown dequeues
used. `owed`: open dequeues that found nothing, while the queue has not been empty since their call.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from tests.sim.check.history import Operation, identity
from tests.sim.check.search import (
    Configuration,
    Effort,
    Timeline,
    bits,
    lowest,
    make_timeline,
    order_by_return,
)


class QueueModel:
    """The operations of one key, for `search.has_order`."""

    def __init__(self, operations: list[Operation], optional: Collection[int] = ()) -> None:
        """`optional`: positions of operations to be taken for unknown ones."""
        operations = [o.unknown() if i in optional else o for i, o in enumerate(operations)]
        operations = [operation for operation in operations if operation.ok is not False]
        spans = [(operation.call, operation.return_ if operation.ok else None) for operation in operations]
        order = order_by_return(spans)
        operations = [operations[i] for i in order]
        self.timeline: Timeline = make_timeline([spans[i] for i in order])
        #: Nothing can be legal: a value was dequeued more often than enqueued.
        self.is_hopeless = False
        self._make_masks(operations)

    def _make_masks(self, operations: list[Operation]) -> None:
        self._value = [None] * len(operations)
        #: Masks by value: its enqueues, its known dequeues.
        self._enqueues_of: dict[object, int] = {}
        self._dequeues_of: dict[object, int] = {}
        self._enqueues = self._dequeues = self._empties = self._free_dequeues = 0
        for number, operation in enumerate(operations):
            bit = 1 << number
            if operation.op == "enqueue":
                value = self._value[number] = identity(operation.value)
                self._enqueues |= bit
                self._enqueues_of[value] = self._enqueues_of.get(value, 0) | bit
            elif not operation.ok:
                self._free_dequeues |= bit
            elif operation.result is None:
                self._empties |= bit
            else:
                value = self._value[number] = identity(operation.result)
                self._dequeues |= bit
                self._dequeues_of[value] = self._dequeues_of.get(value, 0) | bit
        #: Known dequeues of values that were enqueued once: their partner is certain.
        self._certain = 0
        #: By value: enqueues that no known dequeue accounts for; only so many may be lost to unknown ones.
        self._surplus = Counter({value: mask.bit_count() for value, mask in self._enqueues_of.items()})
        for value, mask in self._dequeues_of.items():
            if self._enqueues_of.get(value, 0).bit_count() == 1:
                self._certain |= mask
            self._surplus[value] -= mask.bit_count()
            self.is_hopeless |= self._surplus[value] < 0

    def _in_the_way(self, at: int, dequeued: int) -> int:
        """Enqueues that returned before the event and are in the queue."""
        return self._enqueues & ~dequeued & (1 << self.timeline.returned[at]) - 1

    def _may_be_oldest(self, at: int, enqueue: int, dequeued: int) -> bool:
        call = self.timeline.calls[enqueue]
        return call <= at and not self._in_the_way(call, dequeued)

    def initial(self) -> Configuration:
        """Nothing was ever enqueued."""
        return Configuration((0, 0), 0, 0)

    def on_call(self, at: int, number: int, configuration: Configuration) -> Configuration | None:
        """Makes everything happen that certainly may as well happen now."""
        if self.is_hopeless:
            return None
        bit = 1 << number
        if bit & self._free_dequeues:
            return configuration
        if bit & self._empties:
            configuration = configuration._replace(owed=configuration.owed | bit)
        return self._settle(at, configuration)

    def on_return(self, at: int, number: int, configuration: Configuration) -> Configuration | None:
        """Nothing to decide, unless a dequeue is overdue, or open ones need the queue empty just before now."""
        (dequeued, done), _, owed = configuration
        bit = 1 << number
        if bit & self._enqueues:
            return None if owed and not dequeued & bit else configuration
        if bit & self._empties:
            return None if owed & bit else configuration
        return configuration if done & bit else None

    def options(
        self, at: int, number: int, configuration: Configuration, effort: Effort
    ) -> list[Configuration]:
        """Every useful way to clear what is in the way."""
        bit = 1 << number
        if bit & self._dequeues:
            return self._take(at, number, configuration, effort)
        clearings = self._clearings(at, configuration, self._owes_nothing, effort)
        emptied = [after for after in clearings if not after.owed]
        if bit & self._enqueues:
            return [configuration, *emptied]
        return emptied

    def _settle(self, at: int, configuration: Configuration) -> Configuration:
        """Lets dequeues happen whose value is certain and may be the oldest, then those that find nothing."""
        (dequeued, done), spent, owed = configuration
        is_open = self.timeline.open[at]
        moved = True
        while moved:
            moved = False
            for number in bits(self._certain & is_open & ~done):
                enqueue = lowest(self._enqueues_of[self._value[number]])
                if self._may_be_oldest(at, enqueue, dequeued):
                    dequeued, done, moved = dequeued | 1 << enqueue, done | 1 << number, True
        if owed and not self._in_the_way(at, dequeued):
            owed = 0
        return Configuration((dequeued, done), spent, owed)

    @staticmethod
    def _owes_nothing(configuration: Configuration) -> bool:
        return not configuration.owed

    def _clearings(
        self,
        at: int,
        configuration: Configuration,
        is_enough: Callable[[Configuration], bool],
        effort: Effort,
    ) -> Iterator[Configuration]:
        """The configuration, and each one that taking out the longest-returned enqueue leads to, no further
        than `is_enough` asks."""
        while True:
            effort.spend(1)
            yield configuration
            (dequeued, done), spent, owed = configuration
            oldest = lowest(self._in_the_way(at, dequeued))
            if oldest < 0 or is_enough(configuration):
                return
            value = self._value[oldest]
            is_open = self.timeline.open[at]
            # If a dequeue that gave this value is open, it is the one: were it an unknown one and that to take an
            # equal value later, the two could change places.
            known = lowest(self._dequeues_of.get(value, 0) & is_open & ~done)
            unknown = lowest(self._free_dequeues & is_open & ~spent)
            if known >= 0:
                done |= 1 << known
            elif unknown >= 0 and self._may_lose(value, dequeued, done):
                spent |= 1 << unknown
            else:
                return
            configuration = self._settle(at, Configuration((dequeued | 1 << oldest, done), spent, owed))

    def _may_lose(self, value: object, dequeued: int, done: int) -> bool:
        """Whether an unknown dequeue may take the value and leave enough for the known ones."""
        taken = (dequeued & self._enqueues_of[value]).bit_count()
        accounted = (done & self._dequeues_of.get(value, 0)).bit_count()
        return taken - accounted < self._surplus[value]

    def _take(
        self, at: int, number: int, configuration: Configuration, effort: Effort
    ) -> list[Configuration]:
        """The overdue dequeue takes its value out, as it is or after clearing older ones.

        Of the enqueues that may be the oldest it takes the one that returned first, which is in the way of most.
        Once that is the first of all that were called, clearing more cannot offer a better one.
        """
        bit = 1 << number
        candidates = self._enqueues_of[self._value[number]]
        called = sum(1 << enqueue for enqueue in bits(candidates) if self.timeline.calls[enqueue] <= at)

        def taken(current: Configuration) -> int:
            """The enqueue that it takes in this configuration; -1 for none."""
            dequeued = current.core[0]
            free = bits(called & ~dequeued)
            return next((enqueue for enqueue in free if self._may_be_oldest(at, enqueue, dequeued)), -1)

        def is_enough(current: Configuration) -> bool:
            dequeued, done = current.core
            return bool(done & bit) or lowest(called & ~dequeued) in (-1, taken(current))

        found: list[Configuration] = []
        last = -1
        for current in self._clearings(at, configuration, is_enough, effort):
            (dequeued, done), spent, owed = current
            if done & bit:
                found.append(current)
            elif (enqueue := taken(current)) != last:
                last = enqueue
                after = Configuration((dequeued | 1 << enqueue, done | bit), spent, owed)
                found.append(self._settle(at, after))
        found.reverse()
        return found
