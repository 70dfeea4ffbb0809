"""What several messages, each of a legal size, take together on the stream."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import SETTINGS
from common.wire import MESSAGE_BYTES_MAX
from raft.core.config import CoreConfig
from raft.core.lease_records import HELD_MAX
from raft.core.messages import AppendEntries, AppendEntriesReply, ReadIndex
from raft.core.types import Entry, EntryKind
from raft.errors import TooLarge
from raft.forwarding import Forward, ForwardReply
from raft.peer_messages import PeerMessage
from raft.transport.client import PeerLink
from raft.transport.codec import decode_frame, encode_frame
from raft.transport.limits import COMMAND_BYTES_MAX, HELD_BYTES_MAX, NUMBER_BYTES, check_limits, weight
from tests.node.group import Group

#: As large as a number on the wire gets, and an id.
HUGE = (1 << 63) - 1
ID = "n" * 64


def appending(*sizes: int, held: int = 0) -> AppendEntries:
    entries = tuple(
        Entry(HUGE - len(sizes) + offset, HUGE, HUGE, EntryKind.COMMAND, bytes(size))
        for offset, size in enumerate(sizes, 1)
    )
    release = (HUGE, tuple(range(HUGE - held, HUGE)))
    return AppendEntries(
        ID, ID, HUGE, HUGE, HUGE - len(sizes), HUGE, HUGE, entries, (HUGE, HUGE), release, wants_applied=True
    )


class _Open:
    """As much of an open stream as queueing asks for."""


def frames_of(*messages: PeerMessage) -> list[bytes]:
    """What a link would write for them."""
    link = PeerLink(
        peer=ID, url="", headers={}, receivers={}, observe_rpc=lambda *_: None, is_trusted=lambda *_: True
    )
    link._stream = _Open()
    link.on_peer_streams(1)
    assert all(link.send("queue", message) for message in messages)
    frames = []
    while link._queue:
        frame, _ = link._take_frame()
        frames.append(encode_frame(frame))
    return frames


@pytest.mark.parametrize(
    "make",
    [lambda: appending(COMMAND_BYTES_MAX, held=HELD_MAX), lambda: Forward(ID, ID, HUGE, (bytes(COMMAND_BYTES_MAX),))],
)
def test_two_messages_of_the_largest_legal_size_go_in_two_frames(make: Callable[[], PeerMessage]) -> None:
    """A frame over the limit was an error that the process did not survive."""
    frames = frames_of(make(), make())

    assert 2 == len(frames)
    assert all(len(frame) < MESSAGE_BYTES_MAX for frame in frames)
    assert [make()] == [message for _, message in decode_frame(frames[0])]


def test_what_stands_around_many_small_entries_counts() -> None:
    """256 messages of 1,024 entries: their data would fit, what is around each entry would not."""
    frames = frames_of(*(appending(*[10] * 1_024) for _ in range(256)))

    assert all(len(frame) < MESSAGE_BYTES_MAX for frame in frames)
    assert 256 == sum(len(decode_frame(frame)) for frame in frames)


@given(
    st.one_of(
        st.lists(st.integers(0, 70_000)).map(lambda sizes: appending(*sizes, held=len(sizes))),
        st.lists(st.binary(max_size=300)).map(lambda commands: Forward(ID, ID, HUGE, tuple(commands))),
        st.just(ForwardReply(ID, ID, HUGE, HUGE, HUGE, "not_leading")),
        st.just(ReadIndex(ID, ID, HUGE, HUGE)),
        st.just(AppendEntriesReply(ID, ID, HUGE, HUGE, True, HUGE, HUGE, HUGE, HUGE, HUGE, HUGE)),
    )
)
@settings(max_examples=60, deadline=None)
def test_a_message_takes_no_more_than_it_weighs(message: PeerMessage) -> None:
    assert len(encode_frame([("g" * 32, message)])) <= weight(message)


def test_limits_that_do_not_fit_each_other_are_refused_at_start() -> None:
    check_limits(CoreConfig(id="a"))
    assert HELD_MAX * NUMBER_BYTES == HELD_BYTES_MAX
    body = next(setting for setting in SETTINGS if setting.field == "body_bytes_max")
    assert body.maximum + (1 << 20) < COMMAND_BYTES_MAX

    with pytest.raises(ValueError, match="append_bytes_max"):
        check_limits(CoreConfig(id="a", append_bytes_max=MESSAGE_BYTES_MAX))


async def test_a_command_that_fits_no_message_is_refused_and_one_that_fits_arrives_everywhere() -> None:
    async with Group() as group:
        follower = await group.follower()

        with pytest.raises(TooLarge):
            await follower.propose(bytes(COMMAND_BYTES_MAX + 1))

        assert 1 == await follower.propose(bytes(COMMAND_BYTES_MAX))
        assert not group.fatal
