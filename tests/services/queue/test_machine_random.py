"""Random lives of the queues, checked against a dumb twin, through snapshots and under other hash seeds."""

import hashlib
import os
import random
import subprocess
import sys
from typing import Any

import pytest

from services.queue.replicated import commands
from services.queue.replicated.messages import State
from tests.services.queue.driving import Driver
from tests.services.queue.twin import TwinQueues

QUEUES = ("orders", "mail", "ünïcode")


def random_command(rng: random.Random, delivered: list[tuple[int, str]], next_id: int) -> Any:
    """Any command; acks and their like mostly name a delivery that was really made, new or old."""
    queue = rng.choice(QUEUES)
    message_id, receipt = rng.randint(0, next_id + 1), "0"
    if delivered and rng.random() < 0.9:
        message_id, receipt = rng.choice(delivered[-12:])
    named = rng.choice((None, receipt, receipt))
    kind = rng.random()
    if kind < 0.38:
        payload = b'{"n":%d}' % rng.randint(0, 10**9)
        delay_ms = rng.choice((0, 0, 0, rng.randint(1, 5000)))
        ttl_ms = rng.choice((0, 0, 0, rng.randint(1, 8000)))
        return commands.Enqueue(queue, payload, rng.choice((0, 0, 0, 5, 9)), delay_ms, ttl_ms)
    if kind < 0.62:
        return commands.Dequeue(queue, rng.choice((1, 1, 3)), rng.choice((0, 500, 1500, 4000)))
    if kind < 0.68:
        return commands.Pop(queue)
    if kind < 0.80:
        return commands.Ack(message_id, named)
    if kind < 0.90:
        return commands.Nack(message_id, named, rng.choice((0, 0, 700, 3000)), rng.random() < 0.2)
    if kind < 0.95:
        return commands.Extend(message_id, named, rng.choice((100, 2000, 9000)))
    if kind < 0.97:
        return commands.Reject(message_id, named)
    if kind < 0.98:
        return commands.Redrive(queue)
    if kind < 0.99:
        return commands.Configure(
            queue,
            message_ttl_ms=rng.choice((None, 0, 900, 6000)),
            max_dead=rng.choice((None, 0, 2, 50)),
            max_dead_bytes=rng.choice((None, 700, 1 << 20)),
            dead_ttl_ms=rng.choice((None, 0, 4000)),
        )
    if kind < 0.997:
        states = rng.choice(((0, 1, 3), (0,), (1,), (2,), (3,)))
        return commands.Purge(queue, states)
    return commands.Delete(queue, rng.random() < 0.5)


def note_deliveries(answer: dict[str, Any], delivered: list[tuple[int, str]]) -> None:
    for message in answer.get("messages", ()):
        delivered.append((int(message["msg_id"]), message["receipt"]))


def ids_in(driver: Driver, queue: str, state: State) -> list[int]:
    """What the real machine holds in a state, as `TwinQueues.ids` gives it."""
    held = driver.machine.store.queues.get(queue)
    if held is None:
        return []
    if state is State.READY:
        ids = (message_id for lane in held.lanes for message_id in lane.ids())
        return [message_id for message_id in ids if message_id in driver.machine.store.messages]
    return sorted({State.IN_FLIGHT: held.in_flight, State.DELAYED: held.delayed, State.DEAD: held.dead}[state])


@pytest.mark.parametrize("seed", range(24))
def test_the_machine_does_what_the_twin_does(seed: int) -> None:
    """Every answer and every queue's content equal, through time jumps and restores from snapshots."""
    rng = random.Random(seed)
    real, twin = Driver(), TwinQueues()
    delivered: list[tuple[int, str]] = []

    for step in range(700):
        if rng.random() < 0.3:
            real.wait(rng.choice((1, 200, 1024, 3000)))
            twin.advance(real.time_ms)
        command = random_command(rng, delivered, twin.next_id)
        answer = real(command)
        note_deliveries(answer, delivered)
        answer.pop("after_id", None)
        assert answer == twin.apply(real.time_ms, command), (seed, step, command)
        if step % 10 == 0:
            before, used, real = real.state(), real.machine.used(), real.restored()
            assert (real.state(), real.machine.used()) == (before, used)
            assert set(real.machine.store.queues) == set(twin.settings)
            for queue in QUEUES:
                for state in State:
                    assert twin.ids(queue, state.name.lower()) == ids_in(real, queue, state)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_or_delivered_twice_at_the_same_time(seed: int) -> None:
    """The promise of the service, told by the answers alone: what was put in comes out until it is acknowledged;
    two consumers never hold one message; what was acknowledged never comes back."""
    rng = random.Random(seed)
    driver = Driver()
    driver(commands.Configure("q", max_deliveries=0))
    waiting: set[str] = set()
    done: set[str] = set()
    held_until: dict[str, int] = {}

    for _ in range(1500):
        driver.wait(rng.choice((0, 0, 50, 400)))
        held_until = {msg_id: end for msg_id, end in held_until.items() if end > driver.time_ms}
        kind = rng.random()
        if kind < 0.4:
            waiting.add(driver(commands.Enqueue("q", b"1", rng.randint(0, 9), rng.choice((0, 300))))["msg_id"])
        elif kind < 0.8:
            for message in driver(commands.Dequeue("q", 2, 1000))["messages"]:
                assert message["msg_id"] not in held_until
                assert message["msg_id"] not in done
                held_until[message["msg_id"]] = driver.time_ms + 1000
        elif held_until:
            msg_id = rng.choice(sorted(held_until))
            del held_until[msg_id]
            if rng.random() < 0.7:
                assert driver(commands.Ack(int(msg_id)))["ok"]
                done.add(msg_id)
            else:
                assert driver(commands.Nack(int(msg_id)))["ok"]

    driver.wait(10_000)
    left: set[str] = set()
    while messages := driver(commands.Dequeue("q", 100, 3_600_000))["messages"]:
        left |= {message["msg_id"] for message in messages}
    assert waiting - done == left


def history_digest(seed: int) -> str:
    """A hash of every answer, event and record of one random life."""
    rng = random.Random(seed)
    driver = Driver()
    delivered: list[tuple[int, str]] = []
    digest = hashlib.sha256()
    for _ in range(1500):
        if rng.random() < 0.3:
            driver.wait(rng.choice((1, 500, 5000)))
        answer = driver(random_command(rng, delivered, driver.machine.store.next_id))
        note_deliveries(answer, delivered)
        digest.update(repr(answer).encode())
    digest.update(repr(driver.events).encode())
    digest.update(repr(driver.state()).encode())
    return digest.hexdigest()


def test_a_life_is_the_same_under_another_hash_seed() -> None:
    """Replicas are processes with hash seeds of their own: no answer may depend on the order of a set."""
    program = f"from {__name__} import history_digest; print(history_digest(7))"

    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for hash_seed in ("0", "1", "4242")
    }  # fmt: skip

    assert digests == {history_digest(7)}
