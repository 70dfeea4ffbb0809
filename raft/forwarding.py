"""What travels between the drivers of a group besides the protocol: proposals handed to the leader in batches.

A follower never redirects its client. It sends what many clients proposed as one `Forward`; the leader appends
the commands and names the place that they took in its log. The follower then waits for its own apply of that
place: an entry of that term there is theirs, an entry of another term proves that theirs never will be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from raft.core.types import Index, NodeId, Term

#: Commands and bytes that one `Forward` carries at most; the first command always fits.
FORWARD_COMMANDS_MAX = 1024
FORWARD_BYTES_MAX = 2 << 20

#: Why a leader takes no forward: `REFUSED_NOT_LEADING` is tried again elsewhere, `REFUSED_OVERLOADED` is told
#: to the client.
REFUSED_NOT_LEADING = "not_leading"
REFUSED_OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Forward:
    """Commands for the leader to propose. `batch` is unique over restarts of the sender."""

    sender: NodeId
    to: NodeId
    batch: int
    commands: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ForwardReply:
    """The batch stands at `index` and following, in `term`; or `refused` says why it stands nowhere."""

    sender: NodeId
    to: NodeId
    batch: int
    term: Term
    index: Index
    refused: str = ""


def split(commands: Sequence[bytes]) -> list[slice]:
    """Cut `commands` into runs that each fit one `Forward`."""
    runs, start, size = [], 0, 0
    for position, command in enumerate(commands):
        too_many = position - start >= FORWARD_COMMANDS_MAX
        if position > start and (too_many or size + len(command) > FORWARD_BYTES_MAX):
            runs.append(slice(start, position))
            start, size = position, 0
        size += len(command)
    runs.append(slice(start, len(commands)))
    return runs
