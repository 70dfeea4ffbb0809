"""Who holds a line, and in which of the MESI states: the transition table, and directories built from it.

The rule of this file: `TRANSITIONS` is the only place that says how a state changes; everything else looks
states up in it, and a move that it does not list raises. States are seen from one node:

    M  this node wrote last and no other has read since
    E  only this node holds the line, and it did not write it
    S  several nodes may hold the line
    I  this node does not hold the line

A `Directory` is the immutable set of holders of one line. There are few different ones (one M or one E per
node, and the sets of sharers), so each is made once, kept by `Directories`, and shared by all lines in that
situation: a line pays one pointer for it, and a transition is one dictionary look-up.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

State = Literal["M", "E", "S", "I"]

M: Final = "M"
E: Final = "E"
S: Final = "S"
I: Final = "I"  # noqa: E741 - the protocol's own letter
STATES: tuple[State, ...] = (M, E, S, I)

#: Sorted `(node, state)` pairs; I is absence.
Holders = tuple[tuple[str, State], ...]


class Event(Enum):
    """What can happen to a line, seen from one node."""

    #: This node wrote it.
    OWN_WRITE = "own write"
    #: Another node wrote it.
    OTHER_WRITE = "other write"
    #: This node read it and no other node holds it.
    OWN_FILL_ALONE = "own fill, alone"
    #: This node read it and another node holds it.
    OWN_FILL_SHARED = "own fill, shared"
    #: Another node, not a holder so far, read it.
    OTHER_FILL = "other fill"
    #: It was deleted, expired, evicted or invalidated by a tag.
    DROP = "drop"


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (I, Event.OWN_WRITE): M,
        (I, Event.OTHER_WRITE): I,
        (I, Event.OWN_FILL_ALONE): E,
        (I, Event.OWN_FILL_SHARED): S,
        (I, Event.OTHER_FILL): I,
        (I, Event.DROP): I,
        (S, Event.OWN_WRITE): M,
        (S, Event.OTHER_WRITE): I,
        (S, Event.OWN_FILL_SHARED): S,
        (S, Event.OTHER_FILL): S,
        (S, Event.DROP): I,
        (E, Event.OWN_WRITE): M,
        (E, Event.OTHER_WRITE): I,
        (E, Event.OWN_FILL_ALONE): E,
        (E, Event.OTHER_FILL): S,
        (E, Event.DROP): I,
        (M, Event.OWN_WRITE): M,
        (M, Event.OTHER_WRITE): I,
        (M, Event.OWN_FILL_ALONE): M,
        (M, Event.OTHER_FILL): S,
        (M, Event.DROP): I,
    }
)


class IllegalTransition(AssertionError):
    """A state met an event that the protocol rules out: the directory is corrupt."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"a line in state {state} cannot meet: {event.value}")


def next_state(state: State, event: Event) -> State:
    """The state after `event`. Raises `IllegalTransition` for a pair that the table does not list."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


class Directory:
    """One set of holders. Made by `Directories` only; two equal ones are the same object."""

    __slots__ = ("_after_fill", "_after_write", "_registry", "_states", "holders", "lines")

    def __init__(self, registry: "Directories", holders: Holders) -> None:
        #: `(node, state)` pairs sorted by node.
        self.holders = holders
        #: How many lines are in this situation now.
        self.lines = 0
        self._registry = registry
        self._states = dict(holders)
        self._after_write: dict[str, Directory] = {}
        self._after_fill: dict[str, Directory] = {}

    def __repr__(self) -> str:
        return f"Directory({', '.join(f'{node}:{state}' for node, state in self.holders)})"

    def state_of(self, node: str) -> State:
        """The state of the line at `node`."""
        return self._states.get(node, I)

    def after_write(self, node: str) -> "Directory":
        """The directory after `node` wrote the line."""
        found = self._after_write.get(node)
        if found is None:
            found = self._after_write[node] = self._step(node, Event.OWN_WRITE, Event.OTHER_WRITE)
        return found

    def after_fill(self, node: str) -> "Directory":
        """The directory after `node` read the line. A holder keeps its state, and so do the others then."""
        found = self._after_fill.get(node)
        if found is None:
            found = self._after_fill[node] = self._filled(node)
        return found

    def _filled(self, node: str) -> "Directory":
        others = any(holder != node for holder, _ in self.holders)
        own = Event.OWN_FILL_SHARED if others else Event.OWN_FILL_ALONE
        if node in self._states:
            assert next_state(self._states[node], own) == self._states[node]
            return self
        return self._step(node, own, Event.OTHER_FILL)

    def _step(self, node: str, own: Event, other: Event) -> "Directory":
        """Show every holder and `node` its event and collect who holds the line afterwards."""
        after = {holder: next_state(state, other) for holder, state in self.holders if holder != node}
        after[node] = next_state(self.state_of(node), own)
        return self._registry.of((holder, state) for holder, state in after.items() if state != I)


class Directories:
    """Every directory that one machine has met, each once."""

    def __init__(self) -> None:
        self._known: dict[Holders, Directory] = {}
        #: Nobody holds the line.
        self.empty = self.of(())

    def __iter__(self) -> Iterator[Directory]:
        return iter(self._known.values())

    def of(self, holders: Iterable[tuple[str, State]]) -> Directory:
        """The directory with these holders, in any order. Asserts that an M or an E stands alone."""
        key = tuple(sorted((node, state) for node, state in holders))
        found = self._known.get(key)
        if found is None:
            alone = [node for node, state in key if state in (M, E)]
            assert not alone or len(key) == 1, f"{alone} cannot own a line that others hold: {key}"
            assert all(state in (M, E, S) for _, state in key), f"no such state: {key}"
            found = self._known[key] = Directory(self, key)
        return found

    def census(self, node: str) -> dict[State, int]:
        """How many lines `node` holds in each of M, E and S, and how many only others or nobody (I)."""
        counted = dict.fromkeys(STATES, 0)
        for directory in self._known.values():
            counted[directory.state_of(node)] += directory.lines
        return counted
