"""A `Group` whose nodes must be admitted while their disks are empty, as real ones must."""

import asyncio
from typing import Any

from raft.admission import Admission
from raft.node import RaftNode
from raft.storage.incarnation import take_incarnation
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFiles
from raft.storage.recovery import segment_sequences
from tests.node.group import Group


class AdmittingGroup(Group):
    """`ids` are the founders. A node's address is its id with the port 1."""

    def __init__(self, ids: tuple[str, ...] = ("a", "b", "c"), **config: Any) -> None:
        super().__init__(ids, **config)
        self._admissions: dict[str, asyncio.Task] = {}

    async def __aenter__(self) -> "AdmittingGroup":
        return self

    async def __aexit__(self, *_: object) -> None:
        for id in tuple(self._admissions):
            await self._stop_admission(id)
        await super().__aexit__()

    def run(self, id: str, *, joins: bool = False, **config: Any) -> RaftNode:
        """Start a node as `services.app` does: its disk decides whether it must be admitted."""
        files = self.files.setdefault(id, MemoryFiles())
        fresh = not segment_sequences(files.names(MEMORY_DIRECTORY))
        node = self.start(id, voters=() if joins else self.ids, must_be_admitted=True, **config)
        admission = Admission(
            node,
            incarnation=take_incarnation(MEMORY_DIRECTORY, fresh=fresh, files=files),
            address=f"{id}:1",
            founders={founder: f"{founder}:1" for founder in self.ids},
            joins=joins,
            ask=lambda address, request: self.network.ask(id, address.removesuffix(":1"), request),
        )
        self._admissions[id] = asyncio.create_task(admission.run())
        return node

    async def crash(self, id: str) -> None:
        await self._stop_admission(id)
        await super().crash(id)

    def wipe(self, id: str) -> None:
        """Its disk is replaced by an empty one."""
        self.files[id] = MemoryFiles()

    async def _stop_admission(self, id: str) -> None:
        task = self._admissions.pop(id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
