"""Random commands against the dumb twin, with invariants checked after every step.

Two sources of commands: hypothesis, which finds the shortest run that differs, and long runs from a seed in which
few owners crowd few keys, where lines grow, cycles close and one owner stands in a line several times.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.lock.replicated import lines
from services.lock.replicated.commands import (
    Acquire,
    CancelWait,
    CancelWaits,
    DropWaiters,
    ForceRelease,
    Release,
    Renew,
)
from tests.services.lock.driving import Driver, copied, everything
from tests.services.lock.twin import TwinLocks

KEYS = st.sampled_from(["k1", "k2", "k3"])
OWNERS = st.sampled_from(["a", "b", "c", "d"])
SPANS_MS = st.sampled_from([1, 5, 20, 100])
NODES = st.sampled_from(["node1", "node2"])
BOOTS = st.sampled_from(["old", "new"])

acquires = st.builds(
    Acquire,
    KEYS,
    OWNERS,
    st.booleans(),
    st.none() | SPANS_MS,
    st.just(0) | SPANS_MS,
    st.just(""),
    NODES,
    BOOTS,
)
commands = (
    acquires
    | acquires
    | acquires
    | st.builds(Release, KEYS, OWNERS)
    | st.builds(Release, KEYS, OWNERS)
    | st.builds(Renew, KEYS, OWNERS, SPANS_MS)
    | st.builds(ForceRelease, KEYS, st.none() | OWNERS)
    | st.builds(CancelWait, KEYS, OWNERS, st.integers(1, 30).map(str))
    | st.builds(DropWaiters, NODES, BOOTS)
    | st.sampled_from(["advance", "restore"])
)
steps = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 4, 50]), commands), max_size=60)


class Comparison:
    """Machine and twin side by side."""

    def __init__(self, swept_max: int = 1_000) -> None:
        self.driver = Driver()
        self.twin = TwinLocks(swept_max)
        #: Steps after which something that had ended was left to be swept.
        self.behind = 0
        self.highest_token: dict[str, int] = {}
        self.tokens_seen: set[int] = set()
        #: Waiting acquires so far; their count is their waiter id.
        self.waits = 0
        self.longest_line = 0
        self.deadlocks = 0

    def step(self, passed_ms: int, command) -> None:
        if command == "restore":
            copy = copied(self.driver.machine)
            assert everything(copy) == everything(self.driver.machine)
            self.driver.machine = copy
            return
        if command == "advance":
            self.driver.advance(passed_ms)
            self.twin.advance(self.driver.time_ms)
        else:
            self.driver.time_ms += passed_ms
            command = self.named(command)
            answer = self.driver.apply(command)
            assert essence(answer) == self.twin.apply(self.driver.time_ms, command)
            self.check_cycle(answer)
        told = [(told.waiter, essence(told.answer)) for _, told in self.driver.events]
        assert told == self.twin.events
        assert [(id, essence(answer)) for id, answer in self.driver.decided] == self.twin.decided
        self.check_state()

    def named(self, command):
        """A waiting acquire with an id that `CancelWait` has a fair chance to name."""
        if not isinstance(command, Acquire) or not command.wait_ms:
            return command
        self.waits += 1
        return Acquire(
            command.key,
            command.owner,
            command.exclusive,
            command.ttl_ms,
            command.wait_ms,
            str(self.waits),
            command.node,
            command.boot,
        )

    def check_cycle(self, answer: dict) -> None:
        cycle = answer.get("cycle", [])
        self.deadlocks += bool(cycle)
        for step, following in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            assert step["held_by"] == following["owner"]

    def check_state(self) -> None:
        records = list(self.driver.machine.snapshot())
        holds = [record for record in records if record[0] == "hold"]
        assert [record[1:] for record in holds] == [
            [*list(hold.values())[:-1], tuple(hold["unheard"])] for hold in self.twin.holds
        ]
        assert [record[1:4] for record in records if record[0] == "waiter"] == [
            [wait["id"], wait["key"], wait["owner"]] for wait in self.twin.line
        ]
        assert [[listener._asdict() for listener in record[-1]] for record in records if record[0] == "waiter"] == [
            wait["requests"] for wait in self.twin.line
        ]
        for _, token, key, _, exclusive, *_ in holds:
            beside = [other for other in holds if other[2] == key and other[1] != token]
            beside = [other for other in beside if other[6] is None or other[6] > self.driver.time_ms]
            assert not (exclusive and beside), "an exclusive hold is alone"
        self.longest_line = max(self.longest_line, len(self.twin.line))
        self.check_tokens()
        held = {hold["key"] for hold in self.twin.holds}
        assert self.driver.machine.page("", "", 10) == sorted(held), "no line without a holder"
        self.check_shown()
        dues = [hold["expires_ms"] for hold in self.twin.holds if hold["expires_ms"] is not None]
        dues += [request["deadline_ms"] for wait in self.twin.line for request in wait["requests"]]
        assert sum(self.driver.machine._tables.lives.values()) == sum(
            len(wait["requests"]) for wait in self.twin.line
        )
        assert self.driver.machine.next_due_ms() == min(dues, default=None)

    def check_shown(self) -> None:
        """Nothing that has ended is shown, swept or not."""
        machine = self.driver.machine
        live = {hold["key"] for hold in self.twin.holds if not self.twin.has_ended(hold)}
        self.behind += any(map(self.twin.has_ended, self.twin.holds)) or any(map(self.twin.is_late, self.twin.line))
        assert {row["key"] for row in machine.summaries(machine.page("", "", 10))} == live
        for hold in self.twin.holds:
            shown = machine.status(hold["key"])["holders"]
            assert (hold["token"] in [row["token"] for row in shown]) == (not self.twin.has_ended(hold))
            assert machine.validate(hold["key"], hold["token"])["ok"] == (not self.twin.has_ended(hold))

    def check_tokens(self) -> None:
        for hold in self.twin.holds:
            if hold["token"] not in self.tokens_seen:
                assert hold["token"] > self.highest_token.get(hold["key"], 0)
                self.tokens_seen.add(hold["token"])
                self.highest_token[hold["key"]] = hold["token"]


def essence(answer: dict) -> dict:
    """What the twin answers as well."""
    if answer.get("ok") is False:
        return {"ok": False, "reason": answer["reason"]}
    return {
        name: value for name, value in answer.items() if name not in ("released", "released_count", "dropped")
    }


@settings(max_examples=100)
@given(steps)
def test_the_machine_agrees_with_its_twin(steps):
    """Answers, events in order, state, next due time, through snapshots and restores at any moment: never two
    exclusive holds, never one beside a shared, first come first served, tokens rising per key."""
    comparison = Comparison()

    for passed_ms, command in steps:
        comparison.step(passed_ms, command)


@pytest.mark.parametrize("seed", range(40))
def test_the_machine_agrees_with_its_twin_in_a_crowd(seed):
    choose = random.Random(seed)
    comparison = Comparison()

    for _ in range(250):
        comparison.step(choose.choice([0, 0, 0, 1, 4, 20]), crowded(choose, comparison))

    assert comparison.longest_line >= 3
    assert comparison.deadlocks > 0


@pytest.mark.parametrize("seed", range(40))
def test_what_has_ended_counts_for_nobody_before_it_is_swept(seed, monkeypatch):
    """One entry sweeps one hold or waiter, and most of a crowd's end by time."""
    monkeypatch.setattr(lines, "SWEPT_PER_ENTRY_MAX", 1)
    monkeypatch.setattr(lines, "SWEPT_PER_COMMAND_MAX", 1)
    choose = random.Random(seed)
    comparison = Comparison(swept_max=1)

    for _ in range(250):
        comparison.step(choose.choice([0, 0, 0, 0, 0, 0, 1, 20]), crowded(choose, comparison, ttls_ms=(1, 3, 5, 20)))

    assert comparison.behind > 0


