"""The lock machine alone: modes, lines, ttl, tokens, cancelling, limits."""

import tracemalloc

import pytest

from services.lock.replicated import machine as machine_module
from services.lock.replicated.commands import Acquire
from services.lock.replicated.machine import LockMachine
from tests.services.lock.driving import Driver, copied


class TestModes:
    @pytest.mark.parametrize(
        ("held", "asked", "granted"),
        [("X", "X", False), ("X", "S", False), ("S", "X", False), ("S", "S", True)],
    )
    def test_only_shared_tolerates_shared(self, held, asked, granted):
        """The compatibility table of the two modes, between different owners."""
        driver = Driver()
        driver.acquire("a", held)

        answer = driver.acquire("b", asked)

        assert granted == answer["ok"]

    def test_refusal_names_the_holder_as_the_contract_spells_it(self):
        """`current` is owner, spelled-out mode and the node through which the holder asked."""
        driver = Driver()
        driver.acquire("clientA", node="node1")

        answer = driver.acquire("clientB", node="node2")

        assert answer["reason"] == "locked"
        assert answer["current"] == {"owner": "clientA", "mode": "exclusive", "node": "node1"}
        assert [holder["owner"] for holder in answer["holders"]] == ["clientA"]
        assert answer["queue_length"] == 0

    def test_a_grant_says_token_mode_and_expiry(self):
        driver = Driver()

        answer = driver.acquire("a", "S", ttl_ms=500)

        assert {"ok": True, "token": 1, "mode": "shared", "expires_ms": driver.time_ms + 500} == answer

    @pytest.mark.parametrize(
        ("held", "asked", "mode"),
        [("X", "X", "exclusive"), ("S", "S", "shared"), ("X", "S", "exclusive")],
    )
    def test_asking_again_for_what_one_has_answers_with_the_same_token(self, held, asked, mode):
        """A holder's repeated acquire is harmless; an exclusive hold also covers a shared request."""
        driver = Driver()
        first = driver.acquire("a", held)

        again = driver.acquire("a", asked)

        assert first["token"] == again["token"]
        assert mode == again["mode"]
        assert driver.machine.statistics().holds == 1

    def test_shared_hold_does_not_cover_an_exclusive_request_of_its_owner(self):
        """Acquire is no upgrade: the request conflicts with the owner's own hold and is told so."""
        driver = Driver()
        driver.acquire("a", "S")

        answer = driver.acquire("a", "X")

        assert answer["reason"] == "locked"
        assert "release it" in answer["detail"]

    def test_one_release_ends_a_hold_however_often_it_was_asked_for(self):
        """Acquire is idempotent, not counted: a client that retries does not owe two releases."""
        driver = Driver()
        driver.acquire("a")
        driver.acquire("a")

        driver.release("a")

        assert driver.holders() == []

    def test_reader_asking_again_passes_a_waiting_writer(self):
        """A holder that retries gets its token even though a line has formed."""
        driver = Driver()
        token = driver.acquire("a", "S")["token"]
        driver.wait("writer", "X")

        assert token == driver.acquire("a", "S")["token"]

    @pytest.mark.parametrize("holder", [None, "b"])
    def test_releasing_what_one_does_not_hold_is_not_held(self, holder):
        driver = Driver()
        if holder:
            driver.acquire(holder)

        assert driver.release("a") == {"ok": False, "reason": "not_held"}

    def test_released_locks_leave_nothing_behind(self):
        """Memory follows what is held, not what was ever held."""
        driver = Driver()
        driver.acquire("a", "S")
        driver.acquire("b", "S")
        driver.wait("c")

        for owner in ("a", "b", "c"):
            driver.release(owner)

        assert list(driver.machine.snapshot()) == [["lock", 2, 3]]
        assert driver.machine.page("", "", 10) == []


