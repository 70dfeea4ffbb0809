"""Peer messages as msgpack lists (raft/transport/codec.py): what a version adds, the others can do without."""

import pytest

from common.wire import WireError, pack, unpack
from raft.core.messages import AppendEntries
from raft.core.types import Configuration, Entry, EntryKind, SnapshotMeta
from raft.transport.codec import from_list, snapshot_from_list, snapshot_to_list, to_list

MESSAGE = AppendEntries(
    "a",
    "b",
    3,
    7,
    4,
    2,
    4,
    (Entry(5, 3, 90, EntryKind.COMMAND, b"x"),),
    (9, 600),
    (4, (2,)),
    True,
    time_ms=95,
)


def packed(message: AppendEntries) -> list:
    return unpack(pack(to_list(message)))


def test_a_message_comes_back_as_it_was() -> None:
    assert from_list(packed(MESSAGE)) == MESSAGE


def test_a_message_of_a_version_that_did_not_tell_the_time_is_read() -> None:
    """Fields are added at the end, with a default."""
    read = from_list(packed(MESSAGE)[:-1])

    assert (read.entries, read.wants_applied, read.time_ms) == (MESSAGE.entries, True, 0)


def test_what_a_snapshot_stands_for_comes_back_as_it_was() -> None:
    members = (("a", "host:1"),), (("a", "i"),)
    snapshot = SnapshotMeta(7, 3, 90, Configuration(("a", "b"), ("c",), *members, lease_ms=600))
    packed = unpack(pack(snapshot_to_list(snapshot)))

    assert snapshot_from_list(packed) == snapshot
    assert snapshot_from_list(packed[:-1]).configuration.lease_ms == 0


def test_a_message_with_more_fields_than_there_are_is_refused() -> None:
    with pytest.raises(WireError):
        from_list([*packed(MESSAGE), 1])


def test_a_message_that_lacks_what_has_no_default_is_refused() -> None:
    with pytest.raises(WireError):
        from_list(packed(MESSAGE)[:5])