def crowded(choose: random.Random, comparison: Comparison, ttls_ms=(None, None, 5, 100)):
    """Mostly waiting acquires, and releases by owners that really hold something."""
    pick = choose.randrange(100)
    key = choose.choice(["k1", "k1", "k2", "k3"])
    owner = choose.choice("abcdef")
    held = comparison.twin.holds
    if pick < 55:
        wait_ms = choose.choice([0, 5, 50, 500, 500])
        node = choose.choice(["node1", "node2"])
        ttl_ms = choose.choice(ttls_ms)
        return Acquire(
            key, owner, choose.random() < 0.4, ttl_ms, wait_ms, "", node, choose.choice(["old", "new"])
        )
    if pick < 80 and held:
        hold = choose.choice(held)
        return Release(hold["key"], hold["owner"])
    if pick < 88 and held:
        hold = choose.choice(held)
        return Renew(hold["key"], hold["owner"], choose.choice([1, 20, 200]))
    if pick < 94:
        recent = str(choose.randrange(max(1, comparison.waits - 8), comparison.waits + 2))
        waits = [
            wait for wait in comparison.twin.line if any(each["id"] == recent for each in wait["requests"])
        ] + [hold for hold in held if recent in hold["unheard"]]
        if not waits:
            return "advance"
        cancelled = (waits[0]["key"], waits[0]["owner"], recent)
        return choose.choice([CancelWait(*cancelled), CancelWaits((cancelled, cancelled))])
    if pick < 95:
        return ForceRelease(key, choose.choice([None, owner]))
    if pick < 96:
        return DropWaiters("node1", "new")
    return choose.choice(["advance", "restore"])