class TestLine:
    def test_waiters_are_served_in_the_order_they_came(self):
        driver = Driver()
        driver.acquire("a")
        for owner in ("b", "c", "d"):
            driver.wait(owner)

        order = []
        for owner in ("a", "b", "c", "d"):
            driver.release(owner)
            order += driver.holders()

        assert order == ["B", "C", "D"]

    def test_later_reader_does_not_overtake_a_waiting_writer(self):
        """Readers that keep coming must not starve a writer."""
        driver = Driver()
        driver.acquire("a", "S")
        driver.wait("writer", "X")

        at_once = driver.acquire("b", "S")
        driver.wait("b", "S")

        assert at_once["reason"] == "locked"
        assert at_once["queue_length"] == 1
        driver.release("a")
        assert driver.holders() == ["WRITER"]
        driver.release("writer")
        assert driver.holders() == ["b"]

    def test_readers_in_front_of_the_next_writer_are_let_in_together(self):
        driver = Driver()
        driver.acquire("a", "X")
        for owner, mode in (("b", "S"), ("c", "S"), ("d", "X"), ("e", "S")):
            driver.wait(owner, mode)

        driver.release("a")

        assert driver.holders() == ["b", "c"]
        assert driver.line() == ["d", "e"]

    def test_readers_behind_a_writer_that_gives_up_are_let_in(self):
        """A line that moves because its head left, not because a holder did."""
        driver = Driver()
        driver.acquire("a", "S")
        driver.wait("writer", "X", wait_ms=100)
        driver.wait("b", "S", wait_ms=5_000)

        driver.advance(100)

        assert driver.holders() == ["a", "b"]
        assert driver.told()["writer"]["reason"] == "timeout"
        assert driver.told()["b"]["ok"]

    def test_a_grant_is_announced_to_its_waiter_alone(self):
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", ttl_ms=700)
        driver.wait("c")
        driver.time_ms += 50

        driver.release("a")

        assert [
            (
                "lock.told",
                ("b", "k", "b", {"ok": True, "token": 2, "mode": "exclusive", "expires_ms": driver.time_ms + 700}),
            )
        ] == driver.events

    def test_the_same_waiter_id_stands_in_line_once(self):
        """An entry that was proposed twice must not wait twice."""
        driver = Driver()
        driver.acquire("a")

        driver.wait("b", waiter="same")
        driver.wait("b", waiter="same")

        assert driver.line() == ["b"]

    def test_an_owners_repeated_request_is_answered_together_with_the_first(self):
        """A client whose connection broke asks again while its first request still stands in line."""
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", waiter="first")
        driver.wait("c")
        driver.wait("b", waiter="again", ttl_ms=900)

        driver.release("a")

        assert driver.told()["first"]["token"] == driver.told()["again"]["token"]
        assert driver.time_ms + 900 == driver.told()["again"]["expires_ms"]
        assert driver.line() == ["c"]

    def test_a_shared_request_that_joined_an_exclusive_one_is_granted_with_it(self):
        """An exclusive hold covers both; where only the shared request is left in the place, it is granted shared."""
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", "X", waiter="gives-up")
        driver.wait("b", "S", waiter="shared")
        driver.wait("c", "X", waiter="both")
        driver.wait("c", "S", waiter="together")
        driver.cancel("b", "gives-up")

        driver.release("a")
        shared = driver.told()
        driver.release("b")

        assert list(shared) == ["shared"]
        assert shared["shared"]["mode"] == "shared"
        assert {waiter: answer["mode"] for waiter, answer in driver.told().items()} == {
            "both": "exclusive",
            "together": "exclusive",
        }

    def test_an_owner_may_ask_only_so_often_for_what_it_waits_for(self):
        driver = Driver()
        driver.machine.limits.set([("listeners_max", 2)])
        driver.acquire("a")
        driver.wait("b", waiter="1")
        driver.wait("b", waiter="2")

        answer = driver.acquire("b", wait_ms=100)

        assert (answer["reason"], answer["limit"]) == ("overloaded", "listeners_max")

    def test_each_request_of_a_place_ends_at_its_own_deadline(self):
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", waiter="short", wait_ms=1_000)
        driver.wait("b", waiter="long", wait_ms=5_000)

        early = dict(driver.advance(1_000) and driver.told())
        line = driver.line()
        driver.advance(4_000)

        assert (list(early), early["short"]["reason"], line) == (["short"], "timeout", ["b"])
        assert (list(driver.told()), driver.line()) == (["long"], [])

    def test_granted_readers_may_share_with_a_reader_that_held_all_along(self):
        driver = Driver()
        driver.acquire("a", "S")
        driver.acquire("b", "S")
        driver.wait("w", "X", wait_ms=10)
        driver.wait("c", "S")

        driver.advance(10)
        driver.release("a")

        assert driver.holders() == ["b", "c"]


