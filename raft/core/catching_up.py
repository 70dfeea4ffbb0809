"""Followers that catch up: which part of the log they need, and when a leader slows writers down for them.

A follower that was away gets a snapshot, and then needs every entry after it. Under load the log grows meanwhile by
more than a leader keeps at the next snapshot. The follower would then need that snapshot, too, and the one after, and
would never catch up. So the leader keeps the entries that such a follower needs, up to `catch_up_bytes_max`, and
refuses proposals that would go beyond.

    a snapshot is under way   a quarter of the room that is left when it begins, and more as its parts come, up to the
                              whole: writers slow down from the beginning rather than stop near the end
    entries are sent          the whole room; once it is used up, writers go at the follower's pace

The leader gives up a follower that does not answer, or makes no progress for `catch_up_patience_ms`: a group goes on
without a dead member.
"""

from collections.abc import Iterator

from raft.core.progress import Progress, ProgressState
from raft.core.server import Server
from raft.core.types import Index


def needed_from(raft: Server) -> Index:
    """Leader: the first entry that a follower still needs to catch up, within the bound; one after the last entry if
    none does."""
    log, bytes_max = raft.log, raft.config.catch_up_bytes_max
    needed = log.last_index + 1
    for progress in _catching_up(raft):
        first = progress.needed_index
        if first < needed and log.counted_bytes(first - 1, log.last_index) <= bytes_max:
            needed = first
    return needed


def would_overtake(raft: Server, size: int) -> bool:
    """Leader: whether `size` more bytes in the log are too many for a follower that is catching up."""
    log, bytes_max = raft.log, raft.config.catch_up_bytes_max
    if 4 * (log.memory_bytes + size) <= bytes_max:
        # Even the whole log is small enough. This is the quick answer for each command of a healthy group.
        return False
    for progress in _catching_up(raft):
        behind = log.counted_bytes(progress.needed_index - 1, log.last_index)
        # A follower that is only a little behind is not looked at any closer: under load, all of them are.
        if 4 * (behind + size) <= bytes_max or not behind:
            continue
        room = bytes_max
        if progress.state is ProgressState.SNAPSHOT:
            left = bytes_max - progress.snapshot_behind_bytes
            room -= int(left * (1 - progress.snapshot_share) * 3 / 4)
        if behind + size > room:
            return True
    return False


def _catching_up(raft: Server) -> Iterator[Progress]:
    """Peers that lack entries which the log still has, that answer, and that made progress lately."""
    log = raft.log
    answers_since_ms = raft.now_ms - raft.config.election_timeout_max_ms
    nearer_since_ms = raft.now_ms - raft.config.catch_up_patience_ms
    for progress in raft.progress.values():
        lacks = log.compacted_index < progress.needed_index <= log.last_index
        if lacks and progress.acked_sent_ms >= answers_since_ms and progress.advanced_ms >= nearer_since_ms:
            yield progress
