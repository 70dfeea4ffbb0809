"""The wait-for graph: cycles are refused at the request that would close them, and nothing else is."""

from services.lock.replicated import graph
from tests.services.lock.driving import Driver


def step(owner: str, key: str, held_by: str) -> dict:
    return {"owner": owner, "waits_for_key": key, "held_by": held_by}


def test_two_owners_that_want_each_others_key():
    driver = Driver()
    driver.acquire("a", key="1")
    driver.acquire("b", key="2")
    driver.wait("a", key="2")

    answer = driver.acquire("b", key="1", wait_ms=1_000)

    assert {
        "ok": False,
        "reason": "deadlock",
        "cycle": [step("b", "1", "a"), step("a", "2", "b")],
        "cycle_length": 2,
    } == answer
    assert driver.line("1") == []


def test_three_owners_in_a_ring():
    driver = Driver()
    for owner, key in (("a", "1"), ("b", "2"), ("c", "3")):
        driver.acquire(owner, key=key)
    driver.wait("a", key="2")
    driver.wait("b", key="3")

    answer = driver.acquire("c", key="1", wait_ms=1_000)

    assert [step("c", "1", "a"), step("a", "2", "b"), step("b", "3", "c")] == answer["cycle"]


def test_the_victim_may_release_and_the_others_go_on():
    driver = Driver()
    driver.acquire("a", key="1")
    driver.acquire("b", key="2")
    driver.wait("a", key="2")
    driver.acquire("b", key="1", wait_ms=1_000)

    driver.release("b", key="2")

    assert driver.holders("2") == ["A"]


def test_an_acquire_that_does_not_wait_is_locked_and_never_a_deadlock():
    driver = Driver()
    driver.acquire("a", key="1")
    driver.acquire("b", key="2")
    driver.wait("a", key="2")

    assert driver.acquire("b", key="1")["reason"] == "locked"


def test_one_of_several_readers_may_close_the_cycle():
    """The writer waits for every reader, so any of them can be the one."""
    driver = Driver()
    driver.acquire("writer", key="2")
    for owner in ("r1", "r2", "r3"):
        driver.acquire(owner, "S", key="1")
    driver.wait("writer", "X", key="1")

    answer = driver.acquire("r2", key="2", wait_ms=1_000)

    assert [step("r2", "2", "writer"), step("writer", "1", "r2")] == answer["cycle"]


def test_standing_behind_an_earlier_request_counts_as_waiting_for_it():
    """b does not wait for a holder that conflicts with it, but for the writer in front, who waits for c."""
    driver = Driver()
    driver.acquire("b", key="2")
    driver.acquire("c", "S", key="1")
    driver.wait("writer", "X", key="1")
    driver.wait("c", key="2")

    answer = driver.acquire("b", "S", key="1", wait_ms=1_000)

    assert [step("b", "1", "writer"), step("writer", "1", "c"), step("c", "2", "b")] == answer["cycle"]


def test_reader_does_not_wait_for_readers():
    """r1 holds shared what r2 asks shared: behind the exclusive holder, but not behind r1's request."""
    driver = Driver()
    driver.acquire("r2", key="2")
    driver.acquire("x", key="1")
    driver.wait("r1", "S", key="1", waiter="r1-first")
    driver.wait("r1", "S", key="2", waiter="r1-second")

    answer = driver.acquire("r2", "S", key="1", wait_ms=1_000)

    assert answer == {"waiting": True}


def test_shared_holder_that_waits_for_the_exclusive_mode_waits_for_itself():
    """Otherwise it would stand in line for a hold that only itself can end."""
    driver = Driver()
    driver.acquire("a", "S")

    answer = driver.acquire("a", "X", wait_ms=1_000)

    assert ("deadlock", [step("a", "k", "a")]) == (answer["reason"], answer["cycle"])


def test_exclusive_request_behind_the_owners_own_shared_request_is_a_deadlock():
    driver = Driver()
    driver.acquire("b")
    driver.wait("a", "S")

    answer = driver.acquire("a", "X", wait_ms=1_000)

    assert [step("a", "k", "a")] == answer["cycle"]