class TestTime:
    def test_hold_ends_at_its_expiry_and_not_before(self):
        driver = Driver()
        driver.acquire("a", ttl_ms=100)

        driver.time_ms += 99
        before = driver.acquire("b")
        driver.time_ms += 1
        after = driver.acquire("b")

        assert not before["ok"]
        assert after["ok"]

    def test_expiry_serves_the_line(self):
        driver = Driver()
        driver.acquire("a", ttl_ms=100)
        driver.wait("b")

        driver.advance(100)

        assert driver.holders() == ["B"]

    def test_ttl_of_a_waiter_runs_from_its_grant(self):
        driver = Driver()
        driver.acquire("a", ttl_ms=1_000)
        driver.wait("b", ttl_ms=100)

        driver.advance(1_000)

        assert driver.time_ms + 100 == driver.told()["b"]["expires_ms"]

    @pytest.mark.parametrize("late_by_ms", [0, 1, 10_000])
    def test_waiter_whose_deadline_passed_is_never_granted(self, late_by_ms):
        """The hold ended before the waiter's deadline, but the entry that brings it to light comes later: nobody
        may be waiting for the answer any more (etcd issue 11456)."""
        driver = Driver()
        driver.acquire("a", ttl_ms=50)
        driver.wait("b", wait_ms=100)

        driver.advance(100 + late_by_ms)

        assert driver.holders() == []
        assert [body["reason"] for body in driver.told().values()] == ["timeout"]
        assert driver.told()["b"]["current"] is None

    def test_release_after_the_deadline_does_not_grant_either(self):
        """The same, with the release itself as the first entry after the deadline."""
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", wait_ms=100)
        driver.wait("c", wait_ms=500)
        driver.time_ms += 100

        driver.release("a")

        assert driver.holders() == ["C"]
        assert driver.told()["b"]["reason"] == "timeout"

    def test_timeout_tells_who_holds(self):
        driver = Driver()
        driver.acquire("a", node="node3")
        driver.wait("b", wait_ms=100)

        driver.advance(100)

        assert driver.told()["b"]["current"] == {"owner": "a", "mode": "exclusive", "node": "node3"}

    def test_renew_moves_the_expiry_either_way(self):
        driver = Driver()
        token = driver.acquire("a", ttl_ms=100)["token"]

        longer = driver.renew("a", 500)
        shorter = driver.renew("a", 50)

        assert [driver.time_ms + 500, driver.time_ms + 50] == [longer["expires_ms"], shorter["expires_ms"]]
        assert [token, token] == [longer["token"], shorter["token"]]
        driver.advance(50)
        assert driver.holders() == []

    def test_renewing_an_expired_hold_is_not_held(self):
        """Expiry is decided by the entry's own time, even if no entry came between."""
        driver = Driver()
        driver.acquire("a", ttl_ms=100)
        driver.time_ms += 100

        assert driver.renew("a", 500) == {"ok": False, "reason": "not_held"}

    def test_renewing_a_foreign_hold_is_not_held(self):
        driver = Driver()
        driver.acquire("a", ttl_ms=100)

        assert driver.renew("b", 500) == {"ok": False, "reason": "not_held"}

    def test_asking_again_with_a_ttl_renews_and_without_leaves_it(self):
        driver = Driver()
        first = driver.acquire("a", ttl_ms=100)
        driver.time_ms += 60

        without = driver.acquire("a")
        renewed = driver.acquire("a", ttl_ms=100)

        assert first["expires_ms"] == without["expires_ms"]
        assert driver.time_ms + 100 == renewed["expires_ms"]

    def test_next_due_is_the_earliest_expiry_or_deadline(self):
        """It is exact: an entry that finds nothing to do costs every node of the group."""
        driver = Driver()
        dues = [driver.machine.next_due_ms()]
        driver.acquire("a", ttl_ms=100)
        dues.append(driver.machine.next_due_ms())
        driver.renew("a", 300)
        dues.append(driver.machine.next_due_ms())
        driver.wait("b", wait_ms=200)
        dues.append(driver.machine.next_due_ms())
        driver.cancel("b", "b")
        driver.release("a")
        dues.append(driver.machine.next_due_ms())

        assert dues == [None, 1_100, 1_300, 1_200, None]


