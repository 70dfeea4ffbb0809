"""Which cluster this node is of, as it says to its peers and as it judges them by.

    unknown ──the settings or the data directory say one──> known
       └──the leader that this node follows says one──> known, and kept in the data directory

Two clusters whose nodes have the same names and secret would take each other's messages for their own. So a peer that
says another id than this node's is not heard and its answers do not count; who says none, or is heard by a node that
knows none, is judged by everything else. The rule of the file: an id that is known is never changed, whichever of a
node's groups learned it first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from common.logs import SparseLog, get_logger
from common.parsers import CLUSTER_ID_LENGTH_MAX, parse_cluster_id

#: Pause before an id is written again that could not be written.
KEEP_SECONDS = 1.0

_logger = get_logger("raft.cluster_id")


class ClusterId:
    """The cluster's id, as far as this node knows it.

    Args:
        id: what the settings or the data directory say; empty: nothing.
        is_kept: the data directory says it.
        keep: notes the id in the data directory, durably; raises OSError. Called in a thread.
    """

    def __init__(
        self, id: str = "", *, is_kept: bool = False, keep: Callable[[str], None] = lambda id: None
    ) -> None:
        self._id = id
        self._is_kept = is_kept
        self._keep = keep
        self._known = asyncio.Event()
        if id:
            self._known.set()
        self._sparse_log = SparseLog(_logger)

    @property
    def id(self) -> str:
        """Empty while none is known."""
        return self._id

    def is_other(self, said: str) -> bool:
        """Whether who says this is of another cluster; false where one of the two knows none."""
        return bool(self._id and said and self._id != said)

    def maybe_learn(self, said: str) -> bool:
        """Take the id that a leader has said, where none is known. Only of a leader that this node follows, and that
        has proven the secret."""
        if self._id or not said:
            return False
        try:
            self._id = parse_cluster_id(said)
        except ValueError:
            return False
        self._known.set()
        _logger.info("the cluster's id was learned", cluster=self._id)
        return True

    async def maybe_keep(self) -> bool:
        """Have an id that is known stand in the data directory. False where the disk did not do as asked."""
        if not self._id or self._is_kept:
            return True
        try:
            await asyncio.to_thread(self._keep, self._id)
        except OSError as error:
            # The disk may be full. Until then a restart begins without it: it is told or learns it again.
            self._sparse_log.warning("the cluster's id was not noted", error=str(error))
            return False
        self._is_kept = True
        return True

    async def keep_learned(self) -> None:
        """The same once an id is known, however often it has to be tried. To be run beside everything else."""
        await self._known.wait()
        while not await self.maybe_keep():  # noqa: ASYNC110 - no event tells that the disk works again
            await asyncio.sleep(KEEP_SECONDS)

    def log_other(self, event: str, peer: str, said: str) -> None:
        """Log, sparsely for each peer, that it is of another cluster."""
        self._sparse_log.warning(event, kind=peer, peer=peer, its=said[:CLUSTER_ID_LENGTH_MAX], ours=self._id)
