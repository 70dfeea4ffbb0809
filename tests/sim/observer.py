"""What the simulator tells its watchers, and what a watcher raises when it has found something.

A watcher subclasses `Observer` and overrides the hooks that it needs; `Observers` calls only those. Invariants are
watchers that raise `Violation`; situations are watchers that count. Hooks of one node are called after the node has
run to completion, with what changed since the last call, so that a check only looks at news.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raft.core.messages import Message
from raft.core.ready import Persist, ReadState
from raft.core.types import Entry, Index, Role, SnapshotMeta, Term

if TYPE_CHECKING:
    from tests.sim.node import SimNode
    from tests.sim.world import World


class Violation(AssertionError):
    """A promise of the protocol was broken: the text says which and where."""


class Observer:
    """Base of every watcher; the hooks do nothing here."""

    #: The paper's section, or the bug that taught the check.
    section = ""

    def __init__(self, world: World) -> None:
        self.world = world

    def fail(self, text: str) -> None:
        raise Violation(f"{type(self).__name__} ({self.section}): {text}")

    def on_start(self, node: SimNode) -> None:
        """A core was made from what the node's disk held."""

    def on_crash(self, node: SimNode) -> None:
        """The node lost its memory; its disk shows already what the crash left."""

    def on_receive(self, node: SimNode, message: Message) -> None:
        """`message` is about to be fed to the node's core."""

    def on_sent(self, node: SimNode, message: Message) -> None:
        """`message` leaves the node now."""

    def on_state(self, node: SimNode) -> None:
        """The node ran to completion."""

    def on_log(self, node: SimNode, first: Index, entries: list[Entry], replaced: int) -> None:
        """The log in memory now holds `entries` from `first` on; `replaced` entries that stood there are gone."""

    def on_role(self, node: SimNode, role: Role, term: Term) -> None:
        """The node's role or term changed; these are the earlier ones."""

    def on_commit(self, node: SimNode, before: Index, after: Index) -> None:
        """The node's commit index moved."""

    def on_applied(self, node: SimNode, entry: Entry, answer: Any) -> None:
        """The node's machine carried out `entry`."""

    def on_durable(self, node: SimNode, persist: Persist) -> None:
        """This write reached the disk; the core was not told yet."""

    def on_read_state(self, node: SimNode, state: ReadState, floor: Index) -> None:
        """A read was given its index; `floor` was the highest commit index anywhere when it was asked for."""

    def on_snapshot(
        self, node: SimNode, meta: SnapshotMeta, data: tuple[bytes, ...], installed: bool
    ) -> None:
        """A snapshot became durable at the node: its own, or a leader's."""


_HOOKS = tuple(name for name in vars(Observer) if name.startswith("on_"))


class Observers:
    """Calls each hook of each watcher that overrides it, in the order given."""

    def __init__(self, watchers: list[Observer]) -> None:
        for hook in _HOOKS:
            base = getattr(Observer, hook)
            called: tuple[Callable[..., None], ...] = tuple(
                getattr(watcher, hook) for watcher in watchers if getattr(type(watcher), hook) is not base
            )
            setattr(self, hook, called)
