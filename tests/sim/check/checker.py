"""The verdict on a history: it checks each key alone, then finds the smallest offending part of a key."""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from tests.sim.check.history import MODELS, HistoryError, Operation, check_operation, identity
from tests.sim.check.lock import LockModel
from tests.sim.check.queue import QueueModel
from tests.sim.check.register import RegisterModel
from tests.sim.check.search import STEPS_MAX, Effort, Undecided, has_order

_MODELS = {"register": RegisterModel, "lock": LockModel, "queue": QueueModel}

#: Steps that the search for the smallest offending part may take in all. With few distinct values it may not be the
#: smallest that is found by then.
SHRINK_STEPS_MAX = 400_000
#: Steps that one attempt may take, or twice as many as the verdict took if that is more. An attempt that would take
#: more leaves the operations in.
SHRINK_ATTEMPT_STEPS_MAX = 20_000

#: Operations with one value beyond which none of them is shown as its source.
SOURCES_MAX = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `check_history` found."""

    linearizable: bool
    #: By time of call: a smallest set of operations of one key that contradict each other; empty where there is
    #: none.
    offending: list[Operation] = field(default_factory=list)
    #: By time of call: where the values came from that the offending operations name, if they do not show it; for
    #: the reader.
    sources: list[Operation] = field(default_factory=list)


def check_history(operations: Iterable[Operation], model: str, steps_max: int = STEPS_MAX) -> Verdict:
    """Says whether the operations, in any order given, are linearizable as operations on objects of `model`.

    Raises: HistoryError for an operation that is malformed or of another model, naming it by its position
    counted from 1; Undecided where one key's search took more than `steps_max` steps and no key is wrong.
    """
    if model not in MODELS:
        raise HistoryError(f"no model {model!r}: {', '.join(MODELS)}")
    keys: dict[Hashable, list[Operation]] = {}
    for position, operation in enumerate(operations, 1):
        try:
            check_operation(operation, model)
        except HistoryError as error:
            raise HistoryError(f"operation {position}: {error}") from None
        keys.setdefault(identity(operation.key), []).append(operation)

    shrinks, undecided = [], None
    for history in keys.values():
        judged, effort = _MODELS[model](history), Effort(steps_max)
        try:
            if not has_order(judged, effort):
                failed_at = judged.timeline.times[effort.furthest]
                shrinks.append(_Shrink(history, model, failed_at, steps_max - effort.left))
        except Undecided as error:
            undecided = error
    if shrinks:
        share = SHRINK_STEPS_MAX // len(shrinks)
        offending = min((shrink.run(share) for shrink in shrinks), key=len)
        return Verdict(False, offending, _find_sources(keys[identity(offending[0].key)], offending))
    if undecided:
        raise undecided
    return Verdict(True)


def _find_sources(history: list[Operation], offending: list[Operation]) -> list[Operation]:
    last = max(operation.return_ for operation in offending)
    sources: dict[Hashable, list[Operation]] = {}
    for operation in history:
        if operation.ok is not False and operation.call <= last:
            if operation.op in ("write", "enqueue"):
                sources.setdefault(identity(operation.value), []).append(operation)
            elif operation.op == "cas" and operation.result is not False:
                sources.setdefault(identity(operation.value[1]), []).append(operation)
    named = {identity(operation.result) for operation in offending if operation.op in ("read", "dequeue")}
    named |= {identity(operation.value[0]) for operation in offending if operation.op == "cas"}
    shown = set(map(id, offending))
    found = {
        id(source): source
        for value in named
        if len(sources.get(value, ())) <= SOURCES_MAX
        for source in sources.get(value, ())
        if id(source) not in shown
    }
    return sorted(found.values(), key=lambda operation: operation.call)


class _Shrink:
    """Finds the offending part of one key's history that has no legal order.

    An operation is left out by making it optional, which can only make more orders legal. So a part that offends
    goes on offending when operations are added to it, and one pass over single operations leaves none that could
    be spared. Before that comes the prefix by time of return at whose end the search failed, then the last few of
    that: most parts that offend are short, and most attempts at long ones slow.
    """

    def __init__(self, history: list[Operation], model: str, failed_at: float, verdict_steps: int) -> None:
        self._history = history
        self._model = _MODELS[model]
        self._failed_at = failed_at
        self._attempt_steps_max = max(SHRINK_ATTEMPT_STEPS_MAX, 2 * verdict_steps)
        self._steps_left = 0

    def run(self, steps_max: int) -> list[Operation]:
        """The part, by time of call."""
        self._steps_left = steps_max
        known = [position for position, operation in enumerate(self._history) if operation.ok]
        known.sort(key=lambda position: self._history[position].return_)
        prefix = [position for position in known if self._history[position].return_ <= self._failed_at]
        kept = self._thin(self._tail(prefix if self._offends(prefix) else known))
        return sorted((self._history[position] for position in kept), key=lambda o: (o.call, o.return_))

    def _tail(self, kept: list[int]) -> list[int]:
        """The last few, or as many of the last as it takes."""
        length = 2
        while length < len(kept) and self._steps_left > 0:
            if self._offends(kept[-length:]):
                return kept[-length:]
            length *= 2
        return kept

    def _thin(self, kept: list[int]) -> list[int]:
        """Leaves out halves, quarters and so on, down to single operations, wherever the rest still offends."""
        chunk = len(kept)
        while chunk > 1 and len(kept) > 1:
            chunk = (min(chunk, len(kept)) + 1) // 2
            start = 0
            while start < len(kept) and self._steps_left > 0:
                fewer = kept[:start] + kept[start + chunk :]
                if self._offends(fewer):
                    kept = fewer
                else:
                    start += chunk
        return kept

    def _offends(self, kept: list[int]) -> bool:
        """Whether the operations at these positions have no legal order, whether or not the rest happened."""
        last = max(self._history[position].return_ for position in kept) if kept else -math.inf
        part, optional = [], set()
        chosen = set(kept)
        # What was called after the last of them returned can explain nothing.
        for position, operation in enumerate(self._history):
            if operation.ok is not False and operation.call <= last:
                if operation.ok and position not in chosen:
                    optional.add(len(part))
                part.append(operation)
        self._steps_left -= len(part)
        granted = max(0, min(self._attempt_steps_max, self._steps_left))
        effort = Effort(granted)
        try:
            return not has_order(self._model(part, optional), effort)
        except Undecided:
            return False
        finally:
            self._steps_left -= granted - effort.left