class TestTokens:
    def test_tokens_rise_with_every_grant_of_a_key(self):
        driver = Driver()
        tokens = []
        for owner in ("a", "b", "a", "c"):
            tokens.append(driver.acquire(owner)["token"])
            driver.release(owner)

        assert sorted(set(tokens)) == tokens

    def test_readers_let_in_by_one_entry_have_tokens_of_their_own(self):
        """A token names one hold, so that `validate` can tell a reader that left from one that stays."""
        driver = Driver()
        driver.acquire("a")
        for owner in ("b", "c", "d"):
            driver.wait(owner, "S")

        driver.release("a")

        assert [driver.told()[owner]["token"] for owner in ("b", "c", "d")] == [2, 3, 4]

    def test_a_key_granted_twice_by_one_entry_gets_two_tokens(self):
        """Expiry grants to b, and the same entry is b's release, which grants to c: the log index would repeat."""
        driver = Driver()
        driver.acquire("a", ttl_ms=100)
        driver.wait("b")
        driver.wait("c")
        driver.time_ms += 100

        driver.release("b")

        assert driver.told()["b"]["token"] < driver.told()["c"]["token"]

    def test_validate_tells_standing_fenced_and_ended_tokens_apart(self):
        driver = Driver()
        old = driver.acquire("a")["token"]
        driver.release("a")
        ended = driver.machine.validate("k", old)
        new = driver.acquire("b", ttl_ms=100)["token"]

        standing = driver.machine.validate("k", new)
        fenced = driver.machine.validate("k", old)

        assert ended == {"ok": False, "valid": False, "reason": "not_held"}
        assert (True, "b", driver.time_ms + 100) == (
            standing["valid"],
            standing["owner"],
            standing["expires_ms"],
        )
        assert {"ok": False, "valid": False, "reason": "fenced", "highest_token": new} == fenced

    def test_a_token_of_another_key_is_not_valid(self):
        driver = Driver()
        token = driver.acquire("a", key="other")["token"]

        assert not driver.machine.validate("k", token)["valid"]

    def test_an_earlier_reader_stays_valid_beside_a_later_one(self):
        driver = Driver()
        first = driver.acquire("a", "S")["token"]
        driver.acquire("b", "S")

        assert driver.machine.validate("k", first)["valid"]


class TestForcedRelease:
    def test_it_takes_the_key_from_everybody_and_serves_the_line(self):
        driver = Driver()
        driver.acquire("a", "S")
        driver.acquire("b", "S")
        driver.wait("c")

        answer = driver.force_release()

        assert (answer["ok"], answer["released_count"]) == (True, 2)
        assert [holder["owner"] for holder in answer["released"]] == ["a", "b"]
        assert driver.holders() == ["C"]

    def test_it_may_name_one_owner(self):
        driver = Driver()
        driver.acquire("a", "S")
        driver.acquire("b", "S")

        driver.force_release(owner="a")

        assert driver.holders() == ["b"]

    @pytest.mark.parametrize("owner", [None, "b"])
    def test_nothing_to_take_is_not_held(self, owner):
        driver = Driver()
        if owner:
            driver.acquire("a")

        assert driver.force_release(owner=owner) == {"ok": False, "reason": "not_held"}


