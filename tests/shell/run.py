"""One seed, from the first start to the last stop.

    start     all nodes come up and serve
    faults    clients work while the nemesis does
    healed    everything is mended: the groups must serve, the clients come to an end, what was left behind must go
    equal     all nodes apply the same and hold the same
    stopped   all nodes are told to stop, and end clean

What clients were told is judged in the end.
"""

from __future__ import annotations

import errno
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from raft.storage import DiskFull, StorageError
from services.lock.node.waiting import LockWaits
from services.world.loop import Process
from services.world.node import Node
from services.world.world import World, WorldFailed, logs_told_to
from tests.shell.cache_judge import check_caches
from tests.shell.cache_record import Record as CacheRecord
from tests.shell.cache_trials import TRIALS as CACHE_TRIALS
from tests.shell.caches import CacheClient, CacheProbe
from tests.shell.client import Client
from tests.shell.last_waits import BEGUN_S, begin_waits, check_waits
from tests.shell.lines import Lines
from tests.shell.locks import LockClient, LockProbe, LockRecord, check_locks, locks_are_free
from tests.shell.nemesis import Nemesis
from tests.shell.operator import Operator
from tests.shell.plan import Plan, draw_plan
from tests.shell.queue_record import Record as QueueRecord
from tests.shell.queue_trials import trials_of
from tests.shell.queues import QueueClient, check_queues, queues_are_empty
from tests.shell.turns import Turns
from tests.shell.watchers import watch_bounds

