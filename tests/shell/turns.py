"""What must hold after every round of a node's callbacks: bounds in bytes and in work, and nobody died unheard."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from raft.core.types import Role
from raft.node import RaftNode
from raft.transport.limits import COMMAND_BYTES_MAX
from services.world.loop import Process
from services.world.node import Node

if TYPE_CHECKING:
    from tests.shell.run import Run

#: What one entry may cost: the dearest command of any machine.
ENTRY_WORK_MAX = 20_000
#: Tasks of one node beside one for each of its connections.
TASKS_MAX = 400


class Turns:
    """Looks at the nodes of a run, a round at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._world = run.world
        self._leading: dict[str, str] = {}
        self._unhandled = 0

    def after_round(self, process: Process) -> None:
        loop = self._world.loop
        if len(loop.unhandled) > self._unhandled:
            self._look_at_unhandled()
        node = self._world.nodes.get(process.name)
        if node is None or node.process is not process or node.here is None:
            return
        for group, replica in node.here.nodes.items():
            if replica.turn_work_max != self._run.plan.turn_work_max:
                # A node that is just being made.
                replica.turn_work_max = self._run.plan.turn_work_max
                continue
            if replica.turn_work:
                self._check(node, replica)
            if replica.core.state.role is Role.LEADER and self._leading.get(group) != process.name:
                self._leading[group] = process.name
                self._world.tell(f"{process.name} leads {group} in term {replica.core.state.term}")
                self._world.count("leader elected")

    def _check(self, node: Node, replica: RaftNode) -> None:
        where = f"{node.name}, {replica.group}"
        last = replica.applier.work
        if last > ENTRY_WORK_MAX or replica.turn_work - last >= replica.turn_work_max:
            self._run.fail(f"{where}: one turn did {replica.turn_work} pieces of work, {last} of them with one entry")
        if replica.proposals.memory_bytes > replica.config.proposals_bytes_max + COMMAND_BYTES_MAX:
            self._run.fail(f"{where}: proposals take {replica.proposals.memory_bytes} bytes")
        if len(replica.proposals) > replica.config.proposals_max:
            self._run.fail(f"{where}: {len(replica.proposals)} proposals wait")
        process = node.process
        assert process is not None
        if len(process.tasks) > TASKS_MAX + 3 * len(node.host.sockets):
            self._run.fail(f"{where}: {len(process.tasks)} tasks")

    def _look_at_unhandled(self) -> None:
        for name, context in self._world.loop.unhandled[self._unhandled :]:
            error = context.get("exception")
            if isinstance(error, OSError) and error.errno == errno.EMFILE:
                self._world.count("no descriptor to accept with")
                continue
            self._run.fail(f"{name}: nobody handled {context.get('message')}: {error!r}", error)
        self._unhandled = len(self._world.loop.unhandled)
