"""What is looked at while a seed runs: that it would see what it is there for."""

from raft.state_machine import ApplyContext
from services.lock.replicated.commands import Acquire
from services.lock.replicated.machine import LockMachine
from tests.shell.lines import cycle_in, waits_in


def machine_with(*asked: tuple[str, str, bool]) -> LockMachine:
    """Locks that were asked for in this order, by key and owner, exclusively or not."""
    machine = LockMachine()
    for index, (key, owner, exclusive) in enumerate(asked, 1):
        command = Acquire(key, owner, exclusive, None, 60_000, f"w{index}", "n1", "boot")
        machine.apply(ApplyContext(index, 1_000), command)
    return machine


def test_an_owner_waits_for_holders_and_for_places_before_its_own() -> None:
    machine = machine_with(("a", "x", False), ("a", "y", True), ("a", "z", False))

    assert waits_in(machine) == {"y": {"x"}, "z": {"y"}}


def test_a_deadlock_that_is_refused_leaves_no_cycle() -> None:
    machine = machine_with(("a", "x", True), ("b", "y", True), ("a", "y", True), ("b", "x", True))

    assert waits_in(machine) == {"y": {"x"}}
    assert cycle_in(waits_in(machine)) == []


def test_a_cycle_is_found_however_long() -> None:
    assert cycle_in({"x": {"y"}, "y": {"z"}, "z": {"x"}}) == ["x", "y", "z"]
    assert cycle_in({"x": {"x"}}) == ["x"]
    assert cycle_in({"x": {"y", "z"}, "y": {"z"}}) == []
