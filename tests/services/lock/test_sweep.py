"""What one entry does when much ends at once; and that what has ended counts for nobody before it is swept."""

import pytest

from raft.state_machine import ApplyContext
from services.lock.replicated import lines
from services.lock.replicated.commands import Acquire
from services.lock.replicated.lines import SWEPT_PER_ENTRY_MAX
from services.lock.replicated.machine import LockMachine
from services.replicated.envelope import encode_command
from services.replicated.machine import ReplicatedMachine
from tests.services.lock.driving import Driver, copied


def test_one_entry_ends_a_bounded_number_of_holds() -> None:
    """The rest is due at once and goes with the entries that follow."""
    driver = Driver()
    count = 3 * SWEPT_PER_ENTRY_MAX + 1
    for number in range(count):
        driver.acquire("a", key=f"k{number}", ttl_ms=5_000)

    left = []
    driver.advance(5_000)
    while driver.machine.next_due_ms() is not None:
        assert driver.machine.next_due_ms() <= driver.time_ms
        left.append(driver.machine.statistics().holds)
        driver.advance(0)

    assert left == [count - SWEPT_PER_ENTRY_MAX, count - 2 * SWEPT_PER_ENTRY_MAX, 1]
    assert driver.machine.statistics().holds == 0


def test_a_command_ends_few_beside_its_own_work() -> None:
    """So 1,000 clients that ask behind the end of 100,000 holds do not wait for all of that."""
    driver = Driver()
    for number in range(1_000):
        driver.acquire("a", key=f"k{number}", ttl_ms=5_000)
    driver.time_ms += 5_000

    driver.acquire("b", key="another")

    assert driver.machine.statistics().holds == 1_000 - lines.SWEPT_PER_COMMAND_MAX + 1


def test_one_entry_grants_a_bounded_number_of_lines() -> None:
    """10 holds end, and 200 shared waiters stand behind each."""
    driver = Driver()
    for number in range(10):
        driver.acquire("holder", key=f"k{number}", ttl_ms=5_000)
        for waiter in range(200):
            driver.wait(f"o{waiter}", "S", key=f"k{number}", waiter=f"{number}-{waiter}")

    told = [len(driver.advance(5_000)), len(driver.advance(0)), len(driver.advance(0))]

    assert told == [1_000, 1_000, 0]


def test_many_waits_of_one_owner_are_not_looked_through_for_each_grant() -> None:
    """One owner, 2,000 lines: each grant looks at the line, not at all that its owner waits for."""
    driver = Driver()
    for number in range(2_000):
        driver.acquire("holder", key=f"k{number}", ttl_ms=5_000)
        driver.wait("everywhere", key=f"k{number}", waiter=f"w{number}")

    driver.index += 1
    driver.time_ms += 5_000
    context = ApplyContext(driver.index, driver.time_ms)
    driver.machine.advance(context)

    assert len(context.events) + context.work <= 2 * SWEPT_PER_ENTRY_MAX


class TestNotSweptYet:
    @pytest.fixture
    def driver(self, monkeypatch: pytest.MonkeyPatch) -> Driver:
        """One entry sweeps one hold: the one of another key, so that what ends of `k` is left."""
        monkeypatch.setattr(lines, "SWEPT_PER_ENTRY_MAX", 1)
        monkeypatch.setattr(lines, "SWEPT_PER_COMMAND_MAX", 1)
        driver = Driver()
        driver.acquire("early", key="another", ttl_ms=1_000)
        return driver

    def test_its_key_is_free(self, driver: Driver) -> None:
        driver.acquire("a", ttl_ms=1_000)
        driver.time_ms += 1_000

        answer = driver.acquire("b")

        assert (answer["ok"], driver.holders()) == (True, ["B"])

    def test_its_line_moves_before_a_newcomer_is_heard(self, driver: Driver) -> None:
        driver.acquire("a", ttl_ms=1_000)
        driver.wait("b")
        driver.time_ms += 1_000

        answer = driver.acquire("c")

        assert answer["reason"] == "locked"
        assert [held["owner"] for held in answer["holders"]] == ["b"]
        assert driver.told()["b"]["ok"]

    def test_its_owner_holds_nothing(self, driver: Driver) -> None:
        driver.acquire("a", ttl_ms=1_000)
        driver.time_ms += 1_000
        token = 2

        answers = [driver.machine.validate("k", token)["ok"], driver.renew("a", 5_000), driver.release("a")]

        assert answers == [True, {"ok": False, "reason": "not_held"}, {"ok": False, "reason": "not_held"}]

    def test_it_is_not_shown(self, driver: Driver) -> None:
        driver.acquire("a", ttl_ms=1_000)
        driver.advance(1_000)

        shown = [driver.machine.status("k")["held"], driver.machine.summaries(["k"]), driver.machine.validate("k", 2)]

        assert shown == [False, [], {"ok": False, "valid": False, "reason": "not_held"}]
        assert driver.machine.statistics().locks_held == 1

    def test_it_is_not_shown_after_a_restore(self, driver: Driver) -> None:
        """Cluster time is part of the state."""
        driver.acquire("a", ttl_ms=1_000)
        driver.advance(1_000)

        assert copied(driver.machine).status("k")["held"] is False

    def test_it_closes_no_cycle(self, driver: Driver) -> None:
        """`c` waits for `k`, whose hold has ended, so `a` may wait for what `c` holds."""
        driver.acquire("a", ttl_ms=1_000)
        driver.acquire("c", key="l")
        driver.wait("c", key="k")
        driver.time_ms += 1_000

        answer = driver.acquire("a", key="l", wait_ms=1_000)

        assert answer == {"waiting": True}

    def test_a_wait_whose_time_is_over_is_not_granted(self, driver: Driver) -> None:
        driver.acquire("x", key="second")
        driver.wait("y", key="second", wait_ms=500)
        driver.acquire("a")
        driver.wait("b", wait_ms=1_000)
        driver.time_ms += 1_000

        driver.release("a")

        assert driver.told()["b"]["reason"] == "timeout"
        assert driver.holders() == []


def test_a_command_with_an_idempotency_key_ends_as_few() -> None:
    """What stands around the machine lets time go on first, and the machine once more."""
    replicated = ReplicatedMachine(LockMachine)
    for number in range(1, 1_001):
        command = encode_command(Acquire(f"k{number}", "a", True, 5_000))
        replicated.apply(ApplyContext(number, 1_000), command)

    keyed = encode_command(Acquire("another", "b"), idempotency_key="key", fingerprint=b"f")
    replicated.apply(ApplyContext(1_001, 6_000), keyed)

    assert replicated.inner.statistics().holds >= 1_000 - 2 * lines.SWEPT_PER_COMMAND_MAX
