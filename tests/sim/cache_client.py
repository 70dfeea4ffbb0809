"""One request of a client of the lease simulation. It takes the same way as `services.cache.operations`: a hit from
memory, else a ReadIndex for an absent key, else a command; the grant comes a little later than the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from raft.errors import OutcomeUnknown
from services.cache.replicated.commands import Delete, Fill, Invalidate, Put
from tests.sim.cache_node import Node
from tests.sim.check import Operation

if TYPE_CHECKING:
    from tests.sim.cache_cluster import World

#: What every line carries, so that its invalidation removes all.
TAG = "t"
#: The process that serves it may end without a word.
GIVE_UP_MS = 2_500


class Request:
    """`read`, `write` or `delete` of one key at one node, or `invalidate`, which is a removal of each."""

    def __init__(
        self, world: World, process: str, node: Node, op: str, key: str, then: Callable[[bool | None], None]
    ) -> None:
        self.world = world
        self.process = process
        self.node = node
        self.op = op
        self.key = key
        self.keys = world.keys if op == "invalidate" else (key,)
        self.called_ms = world.time_ms
        self.value = world.next_value() if op == "write" else None
        self.ttl_ms = world.ttl_ms() if op == "write" else None
        self._then = then
        self._life = node.life

    def begin(self) -> None:
        self.world.under_way[self] = None
        if self.op == "write":
            self._propose(Put(self.key, b"%d" % self.value, self.node.id, self.ttl_ms, tags=(TAG,)))
        elif self.op == "delete":
            self._propose(Delete(self.key))
        elif self.op == "invalidate":
            self._propose(Invalidate(TAG))
        else:
            held = self.node.coherence.may_serve(self.key)
            if held is not None:
                self.world.counts["local hits"] += 1
                self._end(True, int(held.value), held.version)
                return
            if self.node.coherence.machine.has(self.key):
                self._propose(Fill(self.key, self.node.id))
            else:
                self.node.read_index(lambda result, error: self._soon(self._on_read_index, error))
        self.world.at(GIVE_UP_MS, lambda: self._end(None))

    def operations(
        self, ok: bool | None, result: Any = None, returned_ms: float | None = None
    ) -> Iterator[Operation]:
        """For the history: a removal is a write of nothing, and an expiry one that may come at any time."""
        op = "read" if self.op == "read" else "write"
        for key in self.keys:
            yield Operation(self.process, op, key, self.value, self.called_ms, returned_ms, ok, result)
            if self.ttl_ms is not None and ok is not False:
                yield Operation(f"{self.process} expiry", "write", key, None, self.called_ms, None, None)

    def give_up(self) -> None:
        """The seed ends before the outcome."""
        self._end(None)

    def _propose(self, command: Any) -> None:
        self.node.propose(command, lambda answer, error: self._soon(self._on_answer, error, answer))

    def _soon(self, work: Callable, *what: Any) -> None:
        """The coroutine that waits goes on a little later, in a process that runs."""

        def go_on() -> None:
            if self.node.life != self._life or not self.node.alive:
                self._end(None)
            elif not self.node.runs:
                self.world.at(5, go_on)
            else:
                work(*what)

        self.world.at(self.world.random.uniform(0, 2), go_on)

    def _on_read_index(self, error: Exception | None) -> None:
        if self not in self.world.under_way:
            return
        if error is not None:
            self._end(False)
        elif self.node.coherence.is_surely_absent(self.key):
            self.world.counts["absent by ReadIndex"] += 1
            self._end(True, None, self.node.removed.get(self.key, 0))
        else:
            self._propose(Fill(self.key, self.node.id))

    def _on_answer(self, error: Exception | None, answer: Any) -> None:
        if error is not None:
            self._end(None if isinstance(error, OutcomeUnknown) else False)
        elif "version" in answer:
            self.node.coherence.grant(self.key, answer["version"])
            self._end(True, int(answer["val"]) if self.op == "read" else None, answer["version"])
        elif self.op == "invalidate":
            self.world.counts["invalidations"] += 1
            self._end(True, None, self.node.invalidated)
        else:
            self._end(True, None, max(self.node.invalidated, self.node.removed.get(self.key, 0)))

    def _end(self, ok: bool | None, result: Any = None, version: int = 0) -> None:
        """`version`: of the value, or of the removal, that the outcome shows."""
        if self not in self.world.under_way:
            return
        del self.world.under_way[self]
        if self.op != "read" or ok:
            returned_ms = None if ok is None else self.world.time_ms
            self.world.operations.extend(self.operations(ok, result, returned_ms))
        if ok:
            for key in self.keys:
                self.world.show(key, version)
        self._then(ok)
