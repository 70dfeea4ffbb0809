"""Leases to fill an absent key, command by command."""

from itertools import permutations
from typing import Any

import pytest

from services.cache.replicated import fill_leases
from services.cache.replicated.commands import Delete, Fill, GiveBack, Incr, Invalidate, Put, PutMany
from services.cache.replicated.machine import CacheMachine
from services.cache.replicated.store import LEASE_ENDED_TOPIC
from tests.services.cache.tools import Log, copy, observable

LOST = {"ok": False, "reason": "lease_lost", "key": "k"}


def ask(
    key: str = "k", *, asker: str = "node1:boot", lease_ms: int = 1000, claim: str | None = "", beside: bool = False
) -> Fill:
    return Fill(key, "node1", lease_ms, asker, claim, beside)


def ended(log: Log) -> list[str]:
    """Keys whose leases the last entry ended."""
    return [body for topic, body in log.events if topic == LEASE_ENDED_TOPIC]


def test_one_asker_gets_the_lease_and_the_others_are_told_that_it_is_taken() -> None:
    log = Log()

    first = log.apply(ask())
    second = log.apply(ask(asker="node2:boot"))

    absent = {"hit": False, "val": None, "state": "I"}
    assert first == {**absent, "lease": 1, "lease_expires_ms": 2000}
    assert second == {**absent, "filling": True, "lease_expires_ms": 2000}


def test_a_fill_without_lease_ms_takes_none() -> None:
    """Goal: reads as they were before change nothing, and old logs say the same."""
    log = Log()

    log.apply(Fill("k", "node1"))

    assert "lease" in log.apply(ask())


def test_a_key_that_is_there_is_read_and_not_leased() -> None:
    log = Log()
    log.apply(Put("k", b"null", "node2", 1000))

    answer = log.apply(ask())

    assert (answer["hit"], answer["val"], log.machine.lease_token("k")) == (True, b"null", None)


def test_the_lease_fills_the_key_once() -> None:
    log = Log()
    token = log.apply(ask())["lease"]

    filled = log.apply(Put("k", b"1", "node1", lease=token))

    assert (filled["ok"], ended(log)) == (True, ["k"])
    assert log.apply(Put("k", b"2", "node1", lease=token)) == {**LOST, "version": 2}
    assert log.machine.line("k").value == b"1"