class TestCancelling:
    def test_a_client_that_has_gone_leaves_the_line(self):
        driver = Driver()
        driver.acquire("a", "S")
        driver.wait("b", "X")
        driver.wait("c", "S")

        answer = driver.cancel("b", "b")

        assert answer["cancelled"] == "waiting"
        assert driver.holders() == ["a", "c"]
        assert driver.told()["b"]["reason"] == "cancelled"

    def test_a_grant_that_crossed_the_cancelling_is_given_back(self):
        """The client disconnected before it could hear of its grant: without a ttl it would block the key for
        ever."""
        driver = Driver()
        driver.acquire("a")
        driver.wait("b")
        driver.wait("c")
        driver.release("a")

        answer = driver.cancel("b", "b")

        assert answer["cancelled"] == "granted"
        assert driver.holders() == ["C"]

    def test_a_grant_that_its_owner_has_asked_about_since_is_kept(self):
        """The owner's second request was answered with the hold that its first one won: it counts on it."""
        driver = Driver()
        driver.acquire("a")
        driver.wait("b")
        driver.release("a")
        driver.acquire("b")

        answer = driver.cancel("b", "b")

        assert answer["cancelled"] is None
        assert driver.holders() == ["B"]

    def test_cancelling_what_is_long_over_does_nothing(self):
        driver = Driver()
        driver.acquire("a")

        assert driver.cancel("a", "unknown") == {"ok": True, "cancelled": None}
        assert driver.holders() == ["A"]

    def test_a_restarted_node_drops_the_waiters_of_its_earlier_life(self):
        driver = Driver()
        driver.acquire("a", "S")
        driver.wait("b", "X", node="node2", boot="old")
        driver.wait("c", "S", node="node2", boot="new")
        driver.wait("d", "X", node="node3", boot="old")

        answer = driver.drop_waiters("node2", boot_kept="new")

        assert answer["dropped"] == 1
        assert driver.holders() == ["a", "c"]
        assert driver.line() == ["d"]
        assert driver.told()["b"]["reason"] == "cancelled"

    def test_one_entry_drops_a_bounded_number_of_waiters(self, monkeypatch):
        """The first to come go first, on every replica; what is left is told."""
        monkeypatch.setattr(machine_module, "DROPPED_PER_ENTRY_MAX", 2)
        driver = Driver()
        driver.acquire("a")
        for owner in ("b", "c", "d"):
            driver.wait(owner, node="node2")
        driver.machine = copied(driver.machine)

        first = driver.drop_waiters("node2")
        line = driver.line()
        second = driver.drop_waiters("node2")

        assert (first["dropped"], first["more"], line) == (2, True, ["d"])
        assert (second["dropped"], second["more"], driver.line()) == (1, False, [])

    def test_a_place_stays_as_long_as_one_of_its_requests_does(self):
        """The client broke off and asked again through another node, which is told of the grant."""
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", waiter="first", node="node1")
        driver.wait("c")
        driver.wait("b", waiter="again", node="node2")

        left = driver.cancel("b", "first")
        driver.release("a")

        assert left["cancelled"] is None
        assert list(driver.told()) == ["again"]
        assert driver.holders() == ["B"]

    def test_a_hold_goes_with_the_last_request_that_may_know_of_it(self):
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", waiter="first")
        driver.wait("b", waiter="again")
        driver.release("a")

        one = driver.cancel("b", "first")
        held = driver.holders()
        both = driver.cancel("b", "again")

        assert (one["cancelled"], held) == (None, ["B"])
        assert (both["cancelled"], driver.holders()) == ("granted", [])
        assert driver.decided == [("first", {"ok": False, "reason": "cancelled"})]

    def test_a_late_release_or_renewal_with_a_token_leaves_a_newer_hold_alone(self):
        driver = Driver()
        old = driver.acquire("a", ttl_ms=100)["token"]
        driver.advance(100)
        new = driver.acquire("a")["token"]

        renewed = driver.renew("a", 500, token=old)
        released = driver.release("a", token=old)

        assert renewed == released == {"ok": False, "reason": "not_held"}
        assert driver.holders() == ["A"]
        assert driver.release("a", token=new) == {"ok": True}

    def test_a_stopping_node_drops_all_of_its_waiters(self):
        driver = Driver()
        driver.acquire("a")
        driver.wait("b", node="node2", boot="new")
        driver.wait("c", node="node3", boot="new")

        driver.drop_waiters("node2")

        assert driver.line() == ["c"]


