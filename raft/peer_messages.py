"""What the nodes of a group tell each other: the core's messages, the drivers' own, and pieces of snapshots.

These are nouns alone. How they become bytes is in `raft.transport.codec`, and how large they may be in
`raft.transport.limits`.
"""

from dataclasses import dataclass

from raft.core.messages import AppendEntriesReply, InstallSnapshot, InstallSnapshotReply, Message
from raft.forwarding import Forward, ForwardReply

#: What travels by `send`: nobody waits for an answer to it.
PeerMessage = Message | Forward | ForwardReply


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """A piece of a snapshot file on its way. `message` is what the core will be told once all of it is there."""

    message: InstallSnapshot
    snapshot_id: str
    #: Size of the whole file in bytes.
    size: int
    offset: int
    data: bytes
    checksum: int


@dataclass(frozen=True, slots=True)
class SnapshotChunkReply:
    """Where to go on; or the core's reply, once the whole is durable or was not needed, or where the leader's term is
    over; or why nothing is taken at present."""

    next_offset: int
    reply: InstallSnapshotReply | AppendEntriesReply | None = None
    refusal: str = ""