def test_a_repeated_request_is_no_deadlock_with_those_who_came_between():
    """a asks, c gets in line behind it, a's connection breaks and it asks again: a does not wait for c."""
    driver = Driver()
    driver.acquire("b")
    driver.wait("a", waiter="first")
    driver.wait("c")

    answer = driver.acquire("a", wait_ms=1_000, waiter="again")

    assert answer == {"waiting": True, "waiter": "first"}


def test_a_chain_without_a_cycle_is_let_in():
    driver = Driver()
    for number in range(20):
        driver.acquire(f"o{number}", key=str(number))
    for number in range(19):
        driver.wait(f"o{number}", key=str(number + 1))

    assert driver.machine.statistics().waiters == 19


def test_an_edge_that_is_gone_closes_no_cycle():
    """a gave up waiting for b before b asks for what a holds."""
    driver = Driver()
    driver.acquire("a", key="1")
    driver.acquire("b", key="2")
    driver.wait("a", key="2", wait_ms=100)
    driver.advance(100)

    assert driver.acquire("b", key="1", wait_ms=1_000) == {"waiting": True}


def test_a_repeated_request_keeps_the_place_that_the_first_one_has():
    """a asks, p gets in line behind it and then for what a holds, a asks again and its first request ends. Standing
    behind p, a would close a cycle that nobody checks any more."""
    driver = Driver()
    driver.acquire("holder")
    driver.acquire("a", key="2")
    driver.wait("a", waiter="first", wait_ms=1_000)
    driver.wait("p")
    driver.wait("p", key="2", waiter="p-2")
    driver.wait("a", waiter="again")
    driver.advance(1_000)

    driver.release("holder")

    assert driver.holders() == ["A"]
    assert driver.told()["again"]["ok"]


def test_an_owner_never_waits_for_its_own_shared_hold():
    """It asks exclusively, shared, and exclusively again; the first request ends. Granted the shared one alone, it
    would stand in line behind itself."""
    driver = Driver()
    driver.acquire("holder")
    driver.wait("a", "X", waiter="first", wait_ms=1_000)
    driver.wait("a", "S", waiter="shared")
    driver.wait("a", "X", waiter="exclusive")
    driver.advance(1_000)

    driver.release("holder")

    assert driver.holders() == ["A"]
    assert driver.line() == []
    assert list(driver.told()) == ["shared", "exclusive"]


def test_a_long_cycle_is_shown_in_part_with_its_length():
    """Ten thousand owners with names of 256 bytes would be an answer that nothing can keep or send."""
    driver = Driver()
    for number in range(40):
        driver.acquire(f"o{number}", key=str(number))
    for number in range(39):
        driver.wait(f"o{number}", key=str(number + 1))

    answer = driver.acquire("o39", key="0", wait_ms=1_000)

    assert (answer["cycle_length"], len(answer["cycle"])) == (40, 16)
    assert answer["cycle"][:2] == [step("o39", "0", "o0"), step("o0", "1", "o1")]
    assert answer["cycle"][-1] == step("o14", "15", "o15")


def test_a_search_that_would_take_too_long_refuses_the_request(monkeypatch):
    """To let it in could close a cycle that nobody has seen."""
    monkeypatch.setattr(graph, "STEPS_MAX", 10)
    driver = Driver()
    for number in range(20):
        driver.acquire(f"o{number}", key=str(number))
    for number in reversed(range(10)):
        driver.wait(f"o{number}", key=str(number + 1))

    answer = driver.acquire("o19", key="0", wait_ms=1_000)

    assert (answer["ok"], answer["reason"], answer["limit"]) == (False, "overloaded", "wait_graph_max")
    assert driver.line("0") == []


def test_a_long_line_is_looked_at_once_per_request():
    """Every waiter holds a key of its own, so every request searches: the search must not follow each of the
    million edges between a thousand waiters."""
    driver = Driver()
    driver.acquire("holder")
    for number in range(300):
        driver.acquire(f"o{number}", key=f"own{number}")
        driver.wait(f"o{number}")
    lock = driver.machine._tables.locks["k"]
    lock.queue = CountingValues(lock.queue)
    driver.acquire("last", key="own-last")

    driver.wait("last")

    assert lock.queue.looked_at <= 2 * 300


class CountingValues(dict):
    """A line that counts how many of its waiters were handed out."""

    looked_at = 0

    def values(self):
        for value in super().values():
            self.looked_at += 1
            yield value