START_S = 20.0
#: Once all is mended, for the groups to serve again; for the clients to end; for what they left behind to go; for
#: nodes to hold the same, and to have nothing under way.
SERVE_S, CLIENTS_S, CLEAR_S, EQUAL_S, QUIET_S, STOP_S = 4.0, 60.0, 60.0, 20.0, 5.0, 20.0
#: For locks whose ttl still runs: more than the longest of them.
LOCKS_CLEAR_S = 8.0
#: For the change of members that is under way to end.
MEMBERS_S = 20.0
CLIENTS: dict[str, type[Client]] = {"lock": LockClient, "queue": QueueClient, "cache": CacheClient}
#: With these a node may end by itself: its disk failed, or it was left without descriptors.
END_ERRNOS = (errno.EIO, errno.EBADF, errno.EMFILE)
#: Lines of a failure's story.
STORY_LINES = 20


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What does not happen in a seed although its plan has it: for shrinking."""

    #: Numbers of faults and of clients.
    faults: frozenset[int] = frozenset()
    clients: frozenset[int] = frozenset()


@dataclass(slots=True)
class Outcome:
    """What a seed came to."""

    seed: int
    failure: str = ""
    detail: str = ""
    story: list[str] = field(default_factory=list)
    phase: str = ""
    events: int = 0
    #: Of the world's time.
    seconds: float = 0.0
    #: Equal for equal runs.
    digest: int = 0
    #: Faults that there were.
    faults: int = 0
    cover: Counter[str] = field(default_factory=Counter)


class Run:
    """See the module."""

    def __init__(self, plan: Plan, left_out: LeftOut) -> None:
        self.plan = plan
        self.left_out = left_out
        self.world = World(
            plan.seed, nodes=plan.node_count, groups=plan.groups, settings=plan.settings
        )
        for node, lease_ms in zip(self.world.nodes.values(), plan.leases_ms, strict=False):
            node.variables["MUFAKAT_CACHE_LEASE_MS"] = str(lease_ms)
        self.phase = "start"
        #: When all was mended and the groups served again; None before.
        self.healed_us: int | None = None
        #: Clients come to an end.
        self.is_over = False
        self.locks = LockRecord()
        self.queues = QueueRecord()
        self.caches = CacheRecord()
        self.failed: str = ""
        self.detail: str = ""
        self.world.on_exit = self._on_exit
        self.world.on_log = self._on_log
        self.turns = Turns(self)
        self.lines = Lines(self)
        self.world.loop.after_round = self.turns.after_round
        self.operator = Operator(self)
        self.nemesis = Nemesis(self, plan)
        self._stopping = False
        self.clients: list[Client] = []

    def fail(self, text: str, error: BaseException | None = None) -> None:
        """The first is the one that counts."""
        if not self.failed:
            self.failed = text
            self.world.tell(f"FAILED: {text[:300]}")
            if error is not None:
                self.detail = "".join(traceback.format_exception(error))

    def client_failed(self, client: Client, error: BaseException | None) -> None:
        self.fail(f"client {client.name}: {error!r}", error)

    def on_slow(self, client: Client, node: str, path: str, asked_us: int) -> None:
        """A patient client had no answer in time."""
        self.world.count("a patient client had no answer")
        if not self.nemesis.was_met(node, asked_us):
            self.fail(f"{client.name} had no answer to {path}, asked of {node} at {asked_us}, which nothing hindered")

    def _on_exit(self, node: Node, process: Process, failure: BaseException | None) -> None:
        if failure is not None:
            self.world.tell(f"{node.name} ended by itself: {failure!r}")
            if not may_end(node, failure):
                self.fail(f"{node.name} ended: {failure!r}", failure)
            self.world.count("node ended by itself")
        else:
            self.world.tell(f"{node.name} has stopped")
            self.nemesis.check_stop(node)
            self._check_left_over(node, process)
        if not self._stopping:
            self.nemesis.on_exit(node)

    def _on_log(self, process: str, level: str, event: str, fields: Mapping[str, Any]) -> None:
        World.on_log(self.world, process, level, event, fields)
        error = fields.get("exc_info")
        if isinstance(error, BaseException):
            self.fail(f"{process} logs: {event}: {error!r}", error)

    def _check_left_over(self, node: Node, process: Process) -> None:
        """A node that ended in good order has no task and no socket left."""
        tasks = sorted(task.get_name() for task in process.tasks)
        if tasks:
            self.fail(f"{node.name} stopped, and these tasks were left: {', '.join(tasks)}")
        if node.host.listening:
            self.fail(f"{node.name} stopped, and listens still")

    # Phases

    def run(self) -> None:
        world, plan = self.world, self.plan
        self.set_links()
        world.start()
        self._until(self.world.all_serve, START_S, "all nodes serve")
        self.phase = "faults"
        for number in range(plan.client_count):
            if number in self.left_out.clients:
                continue
            group = plan.groups[number % len(plan.groups)]
            client = CLIENTS[group](self, f"{group}{number}")
            self.clients.append(client)
            client.start()
        self.set_links()
        self.nemesis.begin()
        self._sleep(plan.duration_s)
        self.phase = "healed"
        self.nemesis.stop()
        self._heal()
        if plan.silence_s:
            self.nemesis.cut_for_good()
            self._sleep(plan.silence_s)
            self.nemesis.silent = ""
            self._heal()
        if plan.ending:
            self._sleep(self.nemesis.end(plan.ending))
            self.nemesis.silent = ""
            self._heal()
        self.healed_us = world.loop.now_us
        self._sleep(1.0)
        self.is_over = True
        self._until(lambda: all(client.is_done for client in self.clients), CLIENTS_S, "all clients end")
        self._clear()
        self.phase = "equal"
        self._until(self._all_equal, EQUAL_S, "all nodes hold the same")
        self._until(self._all_quiet, QUIET_S, "nothing is under way at any node")
        self.phase = "stopped"
        waits = begin_waits(self)
        self._sleep(BEGUN_S)
        self._stopping = True
        self.nemesis.stop_all()
        self._until(lambda: not any(each.runs for each in world.nodes.values()), STOP_S, "all nodes stop")
        check_waits(self, waits)
        self.phase = "judged"
        check_locks(self)
        check_queues(self)
        check_caches(self)

    def set_links(self) -> None:
        """As planned, between all who are there by now."""
        for link in self.world.network.links():
            link.delay_us, link.split_permille = self.plan.delay_us, self.plan.split_permille

    def _heal(self) -> None:
        self.nemesis.check_stops()
        self.world.tell("all is mended")
        self.world.heal()
        self._until(lambda: not self.operator.is_busy, MEMBERS_S, "all nodes are members")
        self._until(self.world.all_serve, SERVE_S, "all nodes serve again")

    def _clear(self) -> None:
        """What nobody holds any more goes by itself."""
        self.phase = "clear"
        probe = Client(self, "probe")
        if "lock" in self.plan.groups:
            self._until_told(probe, lambda: locks_are_free(self, probe), "all locks are free", LOCKS_CLEAR_S)
            locks = LockProbe(self)
            self._until_told(locks, locks.all_take_locks, "every node takes locks", LOCKS_CLEAR_S)
        if "queue" in self.plan.groups:
            drain = QueueClient(self, "drain")
            self._until_told(drain, lambda: queues_are_empty(drain), "all queues are empty")
            for trial in trials_of(drain):
                self._until_told(drain, partial(trial, self, drain), trial.__name__)
        if "cache" in self.plan.groups:
            caches = CacheProbe(self)
            for try_out in CACHE_TRIALS:
                self._until_told(caches, partial(try_out, self, caches), try_out.__name__)
                self._until(self.world.all_serve, SERVE_S, "all nodes serve again")
            self._until_told(caches, caches.is_clear, "all nodes answer of the cache, and watchers know of all")

    def _until_told(
        self, probe: Client, ask: Callable[[], Coroutine[Any, Any, bool]], what: str, within_s: float = CLEAR_S
    ) -> None:
        for _ in range(round(within_s)):
            asking = probe.process.start(ask(), what)
            self._until(asking.done, CLEAR_S, what)
            if asking.result():
                return
            self._sleep(1.0)
        self.fail(f"not within {within_s} s: {what}")

    def _sleep(self, seconds: float) -> None:
        self._until(lambda: False, seconds, "")

    def _until(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        loop = self.world.loop
        until_us = loop.now_us + round(within_s * 1_000_000)
        while not holds():
            if self.failed:
                raise WorldFailed(self.failed)
            if loop.now_us >= until_us:
                if what:
                    self.fail(f"liveness: not within {within_s} s: {what} ({self._standing()})")
                    raise WorldFailed(self.failed)
                return
            loop.run_for(20_000)
            if "lock" in self.plan.groups:
                self.lines.look()

    def _standing(self) -> str:
        shown = []
        for node in self.world.nodes.values():
            if node.here is None:
                shown.append(f"{node.name} down")
                continue
            for group, replica in node.here.nodes.items():
                shown.append(
                    f"{node.name} {group} {replica.core.state.role.name.lower()} term {replica.core.state.term} "
                    f"applied {replica.applier.applied_index} of {replica.core.log.last_index} {replica.hindrance}"
                )
        return "; ".join(shown)

    def _all_equal(self) -> bool:
        for group in self.plan.groups:
            replicas = [node.here.nodes[group] for node in self.world.nodes.values() if node.here]
            if len({replica.applier.applied_index for replica in replicas}) != 1:
                return False
            if replicas[0].applier.applied_index != replicas[0].core.log.last_index:
                return False
            states = {b"".join(replica.machine.snapshot()) for replica in replicas}
            if len(states) != 1:
                self.fail(f"{group}: nodes that applied {replicas[0].applier.applied_index} hold different states")
        return True

    def _all_quiet(self) -> bool:
        """No client asks for anything any more, so no node has anything of a client's under way."""
        for node in self.world.nodes.values():
            here = node.here
            for replica in here.nodes.values() if here else ():
                if len(replica.proposals) or replica.proposals.memory_bytes or len(replica.reads):
                    return False
            if here and LockWaits in here.parts:
                waits = here.parts[LockWaits]
                if waits.withdrawing or waits._waits:
                    return False
        return True


