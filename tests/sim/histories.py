"""After a run: what clients saw must be explainable without looking inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.sim.plan import Plan
    from tests.sim.world import World


def check_histories(world: World, plan: Plan, history: list[dict[str, Any]]) -> None:
    """Rising tokens, here; linearizability of each key by the checker."""
    newest: dict[str, list[tuple[int, int]]] = {}
    for operation in history:
        if operation["op"] == "acquire" and operation["ok"] and operation["result"]:
            newest.setdefault(operation["key"], []).append(
                (operation["call"], operation["return"], operation["result"])
            )
    for key, grants in newest.items():
        _check_tokens(world, key, grants)


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
