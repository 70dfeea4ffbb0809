"""The way of commands into the log: none is proposed that a member of the group may not know.

The version in force on this node was applied here, so the entry that raised it is committed: it stands before what is
proposed from now on, in the log of every leader that may come. So each member has it before the new command, and was
asked before it.

Every write passes here: nothing is a coroutine of its own that only hands on another.
"""

from collections.abc import Coroutine
from typing import Any, Protocol

from raft.errors import NotKnownToAll
from raft.state_machine import FIRST_VERSION
from services.replicated.envelope import Command, encode_command
from services.replicated.versions import newest, since


class ProposingNode(Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    #: The `ReplicatedMachine` of the group.
    machine: Any

    def propose(self, command: bytes, *, parting: bool = False) -> Coroutine[Any, Any, Any]: ...


def propose(
    node: ProposingNode,
    command: Command,
    *,
    key: str | None = None,
    fingerprint: bytes | None = None,
    parting: bool = False,
) -> Coroutine[Any, Any, dict[str, Any]]:
    """To be awaited: the answer of the machine to `command`, once it is replicated and applied here. `key` and
    `fingerprint` are of the request that it is for; `parting` as in `RaftNode.propose`.

    Raises:
        NotKnownToAll: not done, since a member of the group may not know such a command yet.
        RaftError: see `RaftNode.propose`.
    """
    if newest[type(command)] > FIRST_VERSION and since(command) > node.machine.version:
        raise NotKnownToAll
    data = encode_command(command, idempotency_key=key, fingerprint=fingerprint)
    return node.propose(data, parting=parting)
