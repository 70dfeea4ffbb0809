"""The checker's simple twin: it tries every order of a tiny history against a plain object, and does nothing
cleverer.

It shares no code with `tests.sim.check` except the `Operation`.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from tests.sim.check import Operation

State = Any


def is_linearizable(operations: list[Operation], model: str, optional: Collection[Operation] = ()) -> bool:
    """Whether each key's operations have a legal order. Takes time exponential in their number.

    `optional`: operations (the very objects) with ok true that happened as they say, or not at all.
    """
    spared = {id(operation) for operation in optional}
    for key in {json.dumps(operation.key) for operation in operations}:
        history = [o for o in operations if json.dumps(o.key) == key and o.ok is not False]
        if not _has_order(history, spared, _initial(history, model), _outcomes_of(model)):
            return False
    return True


def _has_order(left: list[Operation], spared: Collection[int], state: State, outcomes: Any) -> bool:
    if not any(o.ok and id(o) not in spared for o in left):
        return True
    first_end = min(o.return_ for o in left if o.ok)
    for position, operation in enumerate(left):
        rest = left[:position] + left[position + 1 :]
        if id(operation) in spared and _has_order(rest, spared, state, outcomes):
            return True
        may_be_next = operation.call <= first_end
        if may_be_next and any(
            _has_order(rest, spared, after, outcomes) for after in outcomes(operation, state)
        ):
            return True
    return False


def _initial(history: list[Operation], model: str) -> State:
    if model != "lock":
        return {"register": None, "queue": ()}[model]
    tokens = [o.result for o in history if o.ok and o.op == "acquire"] or [0]
    # Holder, its token, the last token; then the bounds between which unseen tokens are tried.
    unseen = sum(o.op == "acquire" and not o.ok for o in history)
    floor, ceiling = min(tokens) - unseen - 1, max(tokens) + unseen + 1
    return (None, None, floor, ceiling)


def _outcomes_of(model: str) -> Any:
    return {"register": _register, "lock": _lock, "queue": _queue}[model]


def _register(operation: Operation, state: State) -> Iterator[State]:
    """States that the operation may leave behind, if it can have given its result."""
    if operation.op == "read":
        if not operation.ok or operation.result == state:
            yield state
    elif operation.op == "write":
        yield operation.value
    else:
        expected, new = operation.value
        swapped = state == expected
        if not operation.ok or operation.result == swapped:
            yield new if swapped else state


def _lock(operation: Operation, state: State) -> Iterator[State]:
    holder, token, last, ceiling = state
    known = bool(operation.ok)
    if operation.op == "release":
        if holder == operation.process:
            yield (None, None, last, ceiling)
        elif not known:
            yield state
    elif holder == operation.process:
        if not known or operation.result == token:
            yield state
    elif holder is None:
        tokens = [operation.result] if known else range(last + 1, ceiling)
        for fresh in tokens:
            if fresh > last:
                yield (operation.process, fresh, fresh, ceiling)
    elif not known:
        yield state


def _queue(operation: Operation, state: State) -> Iterator[State]:
    if operation.op == "enqueue":
        yield (*state, operation.value)
    elif not operation.ok:
        yield state[1:]
    elif operation.result is None:
        if not state:
            yield state
    elif state and state[0] == operation.result:
        yield state[1:]
