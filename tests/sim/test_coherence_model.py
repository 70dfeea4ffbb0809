"""The coherence protocol, explored exhaustively: as designed it never shows a value older than one that was seen, and
the search finds every bug that is planted in it.

`COHERENCE_MODEL_STATES` (default 10,000) bounds the search of the one configuration that is too large to finish in a
test run; set it to some hundred thousand or a million for a deeper look.
"""

import os

import pytest

from tests.sim.coherence_model import Model
from tests.sim.coherence_rules import BUGS, NONE, Config, State
from tests.sim.coherence_search import Result, search

STATES_MAX = int(os.environ.get("COHERENCE_MODEL_STATES", "10000"))

#: Small enough that every reachable state is visited.
COMPLETE = {
    "three nodes, an election": Config(nodes=3, lease=1, puts=1, fills=0, elections=1),
    "two nodes, a fill and an election": Config(nodes=2, lease=1, puts=1, fills=1, elections=1),
    "two nodes, a finer clock": Config(nodes=2, lease=2, puts=1, fills=0, elections=1),
    "two nodes, two elections": Config(nodes=2, lease=1, puts=1, fills=0, elections=2),
    "two nodes, two keys": Config(nodes=2, keys=2, lease=1, puts=1, fills=1, elections=0),
    "two nodes, a delete": Config(nodes=2, lease=1, puts=0, fills=1, deletes=1, elections=1),
    "two nodes, a restart": Config(nodes=2, lease=1, puts=1, fills=1, elections=0, restarts=1),
    "two nodes, an invalidated tag": Config(
        nodes=2, lease=1, puts=1, fills=0, invalidations=1, elections=0
    ),
    "three nodes, a tag of two lines": Config(
        nodes=3, keys=2, lease=1, puts=0, fills=0, invalidations=1, elections=0
    ),
    "two nodes, a tag and an election": Config(
        nodes=2, lease=1, puts=0, fills=1, invalidations=1, elections=1
    ),
    "two nodes, drifting clocks": Config(nodes=2, lease=1, drift=1, puts=1, fills=0, elections=1),
}
#: As much of this as the bound allows.
LARGE = Config(nodes=3, lease=2, puts=2, fills=1, deletes=1, elections=2)

_NO_ELECTION = {"elections": 0, "lease": 1}
#: The size at which each bug shows.
SIZES = {
    "no lease check": {"fills": 0, **_NO_ELECTION},
    "lease counted from receipt": {"fills": 0, **_NO_ELECTION},
    "lease not bounded by Q": {"fills": 0, "lease": 1},
    "lease given anew too early": {"fills": 0, **_NO_ELECTION},
    "lease before the no-op": {"fills": 0, "lease": 1},
    "leader's own lease before the no-op": {"fills": 0, "lease": 1},
    "no wait after an election": {"lease": 1},
    "invalidation not awaited": {"fills": 0, **_NO_ELECTION},
    "fill that does not wait": _NO_ELECTION,
    "own node not awaited": _NO_ELECTION,
    "early read by the writer": {"fills": 0, **_NO_ELECTION},
    "earlier leases forgotten": {"fills": 0, "lease": 1},
    "grants outlive a restart": {"fills": 0, "restarts": 1, **_NO_ELECTION},
    "absence shown at once": {"puts": 0, "fills": 0, "deletes": 1, **_NO_ELECTION},
    "no margin for drift": {"fills": 0, "drift": 1, **_NO_ELECTION},
    "tag not awaited": {"puts": 0, "fills": 0, "invalidations": 1, **_NO_ELECTION},
    "tag awaits only what it removed": {
        "puts": 0, "fills": 0, "deletes": 1, "invalidations": 1, **_NO_ELECTION
    },
}


def _print(capsys: pytest.CaptureFixture[str], name: str, result: Result) -> None:
    extent = f"all of them, to depth {result.depth}" if result.complete else f"all to depth {result.depth}"
    if result.trace:
        extent = f"found after {result.depth} events"
    with capsys.disabled():
        print(f"\ncoherence model, {name}: {result.states:,} states, {extent}")


@pytest.mark.parametrize("name", COMPLETE)
def test_no_reachable_state_shows_an_older_value(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the whole of a small world is clean."""
    result = search(COMPLETE[name])

    _print(capsys, name, result)
    assert result.trace == []
    assert result.complete


def test_a_larger_world_is_clean_as_far_as_the_search_went(capsys: pytest.CaptureFixture[str]) -> None:
    result = search(LARGE, states_max=STATES_MAX)

    _print(capsys, "a larger world", result)
    assert result.trace == []


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the search bites. Every rule of the protocol is needed: without it an older value is shown."""
    result = search(Config(**SIZES[bug], bugs=frozenset({bug})), states_max=200_000)

    _print(capsys, bug, result)
    assert result.trace, f"not found: {BUGS[bug]}"


def _renamed(state: State, names: tuple[int, ...]) -> State:
    """The same state with node `n` called `names[n]`."""
    log, nodes, leads, operations, seen, left = state

    def row(items: tuple) -> tuple:
        return tuple(items[names.index(n)] for n in range(len(names)))

    def bits(holders: int) -> int:
        return sum(1 << names[n] for n in range(len(names)) if holders >> n & 1)

    log = tuple((term, versions, tuple(map(bits, holders)), here) for term, versions, holders, here in log)
    leads = tuple(
        (*lead[:4], row(lead[4]), row(lead[5]), row(lead[6]), tuple(map(row, lead[7]))) if lead else NONE
        for lead in row(leads)
    )
    operations = tuple((kind, names[node], *mid, names[leader], term, answered)
                       for kind, node, *mid, leader, term, answered in operations)  # fmt: skip
    return (log, row(nodes), leads, operations, seen, left)


def test_states_that_differ_only_in_names_are_one_and_others_are_not() -> None:
    """Goal: what the search saves by symmetry it does not lose. The dumb twin remembers states whole."""
    config = Config(nodes=2, lease=1, puts=1, fills=0, elections=1)
    model = Model(config)
    frontier = [model.settled(model.first(*first)) for first in ((3, 1), (3, 0), (1, 0), (0, 0))]
    whole = set(frontier)
    while frontier:
        reached = {model.settled(raw) for state in frontier for _, raw in model.successors(state)} - whole
        whole |= reached
        frontier = list(reached)

    result = search(config)

    assert {model.mark(_renamed(state, (1, 0))) == model.mark(state) for state in whole} == {True}
    classes = {min(repr(state), repr(_renamed(state, (1, 0)))) for state in whole}
    assert result.states == len({model.mark(state) for state in whole}) == len(classes)


def test_every_bug_has_a_size() -> None:
    assert SIZES.keys() == BUGS.keys()
