"""After a run: what clients saw must have an explanation that does not use the inside of the nodes.

The checker gets the operations on keys for which it has a model. Locks of the small machine may end by themselves:
for each grant with a time to live there is a release that may have happened at any time (see tests/sim/check).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sim.check import Operation, Undecided, check_history

if TYPE_CHECKING:
    from tests.sim.world import World

MODELS = {"l": "lock", "q": "queue", "r": "register"}
#: Past this many steps a history counts as undecided; the check by the log has judged it already.
STEPS_MAX = 20_000


def check_histories(world: World, history: list[dict[str, Any]]) -> None:
    """Raises Violation where tokens fall or a key's history is not linearizable."""
    by_model: dict[str, list[Operation]] = {}
    tokens: dict[str, list[tuple[int, int, int]]] = {}
    for ended in history:
        model = MODELS.get(ended["key"][0])
        if model is None or (model == "lock" and ended["op"] == "read"):
            continue
        if model == "queue" and ended["op"] == "read":
            continue
        operation = _operation(ended)
        by_model.setdefault(model, []).append(operation)
        if model == "lock" and ended["op"] == "acquire" and operation.ok is not False:
            by_model[model].append(_may_expire(operation))
            if operation.ok:
                grant = (ended["call"], ended["return"], ended["result"])
                tokens.setdefault(ended["key"], []).append(grant)
    for key, grants in tokens.items():
        _check_tokens(world, key, grants)
    for model, operations in by_model.items():
        _check(world, model, operations)


def _operation(ended: dict[str, Any]) -> Operation:
    """A lock that is held by others, and a release by who holds nothing, certainly had no effect."""
    ok = ended["ok"]
    if ok and ended["op"] in ("acquire", "release") and not ended["result"]:
        ok = False
    returned = ended["return"] if ok is not None else None
    call, value = ended["call"], ended["value"]
    return Operation(ended["process"], ended["op"], ended["key"], value, call, returned, ok, ended["result"])


def _may_expire(acquire: Operation) -> Operation:
    return Operation(acquire.process, "release", acquire.key, None, acquire.call, None, None)


def _check(world: World, model: str, operations: list[Operation]) -> None:
    try:
        verdict = check_history(operations, model, STEPS_MAX)
    except Undecided:
        world.cover["history undecided by the checker"] += 1
        return
    world.cover["history checked"] += 1
    if not verdict.linearizable:
        shown = "; ".join(f"{one.process} {one.op} {one.value} -> {one.result}" for one in verdict.offending)
        world.fail(f"not linearizable ({model} {verdict.offending[0].key}): {shown}")


def _check_tokens(world: World, key: str, grants: list[tuple[int, int, int]]) -> None:
    """A grant called after another was answered carries no smaller token."""
    answered = 0
    ends = sorted((returned, token) for _, returned, token in grants)
    position = 0
    for call, _, token in sorted(grants):
        while position < len(ends) and ends[position][0] < call:
            answered = max(answered, ends[position][1])
            position += 1
        if token < answered:
            world.fail(f"tokens of {key} fell from {answered} to {token}")
