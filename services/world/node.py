"""A node and the computer that it runs on: power, a disk, a clock, a place on the network, the node's process.

    off ──power_on──> idle ──start──> runs ──stop, kill, exit──> idle
     ^────────────────power_off──────────┘

What runs is `services.app.serve`, as the command runs it. A process that is killed leaves what it wrote readable; a
computer that loses power leaves what was synced, and of the rest what chance leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

from common.config import Settings
from common.disk_space import DiskSpace
from services.app import serve
from services.node.host import Host
from services.node.outside import Outside
from services.world.clock import ComputerClock
from services.world.disk import Disk
from services.world.loop import Process, State, WorldLoop
from services.world.network import DESCRIPTORS_MAX, Network
from services.world.threads import SimulatedThreads

#: Wall clock at the beginning of the world: 2026-01-01, in microseconds.
WALL_BEGINNING_US = 1_767_225_600_000_000


class Node:
    """See the module."""

    def __init__(
        self, seed: int, name: str, address: str, *, loop: WorldLoop, network: Network, threads: SimulatedThreads,
        settings: Callable[[], Settings], count: Callable[[str], None],
        on_exit: Callable[[Node, Process, BaseException | None], None],
    ) -> None:  # fmt: skip
        """
        Args:
            count: told of each fault that took effect.
            on_exit: told that the node ended by itself, or because it was told to.
        """
        self.name = name
        self._seed = seed
        self._loop = loop
        self._network = network
        self._threads = threads
        self._on_exit = on_exit
        self.random = Random(f"{seed} {name}")
        self.host = network.new_host(name, address)
        self.clock = ComputerClock(offset_us=self.random.randint(0, 10_000_000))
        self.disk = Disk(self.random, threads.pause, count=count)
        #: What the node is started with.
        self.settings = settings
        #: The part of it that is this node's alone, by variable; from the next start on.
        self.variables: dict[str, str] = {}
        #: Of the node that runs; None where none does.
        self.process: Process | None = None
        #: What its operations see, once it is made.
        self.here: Host | None = None
        #: It lets clients in, or did so before it ended.
        self.serves = False
        #: How often a node was started here, and when one ended in any other way than in good order.
        self.lives = 0
        self.deaths_us: list[int] = []
        self._stop: asyncio.Event | None = None
        self._suspended_us: int | None = None
        #: Descriptors that there were when the node was started: it reckons with so many for all its life.
        self._descriptors = 0
        #: How fast its clocks run while it does not sleep.
        self._rate_permille = 1000
        #: To be started once it does not sleep any more.
        self._is_to_start = False

    @property
    def runs(self) -> bool:
        """A process is there, be it frozen."""
        return self.process is not None

    @property
    def is_frozen(self) -> bool:
        return self.process is not None and self.process.state is State.FROZEN

    def start(self) -> None:
        """Start a node, where there is power and none runs; once the computer is awake. One that is still stopping
        runs: wait until it does not.

        Raises:
            SettingsError: it cannot be started with its `variables`.
        """
        if self.process is not None or not self.host.is_up:
            return
        if self._suspended_us is not None:
            self._is_to_start = True
            return
        # What is wrong with them is raised before anything of a node is there.
        settings = self.settings()
        self.lives += 1
        self._descriptors = self.host.descriptors_max
        self.here = None
        self.serves = False
        loop = self._loop
        process = self.process = loop.new_process(self.name, self.clock)
        self._network.place(process, self.host)
        self.disk.process_died()
        self._stop = stop = asyncio.Event()
        outside = Outside(
            clock_ms=process.now_ms,
            wall_us=lambda: WALL_BEGINNING_US + self.clock.boottime_us(loop.now_us),
            random=Random(f"{self._seed} {self.name} {self.lives}"),
            files=self.disk.files,
            threads=self._threads.of(process),
            open_files_max=lambda: self.host.descriptors_max,
            is_hung_up=lambda connection: connection.has_hung_up(),
            look_at_disk=self._look_at_disk,
        )
        work = serve(settings, outside, stop, on_made=self._on_made, on_serving=self._on_serving)
        serving = process.start(work, "serve")
        serving.add_done_callback(lambda task: self._on_end(process, task))

    def stop(self) -> None:
        """SIGTERM: the node hands over what it has and ends, some time later."""
        if self.process is not None and self._stop is not None:
            self.process.when_running(partial(self.process.call_soon, self._stop.set))

    def kill(self) -> None:
        """SIGKILL."""
        process, self.process = self.process, None
        self.here = None
        if process is not None:
            self.deaths_us.append(self._loop.now_us)
            process.kill()
            self.disk.process_died()

    def freeze(self) -> None:
        """SIGSTOP, or a virtual machine that is not scheduled."""
        if self.process is not None:
            self.process.freeze()

    def thaw(self) -> None:
        """Also what was frozen before goes on only once the computer is awake."""
        if self.process is not None and self._suspended_us is None:
            self.process.thaw()

    def power_off(self) -> None:
        if not self.host.is_up:
            return
        # First the network: what dies with its power says nothing.
        self.host.power_off()
        self.kill()
        self.disk.power_lost()

    def power_on(self) -> None:
        self.host.power_on()

    def lose_disk(self) -> None:
        """The computer loses power and its disk, and comes back with an empty one."""
        self.power_off()
        self.disk.wipe()
        self.power_on()

    def suspend(self) -> None:
        """The computer sleeps until `resume`: its monotonic clock stands still, and the other counts. Nothing runs
        on it meanwhile, whatever else happens to it."""
        if self._suspended_us is None:
            self._suspended_us = self._loop.now_us
            self.freeze()
            self._set_clock(0)

    def resume(self) -> None:
        if self._suspended_us is None:
            return
        self.clock.suspend(self._loop.now_us - self._suspended_us)
        self._suspended_us = None
        self._set_clock(self._rate_permille)
        self.thaw()
        if self._is_to_start:
            self._is_to_start = False
            self.start()

    def heal(self) -> None:
        """Power, disk, clock and limits are as they should be, and a node runs."""
        self.host.descriptors_max = DESCRIPTORS_MAX
        if self._descriptors < DESCRIPTORS_MAX:
            # Whoever raises the limit starts it anew.
            self.kill()
        self.power_on()
        self.disk.heal()
        self.resume()
        self.clock_runs_at(1000)
        self.thaw()
        self.start()

    def clock_runs_at(self, rate_permille: int) -> None:
        """1000 is right; 0 stands still."""
        self._rate_permille = rate_permille
        if self._suspended_us is None:
            self._set_clock(rate_permille)

    def clock_jumps(self, seconds: float) -> None:
        """Forward."""
        self.clock.jump(self._loop.now_us, round(seconds * 1_000_000))
        self._clock_changed()

    def _set_clock(self, rate_permille: int) -> None:
        self.clock.set_rate(self._loop.now_us, rate_permille)
        self._clock_changed()

    def _clock_changed(self) -> None:
        if self.process is not None:
            self.process.clock_changed()

    def _look_at_disk(self, directories: Sequence[Path]) -> DiskSpace:
        for directory in directories:
            self.disk.files.names(directory)
        return self.disk.space()

    def _on_made(self, here: Host) -> None:
        self.here = here

    def _on_serving(self) -> None:
        self.serves = True

    def _on_end(self, process: Process, serving: asyncio.Task[BaseException | None]) -> None:
        """The node ended by itself: its process ends once the callbacks of this moment have run."""
        failure = serving.exception() or serving.result()
        process.loop.after(1_000, self._end, process, failure)

    def _end(self, process: Process, failure: BaseException | None) -> None:
        if self.process is not process:
            return
        self._on_exit(self, process, failure)
        self.kill()
        if failure is None:
            self.deaths_us.pop()
