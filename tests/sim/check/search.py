"""The search that the three models share: just-in-time linearization with memory.

The search walks through the events of a key's history, calls and returns, in time order. A *configuration* is what
may have happened so far, `(core, spent, owed)`. Nothing is decided before it must be. When an operation returns and
the configuration does not have its effect yet, the model lists every way in which it can have happened by now. The
walk is depth first. It drops a configuration if it has seen an equal or better one at the same event. Better means:
the same `core` and a subset of `spent` (means that are used up) and of `owed` (debts that are open).
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

#: Steps (events walked, configurations listed) of one key's search before it gives up; some 10 to 50 us each.
STEPS_MAX = 1_500_000

#: Rank of the return of an operation that may take effect at any later time.
NEVER = 1 << 62


class Undecided(Exception):
    """The search was given up: the history may be linearizable or not."""


@dataclass(slots=True)
class Effort:
    """Steps that may still be spent on searches, and how far the last one came."""

    left: int = STEPS_MAX
    #: Number of the first event that no configuration got past.
    furthest: int = 0

    def spend(self, steps: int) -> None:
        """Raises: Undecided when there are none left."""
        self.left -= steps
        if self.left < 0:
            raise Undecided("the search grew too large")


class Configuration(NamedTuple):
    """What may have happened up to an event."""

    #: Model's state; configurations of different cores are not comparable.
    core: Hashable
    #: Bit per operation: a means that is used up. Fewer is better.
    spent: int
    #: Bit per operation: a debt that falls due at its return. Fewer is better.
    owed: int


class Frontier:
    """The configurations that were seen and that nothing better was seen than."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Hashable, list[tuple[int, int]]] = {}

    def add(self, place: Hashable, configuration: Configuration) -> bool:
        """Notes the configuration, unless an equal or better one was seen at this place before: then False."""
        _, spent, owed = configuration
        seen = self._seen.setdefault(place, [])
        for other_spent, other_owed in seen:
            if not other_spent & ~spent and not other_owed & ~owed:
                return False
        seen.append((spent, owed))
        return True


class Event(NamedTuple):
    """A call or a return of one operation of a model, by the operation's number."""

    is_return: bool
    number: int


class Model(Protocol):
    """What the search asks of a model. `at` is the number of the event that is being walked over."""

    timeline: "Timeline"

    def initial(self) -> Configuration:
        """The configuration before the first event."""

    def on_call(self, at: int, number: int, configuration: Configuration) -> Configuration | None:
        """The configuration after the call; None where it leads nowhere."""

    def on_return(self, at: int, number: int, configuration: Configuration) -> Configuration | None:
        """The configuration after the return, if there is nothing to decide; None: ask `options`."""

    def options(
        self, at: int, number: int, configuration: Configuration, effort: Effort
    ) -> list[Configuration]:
        """Every way in which the operation can have happened by its return; the best guess last."""


@dataclass(slots=True)
class Timeline:
    """Operations of one key, numbered by their return (unknown ones last, by their call), and their events.

    Memory grows with the square of the operations: 25 MB for 10,000 of one key.
    """

    events: list[Event] = field(default_factory=list)
    #: Time of each event.
    times: list[float] = field(default_factory=list)
    #: Rank of each operation's call and return among the events; NEVER for a return that bounds nothing.
    calls: list[int] = field(default_factory=list)
    returns: list[int] = field(default_factory=list)
    #: For each event: a bit for each operation that was called by then and has not returned before it.
    open: list[int] = field(default_factory=list)
    #: For each event: how many operations returned before it; these have the lowest numbers.
    returned: list[int] = field(default_factory=list)


def order_by_return(spans: list[tuple[float, float | None]]) -> list[int]:
    """Positions of the `(call, return)` pairs in the order in which a `Timeline` numbers them."""
    return sorted(range(len(spans)), key=lambda i: (spans[i][1] is None, spans[i][1] or 0, spans[i][0]))


def make_timeline(spans: list[tuple[float, float | None]]) -> Timeline:
    """The timeline of `(call, return)` pairs that are in the order of `order_by_return` already."""
    moments = [(call, False, number) for number, (call, _) in enumerate(spans)]
    moments += [(end, True, number) for number, (_, end) in enumerate(spans) if end is not None]
    # Calls go before returns of the same time: operations that touch count as overlapping.
    moments.sort()
    timeline = Timeline(calls=[0] * len(spans), returns=[NEVER] * len(spans))
    open_now = returned = 0
    for rank, (time, is_return, number) in enumerate(moments):
        timeline.events.append(Event(is_return, number))
        timeline.times.append(time)
        timeline.returned.append(returned)
        if is_return:
            timeline.returns[number] = rank
            timeline.open.append(open_now)
            open_now &= ~(1 << number)
            returned += 1
        else:
            timeline.calls[number] = rank
            open_now |= 1 << number
            timeline.open.append(open_now)
    return timeline


def bits(mask: int) -> Iterator[int]:
    """Numbers of the bits that are set, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def lowest(mask: int) -> int:
    """Number of the lowest bit that is set; -1 for none."""
    return (mask & -mask).bit_length() - 1


def has_order(model: Model, effort: Effort) -> bool:
    """Whether the operations of `model` can be put in a legal order.

    Raises: Undecided when `effort` is used up.
    """
    events = model.timeline.events
    frontier = Frontier()
    stack = [(0, model.initial())]
    while stack:
        start, configuration = stack.pop()
        at = start
        while at < len(events):
            is_return, number = events[at]
            step = model.on_return if is_return else model.on_call
            after = step(at, number, configuration)
            if after is None:
                break
            configuration = after
            at += 1
        else:
            return True
        effort.spend(at - start + 1)
        effort.furthest = max(effort.furthest, at)
        if events[at].is_return:
            options = model.options(at, events[at].number, configuration, effort)
            stack.extend((at + 1, option) for option in options if frontier.add((at, option.core), option))
    return False
