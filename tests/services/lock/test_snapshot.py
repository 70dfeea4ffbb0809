"""Snapshots of the lock machine: complete, point-in-time, deterministic."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.lock.replicated.machine import LockMachine
from tests.services.lock import trace
from tests.services.lock.driving import Driver, copied, everything


def busy() -> Driver:
    """Holds of both modes with and without ttl, lines, a renewed hold, a cancelled wait, a first holder gone."""
    driver = Driver()
    driver.acquire("a", "X", key="1", ttl_ms=1_000)
    driver.acquire("a", "X", key="2")
    for owner in ("r1", "r2", "r3"):
        driver.acquire(owner, "S", key="3", ttl_ms=2_000)
    driver.release("r1", key="3")
    driver.wait("b", "X", key="1", wait_ms=500, ttl_ms=300, node="node2")
    driver.wait("c", "S", key="1", wait_ms=700, boot="boot2")
    driver.wait("d", "X", key="3", wait_ms=5_000)
    driver.wait("e", "X", key="2", waiter="gone")
    driver.cancel("e", "gone", key="2")
    driver.renew("a", 9_000, key="1")
    return driver


def test_restore_equals_the_original():
    driver = busy()

    copy = copied(driver.machine)

    assert everything(copy) == everything(driver.machine)


def test_a_restored_machine_goes_on_like_the_original():
    """Expiries, deadlines, lines, cancelling and tokens, not only what a status shows."""
    original = busy()
    restored = Driver(copied(original.machine))
    restored.index, restored.time_ms = original.index, original.time_ms

    for driver in (original, restored):
        driver.trace = [driver.advance(span_ms) for span_ms in (400, 200, 200)]
        driver.trace.append(driver.force_release("1"))
        driver.trace.append(driver.acquire("new", key="9"))
        driver.trace.append(driver.cancel("d", "d", key="3"))
        driver.trace.append(driver.advance(10_000))

    assert restored.trace == original.trace
    assert everything(restored.machine) == everything(original.machine)


def test_tokens_go_on_rising_after_a_restore_of_a_machine_that_holds_nothing():
    """The token counter is state of its own: no hold is left that could tell it."""
    driver = Driver()
    token = driver.acquire("a")["token"]
    driver.release("a")

    driver.machine = copied(driver.machine)

    assert driver.acquire("a")["token"] > token


def test_a_grant_that_nobody_heard_of_can_still_be_given_back_after_a_restore():
    driver = Driver()
    driver.acquire("a")
    driver.wait("b")
    driver.release("a")

    driver.machine = copied(driver.machine)

    assert driver.cancel("b", "b")["cancelled"] == "granted"


def test_a_snapshot_does_not_see_what_is_applied_while_it_is_drained():
    driver = busy()
    expected = list(driver.machine.snapshot())

    records = driver.machine.snapshot()
    drained = [next(records)]
    driver.renew("a", 77, key="1")
    driver.release("r2", key="3")
    driver.force_release("2")
    driver.advance(600)
    drained.extend(records)

    assert drained == expected


def test_restore_replaces_whatever_was_there():
    driver = busy()
    empty = LockMachine()

    driver.machine.restore(empty.snapshot())

    assert everything(driver.machine) == everything(empty)
    assert driver.advance(100_000) == []


def test_a_snapshot_of_the_version_before_is_read():
    """There a waiter was its own only request, and a hold went with the request that it was granted to."""
    records = [
        ["lock", 1, 7],
        ["hold", 6, "k", "a", True, "node1", None, ""],
        ["hold", 7, "j", "b", True, "node1", 9_000, "w-b"],
        ["waiter", "w-c", "k", "c", False, 500, 8_000, "node2", "boot2", 30],
    ]
    driver = Driver()

    driver.machine.restore(records)

    assert copied(driver.machine).status("k") == driver.machine.status("k")
    assert list(driver.machine.lives) == [("node2", "boot2")]
    assert driver.cancel("b", "w-b", key="j")["cancelled"] == "granted"
    driver.release("a")
    assert driver.told()["w-c"] == {"ok": True, "token": 8, "mode": "shared", "expires_ms": driver.time_ms + 500}


@pytest.mark.parametrize("record", [["lock", 99, 0], ["semaphore", 1]])
def test_records_of_another_version_are_refused(record):
    with pytest.raises(ValueError, match="lock snapshot version"):
        LockMachine().restore([record])


def test_apply_does_not_depend_on_the_hash_seed():
    """Replicas are processes with hash seeds of their own."""
    root = Path(__file__).parents[3]

    digests = {
        subprocess.run(
            [sys.executable, "-m", "tests.services.lock.trace"],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "4242")
    }

    assert digests == {trace.digest(7)}
