"""The transition table, every pair of it, and the directories built from it."""

from itertools import product

import pytest

from services.cache.replicated.directory import (
    STATES,
    TRANSITIONS,
    Directories,
    E,
    Event,
    I,
    IllegalTransition,
    M,
    S,
    next_state,
)

#: The protocol once more, written by hand as a grid: rows are states, columns the events in this order. `-` is
#: a move that cannot happen (a sole owner that shares, a sharer that is alone).
EVENTS = (
    Event.OWN_WRITE,
    Event.OTHER_WRITE,
    Event.OWN_FILL_ALONE,
    Event.OWN_FILL_SHARED,
    Event.OTHER_FILL,
    Event.DROP,
)
GRID = {
    "M": "MIM-SI",
    "E": "MIE-SI",
    "S": "MI-SSI",
    "I": "MIESII",
}


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)), ids=str)
def test_every_state_and_event_moves_as_the_grid_says(state: str, event: Event) -> None:
    """Goal: the table is complete, and no entry of it changes unnoticed."""
    expected = GRID[state][EVENTS.index(event)]

    if expected == "-":
        with pytest.raises(IllegalTransition):
            next_state(state, event)
    else:
        assert next_state(state, event) == expected


def test_the_table_lists_nothing_but_known_states_and_events() -> None:
    assert set(TRANSITIONS) <= set(product(STATES, Event))
    assert set(TRANSITIONS.values()) <= set(STATES)
    assert set(EVENTS) == set(Event)


def test_all_reachable_directories_have_one_owner_or_only_sharers() -> None:
    """Goal: from nothing, by every write and fill of four nodes: M or E stands alone, S excludes both."""
    nodes = ("a", "b", "c", "d")
    directories = Directories()
    found = {directories.empty}
    frontier = [directories.empty]
    while frontier:
        directory = frontier.pop()
        for after in [step(n) for step in (directory.after_write, directory.after_fill) for n in nodes]:
            if after not in found:
                found.add(after)
                frontier.append(after)

    for directory in found:
        states = [state for _, state in directory.holders]
        assert states in ([], [M], [E]) or (set(states) == {S} and len(states) > 1)
    # Nobody; M at one of four; E at one of four; two, three or four sharers.
    assert len(found) == 1 + 4 + 4 + 11


def test_a_write_makes_the_writer_the_only_holder() -> None:
    shared = Directories().of([("a", S), ("b", S)])

    assert shared.after_write("b").holders == (("b", M),)
    assert shared.after_write("c").holders == (("c", M),)


def test_a_fill_follows_the_protocol() -> None:
    """Goal: nobody held it: E. Else every M and E becomes S and the reader joins as S."""
    directories = Directories()

    assert directories.empty.after_fill("a").holders == (("a", E),)
    assert directories.of([("a", M)]).after_fill("b").holders == (("a", S), ("b", S))
    assert directories.of([("a", E)]).after_fill("b").holders == (("a", S), ("b", S))
    assert directories.of([("a", S), ("b", S)]).after_fill("c").holders == (("a", S), ("b", S), ("c", S))


@pytest.mark.parametrize("holders", [[("a", M)], [("a", E)], [("a", S), ("b", S)]])
def test_a_holder_that_fills_keeps_its_state(holders: list[tuple[str, str]]) -> None:
    directory = Directories().of(holders)

    assert directory.after_fill("a") is directory


def test_equal_directories_are_one_object() -> None:
    directories = Directories()

    assert directories.of([("a", S), ("b", S)]) is directories.of([("b", S), ("a", S)])
    assert directories.empty.after_write("a") is directories.of([("a", M)])


@pytest.mark.parametrize("holders", [[("a", M), ("b", S)], [("a", E), ("b", E)], [("a", I)]])
def test_a_corrupt_directory_is_refused(holders: list[tuple[str, str]]) -> None:
    with pytest.raises(AssertionError):
        Directories().of(holders)


def test_the_census_counts_lines_by_state() -> None:
    directories = Directories()
    directories.of([("a", M)]).lines = 3
    directories.of([("a", S), ("b", S)]).lines = 2

    assert directories.census("a") == {M: 3, E: 0, S: 2, I: 0}
    assert directories.census("b") == {M: 0, E: 0, S: 2, I: 3}
