"""A failing seed with less in it: fewer faults, fewer clients, as long as it fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.shell.campaign import run_alone
from tests.shell.plan import draw_plan
from tests.shell.run import LeftOut, Outcome

_VARYING = re.compile(r"[0-9]+|'[^']*'|\([^)]*\)")


def kind_of(outcome: Outcome) -> str:
    """What failed, without what differs from run to run."""
    return _VARYING.sub("", outcome.failure)[:40] if outcome.failure else ""


def shrink(seed: int, tell: Callable[[str], None] = print) -> tuple[Outcome, LeftOut]:
    """The least that was found. The seed must fail."""
    left_out = LeftOut()
    least, _ = run_alone(seed, left_out)
    assert least.failure, f"seed {seed} does not fail"
    kind = kind_of(least)
    goes_on = True
    while goes_on:
        goes_on = False
        for candidate in _candidates(draw_plan(seed).client_count, least.faults, left_out):
            outcome, _ = run_alone(seed, candidate)
            if kind_of(outcome) == kind:
                least, left_out, goes_on = outcome, candidate, True
                tell(f"still fails without {len(left_out.faults)} faults and {len(left_out.clients)} clients")
                break
    return least, left_out


def _candidates(clients: int, faults: int, left_out: LeftOut) -> Iterator[LeftOut]:
    """Less than now: halves first, then single ones."""
    for group in _groups([number for number in range(faults) if number not in left_out.faults]):
        yield LeftOut(left_out.faults | group, left_out.clients)
    for group in _groups([number for number in range(clients) if number not in left_out.clients]):
        yield LeftOut(left_out.faults, left_out.clients | group)


def _groups(numbers: list[int]) -> Iterator[frozenset[int]]:
    size = len(numbers)
    while size > 1:
        size = size // 2
        for start in range(0, len(numbers), size):
            yield frozenset(numbers[start : start + size])
    if len(numbers) == 1:
        yield frozenset(numbers)