@pytest.mark.parametrize(
    ("between", "version"),
    [
        (Put("k", b"new", "node2"), 2),
        (PutMany((("k", b"new", None, None),), "node2"), 2),
        (Incr("k", 1, "node2"), 2),
        (Delete("k"), 0),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_write_or_removal_by_somebody_else_ends_the_lease(between: Any, version: int) -> None:
    """Goal: a value that was computed before the change is not stored after it (lettuce 3481)."""
    log = Log()
    token = log.apply(ask())["lease"]

    log.apply(between)

    assert ended(log) == ["k"]
    assert log.apply(Put("k", b"old", "node1", lease=token)) == {**LOST, "version": version}


def test_a_value_computed_before_its_tag_was_invalidated_is_refused_and_the_next_may_compute() -> None:
    log = Log()
    token = log.apply(ask())["lease"]
    log.apply(Invalidate("t"))

    refused = log.apply(Put("k", b"old", "node1", tags=("s", "t"), lease=token))

    assert refused == {**LOST, "version": 0}
    assert ended(log) == ["k"]
    again = log.apply(ask(asker="node2:boot"))["lease"]
    assert log.apply(Put("k", b"new", "node2", tags=("t",), lease=again))["ok"]


def test_an_invalidation_of_another_tag_does_not_concern_the_fill() -> None:
    log = Log()
    token = log.apply(ask())["lease"]

    log.apply(Invalidate("t"))

    assert log.apply(Put("k", b"1", "node1", tags=("s",), lease=token))["ok"]


def test_invalidations_beyond_what_is_remembered_count_as_of_any_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the memory is bounded, and what was forgotten is taken for the worst."""
    monkeypatch.setattr(fill_leases, "INVALIDATED_MAX", 3)
    log = Log()
    old = log.apply(ask("old"))["lease"]
    for number in range(4):
        log.apply(Invalidate(f"t{number}"))
    new = log.apply(ask("new"))["lease"]

    assert log.apply(Put("old", b"1", "node1", tags=("other",), lease=old))["reason"] == "lease_lost"
    assert log.apply(Put("new", b"1", "node1", tags=("other",), lease=new))["ok"]


def test_invalidations_are_forgotten_with_the_last_lease_that_is_older() -> None:
    log = Log()
    log.apply(Invalidate("before"))
    log.apply(ask("a"))
    log.apply(Invalidate("t"))
    log.apply(ask("b"))

    assert dict(log.machine._fill_leases._invalidated) == {"t": 3}
    log.apply(Delete("a"))
    assert dict(log.machine._fill_leases._invalidated) == {}


def test_a_lease_ends_by_cluster_time_and_goes_to_the_next() -> None:
    log = Log()
    token = log.apply(ask())["lease"]

    assert "filling" in log.apply(ask(asker="node2:boot"), after_ms=999)
    assert log.apply(ask(asker="node2:boot"), after_ms=1)["lease"] == 3
    assert log.apply(Put("k", b"late", "node1", lease=token))["reason"] == "lease_lost"
    assert log.apply(Put("k", b"1", "node2", lease=3))["ok"]


def test_an_expired_lease_fills_nothing_even_where_nobody_took_the_next() -> None:
    log = Log()
    token = log.apply(ask())["lease"]

    assert log.apply(Put("k", b"late", "node1", lease=token), after_ms=1000)["reason"] == "lease_lost"


def test_waiters_hear_of_an_expiry_that_no_command_met() -> None:
    log = Log()
    log.apply(ask())
    due_ms = log.machine.next_due_ms()

    log.advance(due_ms - log.time_ms)

    assert ended(log) == ["k"]
    assert log.machine.next_due_ms() is None
    assert log.machine.statistics().fill_leases == 0


def test_a_lease_is_given_back_by_a_delete_that_names_it() -> None:
    log = Log()
    token = log.apply(ask())["lease"]

    assert log.apply(Delete("k", lease=token + 1)) == {**LOST, "version": 0}
    assert log.apply(Delete("k", lease=token)) == {"ok": True, "deleted": False}
    assert ended(log) == ["k"]
    assert log.apply(ask(asker="node2:boot"))["lease"] == 4


def test_a_late_give_back_does_not_remove_what_somebody_put() -> None:
    log = Log()
    token = log.apply(ask())["lease"]
    log.apply(Put("k", b"1", "node2"))

    assert log.apply(Delete("k", lease=token)) == {**LOST, "version": 2}
    assert log.machine.line("k").value == b"1"


def test_the_life_of_a_node_that_took_the_lease_is_told_its_token_again() -> None:
    """Goal: an answer that a leader change swallowed costs its key nothing."""
    log = Log()
    log.apply(ask())

    assert log.apply(ask(), after_ms=500) == {
        "hit": False, "val": None, "state": "I", "lease": 1, "lease_expires_ms": 2000
    }  # fmt: skip
    assert "filling" in log.apply(ask(asker="node1:later"))


def test_who_asks_with_the_claim_is_told_the_lease_again_by_whatever_node() -> None:
    """Goal: a lost answer does not cost the lease."""
    log = Log()
    absent = {"hit": False, "val": None, "state": "I"}
    log.apply(ask(claim="c"))

    assert log.apply(ask(asker="node2:boot", claim="c"), after_ms=400) == {
        **absent, "lease": 1, "lease_expires_ms": 2000, "replayed": True
    }  # fmt: skip
    for asker, claim in (("node2:boot", "d"), ("node2:boot", ""), ("node1:boot", "")):
        assert log.apply(ask(asker=asker, claim=claim)) == {**absent, "filling": True, "lease_expires_ms": 2000}
    assert log.apply(ask(asker="node3:boot", claim="c"), after_ms=600) == {
        **absent, "lease": 6, "lease_expires_ms": 3000
    }  # fmt: skip


def test_who_asks_without_a_claim_does_not_get_the_lease_of_one_with_it() -> None:
    log = Log()
    log.apply(ask())

    assert "filling" in log.apply(ask(claim="c"))


def test_leases_are_given_back_many_at_once_and_only_where_they_were_not_told_again() -> None:
    """Goal: the first node gives back what its client never heard of, while another node has just told it."""
    log = Log()
    for key in ("a", "b", "c", "d"):
        log.apply(ask(key, claim="c"))
    log.apply(ask("b", asker="node2:boot", claim="c"))
    log.apply(Put("c", b"1", "node1"))

    assert log.apply(GiveBack((("a", 1, 1), ("b", 2, 2), ("c", 3, 3), ("d", 4, 5), ("gone", 9, 9)))) == {"ok": True}

    assert ended(log) == ["a"]
    assert [log.machine.lease_token(key) for key in "abcd"] == [None, 2, None, 4]
    log.apply(GiveBack((("b", 2, 5), ("d", 4, 4))))
    assert ended(log) == ["b", "d"]


def test_a_lease_that_was_told_to_several_nodes_ends_with_the_last_that_gives_it_back() -> None:
    """Goal: none of them knows which one's answer reached the client."""
    for order in permutations(((1, 1), (1, 2), (1, 3))):
        log = Log()
        for number in (1, 2, 3):
            log.apply(ask(asker=f"node{number}:boot", claim="c", beside=True))
        for position, (token, told) in enumerate(order, 1):
            log.apply(GiveBack((("k", token, told),)))
            # Once more, as by a node that does not know whether it was done.
            log.apply(GiveBack((("k", token, told),)))

            assert log.machine.lease_token("k") == (1 if position < 3 else None), order


def test_a_node_that_was_told_a_lease_anew_gives_back_what_it_was_told_last() -> None:
    log = Log()
    for asker in ("node1:boot", "node2:boot", "node1:boot"):
        log.apply(ask(asker=asker, claim="c", beside=True))
    log.apply(GiveBack((("k", 1, 1),)))

    lease = log.machine.fill_lease("k")
    assert [lease.told_to(f"{node}:boot") for node in ("node1", "node2", "node3")] == [3, 2, None]
    log.apply(GiveBack((("k", 1, 3),)))
    assert log.machine.fill_leases_of("node2:boot") == [log.machine.fill_lease("k")]
    assert log.machine.fill_leases_of("node1:boot") == []
    log.apply(GiveBack((("k", 1, 2),)))
    assert ended(log) == ["k"]


def test_a_lease_is_told_to_so_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the row of a lease is bounded. Who had it already is told all the same."""
    monkeypatch.setattr("services.cache.replicated.fill_leases.TOLD_BESIDE_MAX", 1)
    log = Log()
    told = [log.apply(ask(asker=f"node{each}:boot", claim="c", beside=True)) for each in (1, 2, 3, 1)]

    assert ["lease" in answer for answer in told] == [True, True, False, True]
    assert "filling" in told[2]


def test_a_lease_told_again_by_an_old_entry_is_as_it_was() -> None:
    """Goal: a replica that replays old entries and one that begins from an old snapshot have the same leases."""
    replayed, began = Log(), Log()
    replayed.apply(ask(claim=None))
    replayed.apply(ask(claim=None), after_ms=7)
    began.machine.restore([["machine", 1007, 0, 0], ["lease", "k", 1, 2000, 2000, "node1:boot"]])
    began.index, began.time_ms = replayed.index, replayed.time_ms

    assert observable(began.machine) == observable(replayed.machine)
    for log in (began, replayed):
        log.apply(GiveBack((("k", 1, 1),)))
        assert ended(log) == ["k"]


def test_leases_are_bounded() -> None:
    log = Log(CacheMachine(fill_leases_max=2))
    log.apply(ask("a"))
    log.apply(ask("b"))

    refused = log.apply(ask("c"))

    assert (refused["ok"], refused["reason"], refused["limit_value"]) == (False, "quota", 2)
    assert "lease" in log.apply(ask("a"))
    log.apply(Delete("b"))
    assert "lease" in log.apply(ask("c"))


def test_if_version_holds_beside_the_lease() -> None:
    log = Log()
    token = log.apply(ask())["lease"]

    assert log.apply(Put("k", b"1", "node1", if_version=7, lease=token))["reason"] == "version_mismatch"
    assert log.apply(Put("k", b"1", "node1", if_version=0, lease=token))["ok"]


def test_a_restored_machine_has_the_same_leases_and_remembers_the_same_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_leases, "INVALIDATED_MAX", 5)
    log = Log()
    for step in range(60):
        claim = ("", "c", "d")[step % 5 % 3]
        asked = ask(
            f"k{step % 17}",
            asker=f"node{step % 3}:b",
            lease_ms=1 + step * 37 % 400,
            claim=claim,
            beside=step % 2 == 0,
        )
        log.apply(asked, after_ms=7)
        log.apply(Invalidate(f"t{step % 9}"))
    restored = Log(copy(log.machine))
    restored.index, restored.time_ms = log.index, log.time_ms

    assert observable(restored.machine) == observable(log.machine)
    for step in range(60):
        command = Put(f"k{step % 17}", b"1", "node1", tags=(f"t{step % 9}",), lease=step * 2 + 1)
        assert restored.apply(command, 5) == log.apply(command, 5)
        assert ended(restored) == ended(log)
        assert observable(restored.machine) == observable(log.machine)


def test_a_machine_without_leases_writes_the_snapshot_of_before() -> None:
    """Goal: a cluster that uses none of this can still be read by the version before."""
    log = Log()
    log.apply(Put("k", b"1", "node1"))

    assert [row[0] for row in log.machine.snapshot()] == ["machine", "directory", "line"]
    assert len(list(log.machine.snapshot())[2]) == 8
    assert isinstance(log.machine, CacheMachine)
