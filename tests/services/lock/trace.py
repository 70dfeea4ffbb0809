"""Prints a digest of a long random run: answers, events and the snapshot. `python -m tests.services.lock.trace`."""

import hashlib
import random

from raft.state_machine import ApplyContext
from services.lock.replicated.commands import Acquire, CancelWait, DropWaiters, ForceRelease, Release, Renew
from services.lock.replicated.machine import LockMachine


def random_command(choose: random.Random, number: int):
    key = f"key{choose.randrange(12)}"
    owner = f"owner{choose.randrange(8)}"
    node = f"node{choose.randrange(3)}"
    ttl_ms = choose.choice([None, 10, 500])
    wait_ms = choose.choice([0, 20, 1_000])
    waiter = f"waiter{number}" if wait_ms else ""
    pick = choose.randrange(100)
    if pick < 60:
        return Acquire(key, owner, choose.random() < 0.5, ttl_ms, wait_ms, waiter, node, "boot")
    if pick < 85:
        return Release(key, owner)
    if pick < 92:
        return Renew(key, owner, 300)
    if pick < 96:
        return CancelWait(key, owner, f"waiter{choose.randrange(number + 1)}")
    if pick < 99:
        return ForceRelease(key)
    return DropWaiters(node)


def digest(seed: int, steps: int = 3_000) -> str:
    choose = random.Random(seed)
    machine = LockMachine()
    hashed = hashlib.sha256()
    time_ms = 0
    for number in range(steps):
        time_ms += choose.choice([0, 0, 1, 7, 60])
        context = ApplyContext(number + 1, time_ms)
        answer = machine.apply(context, random_command(choose, number))
        hashed.update(repr((answer, context.events)).encode())
    hashed.update(repr([list(record) for record in machine.snapshot()]).encode())
    return hashed.hexdigest()


if __name__ == "__main__":
    print(digest(7))
