"""Thesis, section 6.3: implementing linearizable semantics.

Where the thesis has sessions with serial numbers, a request here carries an idempotency key that its client chose;
the table of first answers is the replicated state that the thesis asks for.
"""


from raft.state_machine import ApplyContext
from services.replicated.envelope import encode_command
from services.replicated.idempotency import KEEP_MS, LIMITS, IdempotencyTable
from services.replicated.limits import Limits
from services.replicated.machine import ReplicatedMachine
from tests.paper.counting import Add, Counter
from tests.paper.groups import elect, elected, propose


def keyed(by: int, key: str = "k") -> bytes:
    return encode_command(Add(by), idempotency_key=key, fingerprint=b"%d" % by)


def apply(machine: ReplicatedMachine, *commands: bytes, time_ms: int = 0) -> list[dict]:
    return [machine.apply(ApplyContext(index, time_ms), command) for index, command in enumerate(commands, 1)]


def test_a_repeated_command_is_answered_without_being_executed() -> None:
    """Thesis 6.3: the machine keeps the response with the number, and gives it again."""
    machine = ReplicatedMachine(Counter)

    answers = apply(machine, keyed(5), keyed(5), keyed(5))

    first = {"ok": True, "total": 5}
    assert answers == [first, {**first, "replayed": True}, {**first, "replayed": True}]
    assert machine.inner.total == 5


def test_the_first_answer_is_given_even_after_the_state_has_moved_on() -> None:
    """Thesis 6.3: the response is the one of the execution, not what a new one would say."""
    machine = ReplicatedMachine(Counter)

    answers = apply(machine, keyed(5, "one"), keyed(7, "two"), keyed(5, "one"))

    assert answers[0] == {"ok": True, "total": 5}
    assert answers[2] == {**answers[0], "replayed": True}


def test_commands_without_a_key_are_executed_each_time() -> None:
    """Thesis 6.3: at-least-once is what a client gets that does not number its requests."""
    machine = ReplicatedMachine(Counter)
    command = encode_command(Add(5))

    apply(machine, command, command)

    assert machine.inner.total == 10


def test_duplicates_are_filtered_by_the_machine_so_the_log_may_hold_them() -> None:
    """Thesis 6.3: a leader cannot tell a retry from a new command; every replica filters alike (known bug 79)."""
    cluster = elected()
    propose(cluster, "a", keyed(5))
    cluster.crash("a")
    elect(cluster, "b")
    propose(cluster, "b", keyed(5))

    totals = set()
    for id in "bc":
        machine = ReplicatedMachine(Counter)
        apply(machine, *cluster.nodes[id].commands)
        totals.add(machine.inner.total)

    assert [len(cluster.nodes[id].commands) for id in "bc"] == [2, 2]
    assert totals == {5}


def test_the_same_key_for_another_request_is_refused() -> None:
    """Thesis 6.3: a number names one command; two commands under it would be a client's mistake."""
    machine = ReplicatedMachine(Counter)

    answers = apply(machine, keyed(5), keyed(6))

    assert answers[1] == {"ok": False, "reason": "idempotency_key_reused"}
    assert machine.inner.total == 5


def test_the_table_is_part_of_the_snapshot() -> None:
    """Thesis 6.3 and 5: or a retry after a restart would be executed again (known bugs 46 and 79)."""
    machine, restored = ReplicatedMachine(Counter), ReplicatedMachine(Counter)
    apply(machine, keyed(5))

    restored.restore(machine.snapshot())
    answers = apply(restored, keyed(5))

    assert answers == [{"ok": True, "total": 5, "replayed": True}]
    assert restored.inner.total == 5


def test_all_servers_agree_when_an_answer_is_forgotten() -> None:
    """Thesis 6.3: expiry must be deterministic; the time is the entry's, stamped by the leader."""
    early, late = ReplicatedMachine(Counter), ReplicatedMachine(Counter)

    for machine in (early, late):
        apply(machine, keyed(5))
        apply(machine, keyed(5), time_ms=KEEP_MS - 1)
        apply(machine, keyed(5), time_ms=KEEP_MS)

    assert early.inner.total == late.inner.total == 10


def test_the_number_of_kept_answers_is_bounded_and_the_oldest_goes_first() -> None:
    """Thesis 6.3: an upper bound on sessions, the same on all servers; here with a small one."""
    limits = Limits(LIMITS)
    limits.set([("idempotency_keys_max", 3)])
    table = IdempotencyTable(limits)

    for number in range(5):
        table.keep(f"k{number}", b"f", {"ok": True}, waiter=None, time_ms=number)

    assert len(table) == 3
    assert [table.find(f"k{number}", 5) is not None for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_requests_of_one_client_need_no_order() -> None:
    """Thesis 6.3: a client may have several requests under way; each is found by its own key."""
    machine = ReplicatedMachine(Counter)

    answers = apply(machine, keyed(2, "b"), keyed(1, "a"), keyed(1, "a"), keyed(2, "b"))

    assert [answer["total"] for answer in answers] == [2, 3, 3, 2]
    assert [answer.get("replayed", False) for answer in answers] == [False, False, True, True]
    assert machine.inner.total == 3
