"""Followers that are behind and come nearer: what of the log they need, and when a leader goes slower for them.

A follower that was away is sent a snapshot, and needs every entry behind it. Under load the log grows meanwhile by
more than what is kept behind the next snapshot, so it would be sent that one, too, and the one after, and never catch
up. So the leader keeps what such a follower needs, up to `catch_up_bytes_max`, and refuses proposals that would go
beyond.

    a snapshot is under way   of the room that is left when it begins, a quarter at first and the whole in the end, as
                              its parts come: writers are slowed from the beginning rather than stopped near the end
    entries are sent          the whole; the follower's own pace is the writers' once it is used up

Who does not answer, or comes no further for `catch_up_patience_ms`, is let go: a group goes on without a dead member.
"""

from collections.abc import Iterator

from raft.core.progress import Progress, ProgressState
from raft.core.server import Server
from raft.core.types import Index


def needed_from(raft: Server) -> Index:
    """Leader: the first entry that a follower which is catching up still needs, within the bound; behind the log
    where there is none."""
    log, bytes_max = raft.log, raft.config.catch_up_bytes_max
    needed = log.last_index + 1
    for progress in _catching_up(raft):
        first = progress.needed_index
        if first < needed and log.counted_bytes(first - 1, log.last_index) <= bytes_max:
            needed = first
    return needed


def would_overtake(raft: Server, size: int) -> bool:
    """Leader: whether so much more in the log is too much for a follower that is catching up."""
    log, bytes_max = raft.log, raft.config.catch_up_bytes_max
    if 4 * (log.memory_bytes + size) <= bytes_max:
        # Not even all of the log, which is asked first: it is so for each command of a group that is well.
        return False
    for progress in _catching_up(raft):
        behind = log.counted_bytes(progress.needed_index - 1, log.last_index)
        # What is a little behind only is not looked at any closer: that is every follower under load.
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
    """Peers that lack something, can still be sent it from the log, answer, and came nearer lately."""
    log = raft.log
    answers_since_ms = raft.now_ms - raft.config.election_timeout_max_ms
    nearer_since_ms = raft.now_ms - raft.config.catch_up_patience_ms
    for progress in raft.progress.values():
        lacks = log.compacted_index < progress.needed_index <= log.last_index
        if lacks and progress.acked_sent_ms >= answers_since_ms and progress.advanced_ms >= nearer_since_ms:
            yield progress
