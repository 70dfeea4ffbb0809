"""A group whose nodes know different versions of the log, as nodes of different releases do."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from raft.node import RaftNode
from raft.state_machine import FIRST_VERSION, ApplyContext
from tests.node.admitting import AdmittingGroup
from tests.node.group import ListMachine


class RaisedMachine(ListMachine):
    """Remembers every command; `raise N` is the entry that raises the version."""

    version = FIRST_VERSION

    def apply(self, context: ApplyContext, command: bytes) -> Any:
        self._count(command)
        return super().apply(context, command)

    def restore(self, chunks: Iterable[bytes]) -> None:
        super().restore(chunks)
        for command in self.commands:
            self._count(command)

    def _count(self, command: bytes) -> None:
        if command.startswith(b"raise "):
            self.version = max(self.version, int(command.removeprefix(b"raise ")))


class VersionedGroup(AdmittingGroup):
    """Each node knows the version in `known`, by its id, when it starts."""

    def __init__(self, ids: tuple[str, ...] = ("a", "b", "c"), *, known: dict[str, int], **config: Any) -> None:
        super().__init__(ids, **config)
        self.known = known

    def make_machine(self) -> Any:
        return RaisedMachine()

    def prepare(self, node: RaftNode) -> None:
        node.versions.known = self.known[node.id]
        node.versions.in_force = lambda: node.machine.version
        node.versions.said = partial(self.network.known_by, node.id)
