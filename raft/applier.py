"""Applies committed entries to the machine, in order, and tells this node's listeners what came of them.

The only place that calls `apply`. Cluster time reaches the machine with every entry, also with those that carry
no command, so that what fell due happens at the same place of the log on every node.
"""

from collections.abc import Callable
from typing import Any

from raft.core.types import Entry, EntryKind, Index, SnapshotMeta
from raft.state_machine import ApplyContext, StateMachine


class Applier:
    """The machine, how far it is, and who listens."""

    def __init__(self, machine: StateMachine, *, start: SnapshotMeta) -> None:
        self._machine = machine
        self._listeners: dict[str, list[Callable[[Any], None]]] = {}
        #: Index and cluster time of the last applied entry.
        self.applied_index: Index = start.index
        self.applied_time_ms = start.time_ms
        #: What the last entry cost: one, its events, and what its machine counted besides (`ApplyContext.spend`).
        self.work = 0

    def apply(self, entry: Entry) -> Any:
        """Apply one entry and return the machine's answer; None for entries without a command."""
        assert entry.index == self.applied_index + 1, "entries are applied in order, each once"
        context = ApplyContext(entry.index, entry.time_ms)
        result = None
        if entry.kind is EntryKind.COMMAND:
            result = self._machine.apply(context, entry.data)
        else:
            self._machine.advance(context)
        self.work = 1 + len(context.events) + context.work
        self.applied_index = entry.index
        self.applied_time_ms = entry.time_ms
        if self._listeners:
            for topic, body in context.events:
                self.announce(topic, body)
        return result

    def announce(self, topic: str, body: Any) -> None:
        """Tell the listeners of `topic`."""
        for listener in tuple(self._listeners.get(topic, ())):
            listener(body)

    def restored(self, snapshot: SnapshotMeta) -> None:
        """The machine's state was replaced by this snapshot."""
        self.applied_index = snapshot.index
        self.applied_time_ms = snapshot.time_ms

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]:
        listeners = self._listeners.setdefault(topic, [])
        listeners.append(callback)

        def unsubscribe() -> None:
            if callback in listeners:
                listeners.remove(callback)
            if not listeners and self._listeners.get(topic) is listeners:
                del self._listeners[topic]

        return unsubscribe
