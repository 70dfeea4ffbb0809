"""Messages as msgpack lists: `[kind, field, field, ...]`, kinds as numbers, fields in the class's order.

    kind  message                 kind  message
    1     RequestVote             6     InstallSnapshotReply
    2     RequestVoteReply        7     ReadIndex
    3     AppendEntries           8     ReadIndexReply
    4     AppendEntriesReply      9     TimeoutNow
    5     InstallSnapshot         10    Forward
    11    ForwardReply            12    Applied

An entry is `[term, time_ms, kind, data]`; its index follows from `prev_log_index`. Whatever does not fit is a
`WireError`: nothing from the network is trusted to have the right shape.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from common.wire import WireError, pack, unpack
from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Applied,
    InstallSnapshot,
    InstallSnapshotReply,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.core.types import Configuration, Entry, EntryKind, SnapshotMeta
from raft.forwarding import Forward, ForwardReply
from raft.peer_messages import PeerMessage, SnapshotChunk, SnapshotChunkReply

_CLASSES: dict[int, type[PeerMessage]] = {
    1: RequestVote,
    2: RequestVoteReply,
    3: AppendEntries,
    4: AppendEntriesReply,
    5: InstallSnapshot,
    6: InstallSnapshotReply,
    7: ReadIndex,
    8: ReadIndexReply,
    9: TimeoutNow,
    10: Forward,
    11: ForwardReply,
    12: Applied,
}
_KINDS: dict[type[PeerMessage], int] = {cls: kind for kind, cls in _CLASSES.items()}
_GETTERS: dict[type[PeerMessage], Callable[[PeerMessage], tuple[Any, ...]]] = {
    cls: attrgetter(*(field.name for field in fields(cls))) for cls in _KINDS
}
_TYPES: dict[type[PeerMessage], tuple[type, ...]] = {
    cls: tuple(field.type if field.type in (int, str, bool) else object for field in fields(cls))
    for cls in _KINDS
}
_ENTRY_KINDS = {int(kind): kind for kind in EntryKind}
_ENTRIES_AT = [field.name for field in fields(AppendEntries)].index("entries") + 1
_LEASE_AT = [field.name for field in fields(AppendEntries)].index("lease") + 1
_RELEASE_AT = [field.name for field in fields(AppendEntries)].index("release") + 1
_SNAPSHOT_AT = [field.name for field in fields(InstallSnapshot)].index("snapshot") + 1
_PREVIOUS_AT = [field.name for field in fields(AppendEntries)].index("prev_log_index") + 1


def to_list(message: PeerMessage) -> list[Any]:
    """The message as something that msgpack can pack."""
    cls = type(message)
    row = [_KINDS[cls], *_GETTERS[cls](message)]
    if isinstance(message, AppendEntries):
        row[_ENTRIES_AT] = [
            (entry.term, entry.time_ms, int(entry.kind), entry.data) for entry in message.entries
        ]
    elif isinstance(message, InstallSnapshot):
        row[_SNAPSHOT_AT] = snapshot_to_list(message.snapshot)
    return row


def from_list(row: Any) -> PeerMessage:
    """The message that `to_list` made a list of. Raises WireError."""
    try:
        cls = _CLASSES[row[0]]
        if cls is AppendEntries:
            previous = row[_PREVIOUS_AT]
            row[_ENTRIES_AT] = tuple(
                Entry(previous + offset, term, time_ms, _ENTRY_KINDS[kind], data)
                for offset, (term, time_ms, kind, data) in enumerate(row[_ENTRIES_AT], 1)
            )
            row[_LEASE_AT] = tuple(row[_LEASE_AT])
            index, held = row[_RELEASE_AT]
            row[_RELEASE_AT] = (index, tuple(held))
        elif cls is InstallSnapshot:
            row[_SNAPSHOT_AT] = snapshot_from_list(row[_SNAPSHOT_AT])
        elif cls is Forward:
            row[-1] = tuple(row[-1])
        values = row[1:]
        if len(values) > len(_TYPES[cls]):
            raise WireError(f"{cls.__name__}: {len(values)} fields")
        # Fields that an earlier version did not know stand at the end and have a default.
        for value, expected in zip(values, _TYPES[cls], strict=False):
            if expected is not object and type(value) is not expected:
                raise WireError(f"{cls.__name__}: {value!r} is no {expected.__name__}")
        return cls(*values)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise WireError(f"not a peer message: {error!r}") from error


def snapshot_to_list(snapshot: SnapshotMeta) -> list[Any]:
    configuration = snapshot.configuration
    return [
        snapshot.index,
        snapshot.term,
        snapshot.time_ms,
        list(configuration.voters),
        list(configuration.learners),
        [list(pair) for pair in configuration.addresses],
        [list(pair) for pair in configuration.incarnations],
        # What is known only where all members read it.
        *([configuration.life] if configuration.needs_later_version else []),
        *([configuration.lease_ms] if configuration.lease_ms else []),
    ]


def snapshot_from_list(row: Any) -> SnapshotMeta:
    index, term, time_ms, voters, learners, addresses, incarnations, *later = row
    configuration = Configuration(
        tuple(voters), tuple(learners), tuple(map(tuple, addresses)), tuple(map(tuple, incarnations)), *later
    )
    return SnapshotMeta(index, term, time_ms, configuration)


def encode(message: PeerMessage) -> bytes:
    """One message as the body of a POST."""
    return pack(to_list(message))


def decode(data: bytes) -> PeerMessage:
    """The message in the body of a POST. Raises WireError."""
    return from_list(unpack(data))


def encode_chunk(chunk: SnapshotChunk) -> bytes:
    """A piece of a snapshot as the body of a POST."""
    return pack(
        [
            to_list(chunk.message),
            chunk.snapshot_id,
            chunk.size,
            chunk.offset,
            chunk.data,
            chunk.checksum,
        ]
    )


def decode_chunk(data: bytes) -> SnapshotChunk:
    """Raises WireError."""
    try:
        row, snapshot_id, size, offset, piece, checksum = unpack(data)
        message = from_list(row)
    except (TypeError, ValueError) as error:
        raise WireError(f"not a piece of a snapshot: {error!r}") from error
    if not isinstance(message, InstallSnapshot):
        raise WireError(f"a piece of a snapshot holds {type(message).__name__} for InstallSnapshot")
    expected = (str, int, int, bytes, int)
    for value, kind in zip((snapshot_id, size, offset, piece, checksum), expected, strict=True):
        if type(value) is not kind:
            raise WireError(f"a piece of a snapshot holds {type(value).__name__} for {kind.__name__}")
    return SnapshotChunk(message, snapshot_id, size, offset, piece, checksum)


def encode_chunk_reply(reply: SnapshotChunkReply) -> bytes:
    row = [reply.next_offset, None if reply.reply is None else to_list(reply.reply)]
    # Nodes of an earlier version read two fields; a third one is for them an answer that they cannot read, and that
    # ends their transfer, too.
    return pack([*row, reply.refusal] if reply.refusal else row)


def decode_chunk_reply(data: bytes) -> SnapshotChunkReply:
    """Raises WireError."""
    try:
        next_offset, row, *rest = unpack(data)
        (refusal,) = rest or ("",)
    except (TypeError, ValueError) as error:
        raise WireError(f"not an answer to a piece of a snapshot: {error!r}") from error
    reply = None if row is None else from_list(row)
    if (
        type(next_offset) is not int
        or type(refusal) is not str
        or not isinstance(reply, InstallSnapshotReply | AppendEntriesReply | None)
    ):
        raise WireError("not an answer to a piece of a snapshot")
    return SnapshotChunkReply(next_offset, reply, refusal)


def encode_frame(messages: Iterable[tuple[str, PeerMessage]]) -> bytes:
    """Messages of several groups as one frame of the stream: `[[group, message], ...]`."""
    return pack([(group, to_list(message)) for group, message in messages])


def decode_frame(data: bytes) -> list[tuple[str, PeerMessage]]:
    """Raises WireError."""
    try:
        return [(group, from_list(row)) for group, row in unpack(data)]
    except (TypeError, ValueError) as error:
        raise WireError(f"not a frame of peer messages: {error!r}") from error
