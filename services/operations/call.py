"""One request as an operation sees it: who asks at which node, under which key, and what to do if they go away.

    result = await call.replicate(Release(...))
    machine = await call.linearizable()

An operation does one of four things, and each says what happens when its caller vanishes in any await:

    replicate      the command goes on, whoever waits for it
    linearizable   a read of what is replicated; nothing is left behind
    wait           the service's own (`services/*/node/`): the wait is withdrawn, until that is known
    a local hit    no await at all

How a caller speaks to the node is a subclass's affair (`services.http.routes`). Its going away cancels the coroutine.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from common.api_error import bad_request
from services.replicated.envelope import Command, fingerprint
from services.replicated.machine import machine_of
from services.replicated.proposing import ProposingNode, propose

if TYPE_CHECKING:
    from raft.node import RaftNode
    from services.node.host import Host

_KEY = re.compile(r"[\x20-\x7e]{1,128}")


class Call(ABC):
    """See the module."""

    __slots__ = ("group", "host", "take_back")

    def __init__(self, host: "Host", group: str) -> None:
        self.host = host
        #: The group of the operation that is asked; empty where every node has it.
        self.group = group
        #: To be called where the answer does not reach its caller; None where that matters to nobody.
        self.take_back: Callable[[], None] | None = None

    @property
    @abstractmethod
    def given_key(self) -> str | None:
        """What was given as idempotency key, whatever it is."""

    @property
    @abstractmethod
    def role(self) -> str | None:
        """The role of the caller's token; None where there is none, or tokens are not in use."""

    @property
    @abstractmethod
    def asked_from(self) -> str | None:
        """The address of the caller."""

    @property
    def accept(self) -> str:
        """Media types that the caller would rather have, as in an `Accept` header; empty: it did not say."""
        return ""

    @abstractmethod
    def has_gone(self) -> bool:
        """Whether the caller is known to have gone, also where the event loop has not come to hear of it."""

    def check_own_hand(self) -> None:
        """To be called by a GET that has an effect: a foreign page can make a visitor's browser ask it.

        Raises:
            ApiError: 403.
        """
        return None

    @property
    def idempotency_key(self) -> str | None:
        """The key under which this request may be sent again; None where it has none.

        Raises:
            ApiError: 400, it is not one.
        """
        key = self.given_key
        if key is not None and not _KEY.fullmatch(key):
            raise bad_request("Idempotency-Key must be 1 to 128 printable ASCII characters")
        return key

    def node(self, group: str = "") -> "RaftNode":
        """This node's replica of the operation's group, or of another.

        Raises:
            ApiError: 503, its data here is damaged.
        """
        return self.host.nodes[group or self.group]

    def replicate(
        self, command: Command, *, step: int = 0, group: str = ""
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """To be awaited: the machine's answer to `command`, once a quorum holds it and this node has applied it.
        Where one request takes several commands, `step` numbers them: each is kept under a key of its own.

        Raises:
            NotKnownToAll: see `services.replicated.proposing`.
            RaftError: see `RaftNode.propose`.
            ApiError: 400, the idempotency key is not one.
        """
        return self.replicate_at(self.node(group), command, step=step)

    def replicate_at(
        self, node: ProposingNode, command: Command, asked: Command | None = None, *, step: int = 0
    ) -> Coroutine[Any, Any, dict[str, Any]]:
        """As `replicate`, by that replica. `asked` is what the client asked for, where this try is for less.

        Raises: as `replicate`.
        """
        if self.given_key is None:
            return propose(node, command)
        key = self.idempotency_key
        if step:
            # No key of a client is like it: those hold nothing that does not print.
            key = f"{key}\0{step}"
        return propose(node, command, key=key, fingerprint=fingerprint(asked or command))

    async def linearizable(self, group: str = "") -> Any:
        """The service's machine, holding all that was acknowledged before this call. Read it without awaiting.

        Raises:
            RaftError: see `RaftNode.read_index`.
        """
        node = self.node(group)
        await node.read_index()
        return machine_of(node).inner
