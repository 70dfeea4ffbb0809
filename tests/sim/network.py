"""The network between nodes: every link delays, loses, doubles, reorders or is cut, each direction by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core.messages import AppendEntries, AppendEntriesReply, InstallSnapshot, Message

if TYPE_CHECKING:
    from tests.sim.world import World


class SimNetwork:
    """Delivers what nodes send, or does not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        plan = world.plan
        self.delay_min_us = plan.delay_min_us
        self.delay_max_us = plan.delay_max_us
        self.loss_permille = plan.loss_permille
        self.duplicate_permille = plan.duplicate_permille
        self.slow_permille = plan.slow_permille
        self.reorder = plan.reorder
        #: Directed links that carry nothing.
        self.cuts: set[tuple[str, str]] = set()
        self._latest_us: dict[tuple[str, str], int] = {}

    def heal(self) -> None:
        """A good network from now on."""
        self.cuts.clear()
        self.loss_permille = self.duplicate_permille = self.slow_permille = 0
        self.reorder = False
        self.delay_max_us = min(self.delay_max_us, 5_000)
        self.delay_min_us = min(self.delay_min_us, 500)

    def is_cut(self, sender: str, to: str) -> bool:
        return (sender, to) in self.cuts

    def send(self, message: Message) -> None:
        """Put a message on its link."""
        world, link = self._world, (message.sender, message.to)
        random = self._random
        world.cover["message sent"] += 1
        if isinstance(message, InstallSnapshot):
            world.transfers.start(message)
            return
        if link in self.cuts:
            world.cover["fault: message cut off"] += 1
            return
        if self.loss_permille and random.random() * 1000 < self.loss_permille:
            world.cover["fault: message lost"] += 1
            if isinstance(message, AppendEntries) and message.entries:
                world.cover["entries lost on the way"] += 1
            return
        self._deliver_after(message, link)
        if self.duplicate_permille and random.random() * 1000 < self.duplicate_permille:
            world.cover["fault: message doubled"] += 1
            self._deliver_after(message, link, late=isinstance(message, AppendEntriesReply))

    def _deliver_after(self, message: Message, link: tuple[str, str], *, late: bool = False) -> None:
        world, random = self._world, self._random
        delay_us = int(self.delay_min_us + random.random() * (self.delay_max_us - self.delay_min_us))
        if late or (self.slow_permille and random.random() * 1000 < self.slow_permille):
            delay_us += int(random.random() * world.plan.slow_max_us)
            world.cover["fault: message delayed"] += 1
        at_us = world.now_us + delay_us
        latest_us = self._latest_us.get(link, 0)
        if at_us < latest_us:
            if self.reorder:
                world.cover["fault: messages reordered"] += 1
            else:
                at_us = latest_us
        else:
            self._latest_us[link] = at_us
        world.at(at_us, world.deliver, message)