def may_end(node: Node, failure: BaseException) -> bool:
    """Whether a node may end with this error by itself. A disk without room keeps one from starting, and no other."""
    if isinstance(failure, DiskFull):
        return not node.serves
    return isinstance(failure, StorageError) or getattr(failure, "errno", None) in END_ERRNOS


def run_seed(seed: int, left_out: LeftOut = LeftOut(), group: str = "") -> Outcome:
    """Run one seed; never raises for what the run finds."""
    outcome = Outcome(seed)
    run = Run(draw_plan(seed, group), left_out)
    world = run.world
    try:
        with logs_told_to(world), watch_bounds(run.plan):
            run.run()
    except WorldFailed as error:
        outcome.failure = str(error)
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {error}"
        outcome.detail = traceback.format_exc()
    outcome.failure = run.failed or outcome.failure
    outcome.detail = run.detail or outcome.detail
    outcome.phase, outcome.events, outcome.cover = run.phase, world.loop.events, world.cover
    outcome.seconds, outcome.faults = world.loop.now_us / 1_000_000, run.nemesis.count
    # Lines of the log are left out: which of many like ones is written depends on real time.
    cover = sorted(each for each in world.cover.items() if not each[0].startswith("log: "))
    told = repr((run.locks.holds, run.queues, run.caches.deeds, run.caches.watches, cover))
    outcome.digest = zlib.crc32(told.encode(), world.loop.digest)
    if outcome.failure:
        outcome.story = [f"{at_us / 1_000_000:9.3f} {text[:200]}" for at_us, text in world.story][-STORY_LINES:]
    world.close()
    return outcome
