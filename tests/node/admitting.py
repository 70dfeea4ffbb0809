"""A `Group` whose nodes must be admitted while their disks are empty, as real ones must."""

import asyncio
from functools import partial
from typing import Any

from raft.admission import Admission
from raft.node import RaftNode
from raft.storage.incarnation import keep_life, kept_life, take_incarnation
from raft.storage.memory import MEMORY_DIRECTORY, MemoryFiles
from raft.storage.recovery import segment_sequences
from tests.node.group import Group


class AdmittingGroup(Group):
    """`ids` are the founders. A node's address is its id with the port 1."""

    def __init__(self, ids: tuple[str, ...] = ("a", "b", "c"), **config: Any) -> None:
        super().__init__(ids, **config)
        self._admissions: dict[str, asyncio.Task] = {}
        #: Nodes that do not know what a group's life is.
        self.earlier_version: set[str] = set()

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
        life = kept_life(MEMORY_DIRECTORY, fresh=fresh, files=files)
        incarnation = take_incarnation(MEMORY_DIRECTORY, fresh=fresh, files=files)
        voters = () if joins else self.ids
        node = self.start(
            id, voters=voters, must_be_admitted=True, incarnation=incarnation, life=life, **config
        )
        admission = Admission(
            node,
            incarnation=incarnation,
            address=f"{id}:1",
            founders={founder: f"{founder}:1" for founder in self.ids},
            joins=joins,
            ask=lambda address, request: self.network.ask(id, address.removesuffix(":1"), request),
            knows_lives=lambda peer: peer in self.nodes and peer not in self.earlier_version,
            keep_life=partial(keep_life, MEMORY_DIRECTORY, files=files),
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
