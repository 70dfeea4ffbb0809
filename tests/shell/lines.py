"""What must hold of the lines of the locks at any moment, whatever goes wrong; looked at every 20 ms.

    cycles    no owner waits for itself, by way of however many others: a search through all holders and places
    the dead  where a node has gone, the leader ends what waited there
    the told  a request that its node knows to be decided has been told
    time      under one leader, cluster time goes on as its clock does
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raft.node import RaftNode
from services.lock.node.absent import LOOK_S
from services.lock.node.waiting import LockWaits
from services.lock.replicated.machine import LockMachine
from services.world.node import Node

if TYPE_CHECKING:
    from tests.shell.run import Run

#: A leader may notice so much later that a node is silent: its last words were on their way, or the leader was busy.
NOTICE_US = 700_000
#: A decision may be known for so long before it is told: a machine is restored a moment before its node says so.
UNTOLD_US = 500_000
#: With fewer proposals under way at a time, those that end waits may find no place for long.
PROPOSALS_FEW = 10
#: Once all serve again, a node that was started anew has ended what waited at it before, after so long.
CLEARED_US = 3_500_000

#: How often cluster time is compared with the leader's clock.
TIME_LOOK_MS = 500

#: Name of a node, and one life of it.
Life = tuple[str, str]


@dataclass(slots=True)
class Gone:
    """A life of a node that has ended, while one leader leads."""

    since_us: int
    #: What waited there when the leader had to know, and from which index on that must have ended; 0: not yet.
    waiters: frozenset[str] = frozenset()
    marked_us: int = 0
    ended_by: int = 0


@dataclass(slots=True)
class Undecided:
    """A request that stood in line, and does so no more."""

    since_us: int
    rounds: int


@dataclass(slots=True)
class Lines:
    """Looks at all nodes of a run that has locks."""

    run: Run
    #: The leader and its term, since when they are looked at.
    _leading: tuple[str, str, int] = ("", "", 0)
    #: Its clock and cluster time when they were compared last, in milliseconds.
    _time_from: tuple[int, int] = (0, 0)
    _gone: dict[Life, Gone] = field(default_factory=dict)
    #: By node: what its lines were looked at last.
    _looked: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: Requests that were seen in line, by the future that their node waits for; and those that left it untold.
    _in_line: set[Any] = field(default_factory=set)
    _undecided: dict[Any, Undecided] = field(default_factory=dict)

    def look(self) -> None:
        for node in self.run.world.nodes.values():
            here = node.here
            replica = here.nodes.get("lock") if here is not None else None
            if here is None or replica is None:
                continue
            machine: LockMachine = replica.machine.inner
            state = (here.boot, replica.applier.applied_index)
            if machine.statistics().waiters and self._looked.get(node.name) != state:
                self._looked[node.name] = state
                self._check_cycles(node, machine)
            if LockWaits in here.parts:
                self._check_told(node, here.parts[LockWaits])
        self._look_at_the_dead()

    # Cycles

    def _check_cycles(self, node: Node, machine: LockMachine) -> None:
        cycle = cycle_in(waits_in(machine))
        if cycle:
            self.run.fail(f"{node.name}: owners wait for each other: {' '.join(cycle)}")

    # The told

    def _check_told(self, node: Node, waits: LockWaits) -> None:
        now_us, machine = self.run.world.loop.now_us, waits.machine
        for wait in waits._waits.values():
            command, outcome = wait.command, wait.outcome
            if outcome.done():
                continue
            if machine.is_waiting(command.key, command.owner, command.waiter):
                self._in_line.add(outcome)
            elif outcome in self._in_line and not node.is_frozen:
                since = self._undecided.setdefault(outcome, Undecided(now_us, 0))
                since.rounds += 1
                if now_us - since.since_us > UNTOLD_US and since.rounds > 10:
                    self.run.fail(f"{node.name}: {command.owner} waits for {command.key}, and is in line no more")

    # The dead

    def _look_at_the_dead(self) -> None:
        run, world = self.run, self.run.world
        leader = world.leader("lock")
        if leader is None or leader.here is None:
            self._leading = ("", "", 0)
            return
        replica = leader.here.nodes["lock"]
        leading = (leader.name, leader.here.boot, replica.core.state.term)
        self._check_time(leader, replica, is_same=leading == self._leading)
        if leading != self._leading or leader.is_frozen or replica.is_disk_full:
            self._leading = leading
            self._gone.clear()
        few = int(run.plan.settings["MUFAKAT_PROPOSALS_MAX"]) < PROPOSALS_FEW
        for life in () if few else tuple(replica.machine.inner.lives):
            self._check_gone(life, replica)
        for life in set(self._gone) - set(replica.machine.inner.lives):
            del self._gone[life]

    def _check_time(self, leader: Node, replica: RaftNode, *, is_same: bool) -> None:
        assert leader.process is not None
        now_ms = leader.process.now_ms()
        time_ms = replica.core.cluster_time_ms(now_ms)
        if not is_same:
            self._time_from = (now_ms, time_ms)
            return
        passed_ms = now_ms - self._time_from[0]
        if passed_ms < TIME_LOOK_MS:
            return
        if time_ms - self._time_from[1] < passed_ms:
            went_ms = time_ms - self._time_from[1]
            self.run.fail(f"{leader.name} leads, and cluster time went on by {went_ms} ms in {passed_ms} ms")
        self._time_from = (now_ms, time_ms)

    def _check_gone(self, life: Life, replica: RaftNode) -> None:
        node, now_us = self.run.world.nodes[life[0]], self.run.world.loop.now_us
        is_silent = node.name == self.run.nemesis.silent and node.name != replica.id
        if not is_silent and node.here is not None and node.here.boot == life[1]:
            return
        healed_us = self.run.healed_us
        if healed_us is not None and now_us > healed_us + CLEARED_US:
            self.run.fail(f"requests wait at {life[0]} in a life of it that has ended")
        if node.process is not None and not is_silent:
            # It ends them itself, once it is heard.
            self._gone.pop(life, None)
            return
        gone = self._gone.setdefault(life, Gone(now_us))
        gone_us = int(self.run.plan.settings["MUFAKAT_WAITER_GONE_MS"]) * 1000
        look_us = round(LOOK_S * 1_000_000)
        waiters = replica.machine.inner._tables.waiters
        here = frozenset(
            place.id for place in waiters.values() if any((one.node, one.boot) == life for one in place.listeners)
        )
        if not gone.marked_us:
            if now_us - gone.since_us > gone_us + look_us + NOTICE_US:
                gone.marked_us, gone.waiters = now_us, here
            return
        if not gone.ended_by:
            # By now the leader has looked again, and has said so in its log.
            if now_us - gone.marked_us > 2 * look_us:
                gone.ended_by = replica.core.log.last_index
        elif replica.applier.applied_index >= gone.ended_by and gone.waiters & here:
            self.run.fail(f"requests wait at {life[0]}, which has gone, and the leader does not end them")


def waits_in(machine: LockMachine) -> dict[str, set[str]]:
    """For which owners each owner waits: a holder, or one before it in line, that it conflicts with."""
    tables, waits = machine._tables, {}
    for lock in tables.locks.values():
        before: list[tuple[str, bool]] = [
            (hold.owner, hold.exclusive) for hold in lock.holds() if not hold.has_ended(tables.time_ms)
        ]
        for waiter in (lock.queue or {}).values():
            place = waiter.at(tables.time_ms)
            if place is None:
                continue
            behind = {owner for owner, exclusive in before if exclusive or place.exclusive}
            waits.setdefault(place.owner, set()).update(behind)
            before.append((place.owner, place.exclusive))
    return waits


def cycle_in(waits: dict[str, set[str]]) -> list[str]:
    """Owners along a cycle; empty where there is none."""
    for owner in waits:
        path = next(_paths(waits, owner), None)
        if path is not None:
            return path
    return []


def _paths(waits: dict[str, set[str]], owner: str) -> Iterator[list[str]]:
    """Ways from an owner back to itself."""
    pending, seen = [[owner]], set()
    while pending:
        path = pending.pop()
        for after in sorted(waits.get(path[-1], ())):
            if after == owner:
                yield path
            elif after not in seen:
                seen.add(after)
                pending.append([*path, after])
