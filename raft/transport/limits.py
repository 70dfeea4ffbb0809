"""How large what nodes send each other may be: each limit follows from the one before, and all are checked at start.

    packed value     MESSAGE_BYTES_MAX (common.wire): what a receiver takes
    frame            one message, or several of FRAME_BYTES_MAX together
    message          one entry or command of any legal size; or several: of an AppendEntries `append_bytes_max`
                     together, of a Forward FORWARD_BYTES_MAX
    command          COMMAND_BYTES_MAX: so that it fits a message alone, with all that stands around it
    request body     the setting `body_bytes_max`: a command takes little more, and where it takes too much all the
                     same, `propose` refuses it

The rule of the file: `weight` is never less than what a message takes in a frame (tests/node/test_frames.py).
"""

from common.wire import MESSAGE_BYTES_MAX
from raft.core.config import CoreConfig
from raft.core.messages import AppendEntries
from raft.forwarding import FORWARD_BYTES_MAX, FORWARD_COMMANDS_MAX, Forward
from raft.peer_messages import PeerMessage
from raft.snapshot_transfer import CHUNK_BYTES

#: The most that a message takes in a frame beside its entries, commands and held indexes: numbers and two ids.
MESSAGE_OVERHEAD_BYTES = 512
#: The most that an entry or a command takes in a message beside its data, and a number.
ENTRY_OVERHEAD_BYTES = 32
NUMBER_BYTES = 9
#: What the held indexes of a message may take in all: `raft.core.lease_records.HELD_MAX` of them.
HELD_BYTES_MAX = 1024 * NUMBER_BYTES

#: Largest command, packed: alone in an AppendEntries it still fits a frame of one message.
COMMAND_BYTES_MAX = MESSAGE_BYTES_MAX - (64 << 10)
#: What the messages of one frame weigh together, where they are several.
FRAME_BYTES_MAX = MESSAGE_BYTES_MAX // 2


def weight(message: PeerMessage) -> int:
    """At least the bytes that a message adds to a frame."""
    if isinstance(message, AppendEntries):
        held = NUMBER_BYTES * len(message.release[1])
        return MESSAGE_OVERHEAD_BYTES + held + sum([len(e.data) + ENTRY_OVERHEAD_BYTES for e in message.entries])
    if isinstance(message, Forward):
        return MESSAGE_OVERHEAD_BYTES + sum([len(c) + ENTRY_OVERHEAD_BYTES for c in message.commands])
    return MESSAGE_OVERHEAD_BYTES


def check_limits(config: CoreConfig) -> None:
    """Whatever a core with these limits sends must fit a frame.

    Raises:
        ValueError: it need not.
    """
    around = MESSAGE_OVERHEAD_BYTES + HELD_BYTES_MAX
    largest = {
        "a command alone": COMMAND_BYTES_MAX + ENTRY_OVERHEAD_BYTES + around,
        "append_bytes_max": config.append_bytes_max + config.append_entries_max * ENTRY_OVERHEAD_BYTES + around,
        "FORWARD_BYTES_MAX": FORWARD_BYTES_MAX + FORWARD_COMMANDS_MAX * ENTRY_OVERHEAD_BYTES + around,
        "CHUNK_BYTES": CHUNK_BYTES + around,
        "FRAME_BYTES_MAX": FRAME_BYTES_MAX + around,
    }
    for limit, size in largest.items():
        # A receiver refuses a frame of exactly the limit, too.
        if size >= MESSAGE_BYTES_MAX:
            raise ValueError(f"{limit}: a message may take {size} bytes, and {MESSAGE_BYTES_MAX} are too many")
