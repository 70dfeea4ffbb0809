"""Streams of snapshot data: what the driver does below an InstallSnapshot. A stream takes time and may break off. The
leader's core hears of its end, delivered or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.core.messages import InstallSnapshot

if TYPE_CHECKING:
    from tests.sim.world import World


class Transfers:
    """Every snapshot on its way."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, message: InstallSnapshot) -> None:
        """The sender streams the data that it holds now; what it holds later is another snapshot."""
        world = self._world
        sender = world.nodes[message.sender]
        held = sender.disk.snapshots.get(message.snapshot.index)
        delay_us = int(world.network.delay_max_us * (1 + 4 * world.random.random()))
        broken = held is None or world.network.is_cut(message.sender, message.to)
        broken = broken or world.random.random() * 1000 < 3 * world.network.loss_permille
        if broken:
            world.cover["snapshot stream broke"] += 1
            world.after(delay_us, self._report, message, sender.life, False)
            return
        if world.random.random() * 1000 < world.network.duplicate_permille:
            world.cover["fault: message doubled"] += 1
            world.after(delay_us * 3, self._arrive, message, held, -1)
        world.after(delay_us, self._arrive, message, held, sender.life)

    def _arrive(self, message: InstallSnapshot, data: tuple[bytes, ...], sender_life: int) -> None:
        world = self._world
        receiver = world.nodes.get(message.to)
        reached = (
            receiver is not None
            and receiver.core is not None
            and not receiver.frozen
            and not world.network.is_cut(message.sender, message.to)
        )
        if reached:
            receiver.incoming_snapshots[message.snapshot.index] = data
            world.deliver(message)
        if sender_life >= 0:
            world.after(world.network.delay_min_us, self._report, message, sender_life, reached)

    def _report(self, message: InstallSnapshot, sender_life: int, delivered: bool) -> None:
        sender = self._world.nodes[message.sender]
        if sender.life == sender_life:
            sender.on_snapshot_sent(message.to, delivered)