class TestLimits:
    @pytest.mark.parametrize(
        ("reason", "limit"),
        [
            ("quota", "waiters_per_key_max"),
            ("overloaded", "waiters_max"),
        ],
    )
    def test_a_full_line_admits_nobody(self, reason, limit):
        driver = Driver()
        driver.machine.limits.set([(limit, 2)])
        driver.acquire("a")
        driver.wait("b")
        driver.wait("c")

        answer = driver.acquire("d", wait_ms=100)

        assert {"ok": False, "reason": reason, "limit": limit, "limit_value": 2} == answer

    def test_too_many_holds_are_refused_until_one_ends(self):
        driver = Driver()
        driver.machine.limits.set([("holds_max", 2)])
        driver.acquire("a", key="1")
        driver.acquire("a", key="2")

        full = driver.acquire("a", key="3")
        again = driver.acquire("a", key="2")
        driver.release("a", key="1")

        assert (full["reason"], full["limit"]) == ("quota", "holds_max")
        assert again["ok"]
        assert driver.acquire("a", key="3")["ok"]

    def test_too_many_readers_of_one_key_are_refused(self):
        driver = Driver()
        driver.machine.limits.set([("holders_per_key_max", 2)])
        driver.acquire("a", "S")
        driver.acquire("b", "S")

        assert driver.acquire("c", "S")["limit"] == "holders_per_key_max"

    def test_a_refusal_shows_few_of_many_readers(self):
        """Refusals are kept with their idempotency keys: ten thousand readers in each would be too much."""
        driver = Driver()
        for number in range(50):
            driver.acquire(f"reader{number}", "S")

        answer = driver.acquire("writer", "X")

        assert (len(answer["holders"]), answer["holder_count"]) == (16, 50)

    def test_a_lock_costs_less_than_600_bytes(self):
        """Key, owner, hold, ttl and all indexes together, with a key and an owner of its own for each."""
        machine = LockMachine()
        driver = Driver(machine)
        count = 5_000
        tracemalloc.start()

        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            driver.apply(
                Acquire(
                    f"lock-{number:06}", f"client-{number:06}", True, 30_000 + number, 0, "", "node1", "boot"
                )
            )
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()

        assert used / count < 600


class TestQuestions:
    def test_status_of_a_free_key(self):
        status = Driver().machine.status("k")

        assert (
            status["held"],
            status["mode"],
            status["holders"],
            status["waiters"],
            status["queue_length"],
        ) == (False, None, [], [], 0)

    def test_status_shows_holders_and_the_line_in_order(self):
        driver = Driver()
        driver.acquire("a", "S", ttl_ms=100)
        driver.wait("b", "X", wait_ms=300, node="node2")
        driver.wait("c", "S", wait_ms=200)

        status = driver.machine.status("k")

        assert (
            status["held"],
            status["mode"],
            status["holder_count"],
            status["queue_length"],
        ) == (True, "shared", 1, 2)
        assert status["holders"] == [
            {"owner": "a", "mode": "shared", "node": "node1", "token": 1, "expires_ms": 1_100}
        ]
        assert [
            (waiter["owner"], waiter["mode"], waiter["node"], waiter["deadline_ms"])
            for waiter in status["waiters"]
        ] == [("b", "exclusive", "node2", 1_300), ("c", "shared", "node1", 1_200)]

    def test_summaries_leave_out_what_is_not_held(self):
        driver = Driver()
        driver.acquire("a", key="1")
        driver.acquire("a", key="2")
        driver.release("a", key="2")

        assert [row["key"] for row in driver.machine.summaries(["1", "2"])] == ["1"]

    def test_bytes_are_counted_with_what_lies_around_the_names(self):
        """Goal: holds and waiters of tiny names are not free, and every path in and out is counted."""
        driver = Driver()
        driver.acquire("a", ttl_ms=50)
        driver.wait("b")
        driver.wait("é", "S")
        full = driver.machine.used()["bytes_max"]
        driver.machine.limits.set([("bytes_max", full)])

        refused = driver.acquire("c", key="other")
        no_line = driver.acquire("c", wait_ms=10)
        renewed = driver.renew("a", 90)
        driver.advance(90)
        driver.release("b")
        driver.release("é")

        assert full == (512 + 1 + 1) + (640 + 1 + 1 + 240 + 1) + (640 + 1 + 4 + 240 + 1)
        assert [answer["limit"] for answer in (refused, no_line)] == ["bytes_max"] * 2
        assert renewed["ok"]
        assert driver.machine.used() == {"holds_max": 0, "waiters_max": 0, "bytes_max": 0}
        assert driver.acquire("c", key="other")["ok"]
