"""Which nodes the invalidations of a key wait for, told by whichever node is asked.

The rule of this file: only a leader keeps that account (`services.cache.node.invalidations`), so it alone answers;
where no leader does, nobody knows, and that is what is told.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from common.wire import WireError, pack, unpack
from services.cache.node.invalidations import Invalidations


class Node(Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    #: `raft.inquiries.Inquiries`.
    inquiries: Any


def answer_pending(node: Node, account: Invalidations) -> None:
    """Let this node tell, where it leads, what the others ask with `pending_of`."""

    def answer(question: bytes) -> bytes:
        if not account.is_leading:
            return b""
        try:
            return pack([account.pending(key) for key in unpack(question)])
        except (WireError, TypeError):
            return b""

    node.inquiries.answer = answer


async def pending_of(node: Node, keys: Iterable[str]) -> list[list[str] | None]:
    """For each key the nodes that are waited for, sorted; None for each where no leader tells."""
    keys = tuple(keys)
    if not keys:
        return []
    answered = await node.inquiries.ask(pack(keys))
    return unpack(answered) if answered else [None] * len(keys)
