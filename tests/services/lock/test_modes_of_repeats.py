"""A key that asked for the exclusive mode, in a place or a hold that is shared by now; and old snapshots."""

from services.lock.replicated.commands import Acquire, CancelWait, Release
from services.lock.replicated.machine import LockMachine
from tests.services.lock.driving import Driver, Log


def wants(owner: str, waiter: str, *, exclusive: bool) -> Acquire:
    return Acquire("k", owner, exclusive, None, 5_000, waiter, "node1", "boot")


def line_that_became_shared() -> Log:
    """`b` asked exclusively under the key `K`, and shared without one; the client of the first has gone."""
    log = Log()
    log(Acquire("k", "a"))
    log(wants("b", "w1", exclusive=True), "K")
    log(wants("b", "w2", exclusive=False))
    log(CancelWait("k", "b", "w1"))
    return log


def test_who_asked_for_the_exclusive_mode_is_not_told_of_a_shared_hold():
    log = line_that_became_shared()
    log(Release("k", "a"))

    again = log(wants("b", "w3", exclusive=True), "K")
    reader = log(Acquire("k", "c", False))

    assert reader["ok"]
    assert (again.get("ok"), again["reason"]) == (False, "deadlock")


def test_a_place_that_has_become_shared_is_not_made_exclusive_by_a_repeat():
    """Nobody looked for a cycle: who stands behind it, and did not wait for it, would from now on."""
    log = line_that_became_shared()

    again = log(wants("b", "w3", exclusive=True), "K")

    assert (again.get("ok"), again["reason"]) == (False, "deadlock")
    assert log.machine.inner.status("k")["waiters"][0]["mode"] == "shared"


class TestHoldsThatAreAskedForAgain:
    """By another request of the owner, with another key or none, before the withdrawal of the first is known."""

    def test_one_whose_requests_have_all_gone_is_given_back_with_their_answers(self):
        log = Log()
        log(wants("b", "w1", exclusive=True), "K1")
        log(wants("b", "w2", exclusive=True), "K2")

        for waiter in ("w1", "w2"):
            log(CancelWait("k", "b", waiter))
        log(Acquire("k", "other"))

        assert log.holders() == ["other"]
        assert log(wants("b", "w3", exclusive=True), "K1") == {"waiting": True}
        assert log(wants("b", "w4", exclusive=True), "K2")["waiting"]

    def test_one_that_a_request_was_told_of_stays_where_the_other_goes(self):
        log = Log()
        log(wants("b", "w1", exclusive=True))

        told = log(wants("b", "w2", exclusive=True))
        log(CancelWait("k", "b", "w1"))

        assert told["token"] == 1
        assert log.holders() == ["b"]

    def test_one_that_was_told_to_who_does_not_wait_stays(self):
        """Such a request cannot be withdrawn."""
        log = Log()
        log(wants("b", "w1", exclusive=True))
        log(Acquire("k", "b"))
        log(wants("b", "w2", exclusive=True))

        for waiter in ("w1", "w2"):
            log(CancelWait("k", "b", waiter))

        assert log.holders() == ["b"]


class TestSnapshotsOfTheVersionBefore:
    def test_an_owner_that_stands_twice_in_a_line_is_restored_into_one_place(self):
        """Version 1 gave each request a place. The end of the second must not find the first's gone."""
        machine = LockMachine()
        machine.restore(
            [
                ["lock", 1, 1],
                ["hold", 1, "k", "a", True, "node1", None, ""],
                ["waiter", "w1", "k", "b", True, None, 61_000, "node1", "boot", 2],
                ["waiter", "w2", "k", "b", True, None, 62_000, "node2", "boot", 3],
            ]
        )
        driver = Driver(machine)
        driver.index = 10

        driver.release("a")

        assert driver.holders() == ["B"]
        assert sorted(driver.told()) == ["w1", "w2"]
        assert driver.line() == []


def test_a_time_that_is_noted_again_and_again_takes_no_room():
    """A place that requests join and leave keeps the deadline of its first."""
    driver = Driver()
    driver.acquire("a")
    driver.wait("b", waiter="first", wait_ms=1_000_000)

    for number in range(3_000):
        driver.wait("b", waiter=f"w{number}", wait_ms=2_000_000)
        driver.cancel("b", f"w{number}")

    assert len(driver.machine._tables._deadlines) == 1
