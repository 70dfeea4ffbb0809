"""Decides whether a history of operations on registers, locks or queues is linearizable.

Use it as a command, `python -m tests.sim.check HISTORY [--model register|lock|queue]`, or as a library,
`check_history(operations, model) -> Verdict`. It uses only the standard library and knows nothing about the project's
code.

A history is JSON lines, one operation each (blank lines are skipped):

    {"process": "p1", "op": "write", "key": "k", "value": 5, "call": 10, "return": 14, "ok": true, "result": null}

Every operation
    `call` and `return` are numbers on one clock of any unit. An operation came before another when its return is
    *smaller* than the other's call; equal times count as overlapping, so a coarse clock never raises a false alarm.
    Operations of one process may overlap. Keys are independent objects: a history is linearizable when the history of
    each key is (Herlihy and Wing 1990, locality). `ok` true: it took effect at one moment between call and return,
    and gave `result`. `ok` false: it certainly had no effect. It is ignored: a refusal says nothing about the state.
    `ok` null: unknown. It takes effect once, at any moment after its call (its `return`, if any, is no bound), or
    never. Its `result` is ignored. Values and keys are compared as JSON: true is not 1, 1 is 1.0, the order of an
    object's fields does not count.

Registers: `read`, `write`, `cas`
    A key holds null until it is written. `read` gives the value. `cas` has the value `[expected, new]`: its result is
    true if the key held `expected` and now holds `new`, and false, without effect, if the key held anything else. An
    unknown cas that finds another value than it expects does nothing.

Locks: `acquire`, `release` (exclusive, owned by the process)
    `acquire` gives an integer token. On a free lock the token is larger than every earlier token of the key, unknown
    ones included; for the process that holds the lock already it is the token of that hold. It never succeeds while
    another process holds the lock. A `release` with ok true was made by the holder. An unknown acquire may take the
    lock with a token that nobody saw (it uses up one integer); on a lock of another process it does nothing. An
    unknown release by a process that does not hold the lock does nothing. The model has no clock: if a hold may end
    by itself, record a release by its owner with ok null, called at the same time as the acquire.

Queues: `enqueue`, `dequeue` (first in, first out)
    `dequeue` gives the oldest value and removes it, or null when the queue was empty at that moment. An unknown
    dequeue may have removed the value that was oldest. Null cannot be enqueued: it would look like "empty".

The offending part
    `Verdict.offending` is a small set of ok operations of one key that contradict each other, *whatever happened to
    the rest*. With every other operation of the key optional, there is still no legal order; with one more of them
    optional, there is one. An optional register operation happened as it says, or not at all; an optional lock or
    queue operation counts as unknown. "Not at all" is always possible, so the part alone is not linearizable either,
    and you can give it to the checker again. (To simply drop operations would blame any read whose write is gone.)
    The search for it is bounded; if few values are used very often, the result may be larger than the smallest set.
    The command also shows the writes and enqueues of the values that the part names.

How it decides: it checks each key alone, by just-in-time linearization (Lowe 2017) over the events in time order. It
remembers the configurations that failed (Wing and Gong 1993). For each model it has a form of the state in which
unknown and overlapping effects cost nothing until a result depends on them; see `register`, `lock` and `queue`. The
problem is NP-complete if values repeat; after `STEPS_MAX` steps for one key the answer is `Undecided`.
"""

from tests.sim.check.checker import Verdict, check_history
from tests.sim.check.history import HistoryError, Operation, parse_history
from tests.sim.check.search import STEPS_MAX, Undecided

__all__ = [
    "STEPS_MAX",
    "HistoryError",
    "Operation",
    "Undecided",
    "Verdict",
    "check_history",
    "parse_history",
]
