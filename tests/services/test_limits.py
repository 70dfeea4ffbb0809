"""Limits that the replicas of a group share: set by an entry, carried in snapshots, told and refused by HTTP."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.wire import pack, unpack
from raft.state_machine import ApplyContext
from services.cache.replicated.commands import Put
from services.catalogue import SERVICES
from services.lock.replicated.commands import Acquire
from services.node import limits as limit_routes
from services.node.maintenance import hash_of
from services.queue.replicated.commands import Enqueue
from services.replicated.envelope import encode_command, fingerprint
from services.replicated.limits import Limit, Limits, SetLimits, text_bytes
from services.replicated.machine import ReplicatedMachine, UnknownCommand
from tests.services.queue.hosting import Queues, queues
from tests.services.queue.test_machine_random import note_deliveries, random_command


class Replica(ReplicatedMachine):
    """A machine, and an index for each command."""

    def __init__(self, group: str) -> None:
        super().__init__(SERVICES[group].machine)
        self.group = group
        self.index = 0
        self.time_ms = 1_000

    def __call__(self, command: Any, key: str | None = None, *, passed_ms: int = 0) -> dict:
        self.index += 1
        self.time_ms += passed_ms
        mark = None if key is None else fingerprint(command)
        data = encode_command(command, idempotency_key=key, fingerprint=mark)
        return self.apply(ApplyContext(self.index, self.time_ms), data)

    def restored(self) -> "Replica":
        twin = Replica(self.group)
        twin.restore(list(self.snapshot()))
        twin.index, twin.time_ms = self.index, self.time_ms
        return twin

    def digest(self) -> str:
        return asyncio.run(hash_of(self.snapshot()))


def set_to(**limits: int | None) -> SetLimits:
    return SetLimits(tuple(limits.items()))


def test_a_limit_holds_from_its_entry_on_and_null_takes_it_back() -> None:
    """Goal: what one replica refuses every replica refuses, because the log says so."""
    replica = Replica("lock")
    assert replica(set_to(holds_max=1)) == {"ok": True, "limits": {"holds_max": 1}}
    replica(Acquire("a", "one"))

    refused = replica(Acquire("b", "one"))
    back = replica(set_to(holds_max=None))

    assert (refused["limit"], refused["limit_value"]) == ("holds_max", 1)
    assert back["limits"] == {"holds_max": 1_000_000}
    assert replica(Acquire("b", "one"))["ok"]


def test_a_lowered_limit_takes_nothing_away() -> None:
    """It refuses what is new until there is room."""
    replica = Replica("queue")
    replica(Enqueue("q", b"1"))
    replica(Enqueue("r", b"2"))

    replica(set_to(bytes_max=1, queues_max=1))

    assert replica(Enqueue("q", b"3"))["reason"] == "quota"
    used = replica.used()
    assert (used["queues_max"], used["bytes_max"], used["dead_bytes_max"]) == (2, 602, 0)


@pytest.mark.parametrize("group", SERVICES)
def test_what_was_set_survives_a_snapshot(group: str) -> None:
    """A replica that was restored knows the same numbers; one of a group that set none has the same bytes as ever."""
    name = next(iter(Replica(group).limits.declared))
    plain, replica = Replica(group), Replica(group)
    replica(set_to(**{name: 7}))

    copy = replica.restored()

    assert copy.limits.in_force == {**plain.limits.in_force, name: 7}
    assert copy.digest() == replica.digest() != plain.digest()
    assert unpack(unpack(next(plain.snapshot()))[0]) == 0


@pytest.mark.parametrize("seed", range(6))
def test_limits_that_change_at_any_moment_are_kept_alike_by_a_restored_replica(seed: int) -> None:
    """Goal: every legal number at any place of the log, with what is there far above it or far below: nothing raises,
    what is refused is refused by both, and nothing but dead letters goes because of it."""
    rng = random.Random(seed)
    replica, twin = Replica("queue"), Replica("queue")
    delivered: list[tuple[int, str]] = []
    refused = 0
    for _ in range(600):
        command: Any = random_command(rng, delivered, replica.inner.store.next_id)
        if rng.random() < 0.1:
            limit = rng.choice(list(replica.limits.declared.values()))
            small = {"bytes_max": rng.randint(0, 20_000), "dead_bytes_max": rng.randint(0, 2_000)}
            number = small.get(limit.name, rng.choice((limit.least, 2, limit.default)))
            command = set_to(**{limit.name: rng.choice((number, number, None))})
        passed_ms = rng.choice((0, 0, 1, 700))
        live = replica.used()["bytes_max"] - replica.used()["dead_bytes_max"]
        is_anything_due = passed_ms or (replica.next_due_ms() or replica.time_ms + 1) <= replica.time_ms
        answer = replica(command, passed_ms=passed_ms)

        assert twin(command, passed_ms=passed_ms) == answer
        note_deliveries(answer, delivered)
        refused += answer.get("reason") == "quota"
        if isinstance(command, SetLimits) and not is_anything_due:
            assert replica.used()["bytes_max"] - replica.used()["dead_bytes_max"] == live
        if rng.random() < 0.1:
            twin = replica.restored()
        assert replica.used() == twin.used()
    assert refused > 5
    assert replica.digest() == twin.digest()


def test_a_limit_that_was_taken_back_leaves_no_trace() -> None:
    replica, plain = Replica("queue"), Replica("queue")
    replica(set_to(queues_max=5))
    replica(set_to(queues_max=None))
    plain.advance(ApplyContext(2, 1_000))

    assert list(replica.snapshot()) == list(plain.snapshot())


@pytest.mark.parametrize("group", SERVICES)
def test_a_repeated_change_is_answered_as_before_and_not_made_again(group: str) -> None:
    """By its `Idempotency-Key`, in every group: a machine is never shown a command that is not its own."""
    replica = Replica(group)
    name = next(iter(replica.limits.declared))
    first = replica(set_to(**{name: 7}), "key")
    replica(set_to(**{name: 8}))

    again = replica(set_to(**{name: 7}), "key")

    assert again["limits"] == first["limits"]
    assert replica.limits.in_force[name] == 8


def test_a_lowered_bound_of_the_cache_evicts_when_something_is_written() -> None:
    replica = Replica("cache")
    for key in "abc":
        replica(Put(key, b"1", "node1"))

    replica(set_to(lines_max=2))
    lines = replica.used()["lines_max"]
    replica(Put("d", b"1", "node1"))

    assert (lines, replica.used()["lines_max"]) == (3, 2)


def test_a_limit_of_a_later_version_is_not_guessed() -> None:
    """Neither in the log nor in a snapshot: a replica that ignored it would refuse other things than the rest."""
    replica = Replica("queue")
    chunks = [pack([pack([["of_a_later_version_max", 3]]), pack(0)])]

    with pytest.raises(UnknownCommand):
        replica(set_to(queues_max=1, of_a_later_version_max=3))
    with pytest.raises(ValueError, match="of_a_later_version_max"):
        replica.restore(chunks)

    assert replica.limits.in_force["queues_max"] == 10_000


def test_the_defaults_are_frozen() -> None:
    """Nothing in a log says which default its entries were applied with: another number here would make the replicas
    of two versions refuse different things. A test that fails here is right."""
    declared = {group: Replica(group).limits.declared.values() for group in SERVICES}
    defaults = {group: {limit.name: limit.default for limit in limits} for group, limits in declared.items()}

    kept = {
        group: {name: limits.pop(name) for name in list(limits) if name.startswith("idempotency_")}
        for group, limits in defaults.items()
    }
    assert defaults == {
        "lock": {
            "holds_max": 1_000_000,
            "holders_per_key_max": 10_000,
            "waiters_per_key_max": 10_000,
            "waiters_max": 100_000,
            "listeners_max": 16,
            "bytes_max": 512 << 20,
        },
        "queue": {
            "queues_max": 10_000,
            "bytes_max": 1 << 30,
            "dead_bytes_max": 128 << 20,
            "in_flight_per_queue_max": 100_000,
        },
        "cache": {"lines_max": 1_000_000, "bytes_max": 256 << 20, "fill_leases_max": 100_000},
    }
    assert kept == {group: {"idempotency_keys_max": 100_000, "idempotency_bytes_max": 64 << 20} for group in SERVICES}


def test_a_limit_is_declared_once_and_within_its_range() -> None:
    limits = Limits([Limit("a_max", 2, 1, 3, "A.")])

    for wrong in (Limit("a_max", 2, 1, 3, "A."), Limit("b_max", 0, 1, 3, "B.")):
        with pytest.raises(AssertionError):
            limits.declare([wrong])


@pytest.mark.parametrize(("text", "size"), [("", 0), ("abc", 3), ("é", 4), ("abc\U0001f600", 16)])
def test_a_text_counts_as_it_may_lie_in_memory(text: str, size: int) -> None:
    """One character beyond the basic plane makes each of them take four bytes."""
    assert text_bytes(text) == size


# HTTP


@pytest.fixture
async def served() -> AsyncIterator[Queues]:
    async with queues(groups=("queue",)) as served:
        limit_routes.watch_limits(served.host.metrics, served.host.nodes)
        yield served


async def asked(served: Queues, body: dict) -> tuple[int, dict]:
    async with served.client.post("/admin/limits", json=body) as response:
        return response.status, await response.json()


async def test_limits_are_set_and_shown(served: Queues) -> None:
    """With what is used of them; `group` may be left out where there is one."""
    await served.ok("enq", {"value": 1})
    status, answer = await asked(served, {"limits": {"bytes_max": 2 << 20, "queues_max": None}})
    async with served.client.get("/admin/limits") as response:
        shown = (await response.json())["groups"]["queue"]

    assert (status, answer["limits"]) == (200, {"bytes_max": 2 << 20, "queues_max": 10_000})
    assert {name: shown["bytes_max"][name] for name in ("value", "default", "least", "used")} == {
        "value": 2 << 20, "default": 1 << 30, "least": 1 << 20, "used": 300 + len('{"key":null,"value":1}')
    }  # fmt: skip
    assert shown["in_flight_per_queue_max"]["used"] is None


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"limits": {"bytes_max": 1}}, "bytes_max"),
        ({"limits": {"bytes_maximum": 1 << 30}}, "bytes_maximum"),
        ({"limits": {"queues_max": "7"}}, "limits"),
        ({"limits": {}}, "limits"),
        ({"limits": {"queues_max": 7}, "group": "lock"}, "group"),
    ],
)
async def test_what_cannot_be_set_is_refused_by_name(served: Queues, body: dict, named: str) -> None:
    """And nothing is proposed."""
    status, answer = await asked(served, body)

    assert (status, answer["reason"]) == (400, "bad_request")
    assert named in answer["detail"]
    assert served.node.proposed == 0


async def test_bounds_and_what_is_used_of_them_are_metrics(served: Queues) -> None:
    await served.ok("enq", {"value": 1})

    metrics = served.host.metrics
    assert metrics.mufakat_limit.rows()["queue", "queues_max"] == 10_000
    assert metrics.mufakat_limit_used.rows()["queue", "queues_max"] == 1
