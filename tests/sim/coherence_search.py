"""Exhaustive breadth-first search through the coherence model.

The rule of this file: it knows nothing about the protocol. It remembers states by 64-bit hashes that do not depend on
the names of nodes. So it visits one of up to six states that differ only in names.
"""

from dataclasses import dataclass, field

from tests.sim.coherence_model import Model
from tests.sim.coherence_rules import Config, Label, State


@dataclass
class Result:
    """What a search found."""

    states: int = 0
    #: Every state within so many events of the start was visited.
    depth: int = 0
    #: No state was left out: everything reachable was visited.
    complete: bool = False
    #: Events that lead to the first violation, or none.
    trace: list[Label] = field(default_factory=list)


def search(config: Config, *, depth_max: int = 10_000, states_max: int = 10_000_000) -> Result:
    """Visit everything within `depth_max` events of the starts, or until a violation or some `states_max` states."""
    model = Model(config)
    everyone = 2**config.nodes - 1
    firsts = [(everyone, config.lease), (everyone, 0), (1, 0), (0, 0)]
    starts = [model.settled(model.first(*first)) for first in firsts]
    parents: dict[int, tuple[int, Label]] = {model.mark(state): (0, ("start",)) for state in starts}
    frontier = list(zip(parents, starts, strict=True))
    result = Result()
    while frontier and result.depth < depth_max:
        reached: list[tuple[int, State]] = []
        met: set[int] = set()
        for origin, state in frontier:
            if len(parents) >= states_max:
                result.states = len(parents)
                return result
            for label, raw in model.successors(state):
                # Events that do not concern each other lead to the same state in either order.
                short = hash(raw)
                if short in met:
                    continue
                met.add(short)
                following = model.settled(raw)
                mark = model.mark(following)
                if mark in parents:
                    continue
                parents[mark] = (origin, label)
                if model.is_violated(following):
                    return Result(len(parents), result.depth + 1, trace=_trace(parents, mark))
                reached.append((mark, following))
        frontier = reached
        result.depth += 1
    result.states = len(parents)
    result.complete = not frontier
    return result


def _trace(parents: dict[int, tuple[int, Label]], mark: int) -> list[Label]:
    labels = []
    while mark:
        mark, label = parents[mark]
        labels.append(label)
    return labels[::-1]
