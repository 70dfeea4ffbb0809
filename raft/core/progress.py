"""What a leader knows of one peer, and how much it may send it (etcd's flow control; paper 5.3, 7).

PROBE      it is unknown where the logs meet: one AppendEntries at a time
REPLICATE  they meet: entries are sent ahead of the answers, within a window
SNAPSHOT   the peer needs entries that are compacted away: a snapshot is under way, no entries are sent
"""

from collections import deque
from enum import Enum

from raft.core.types import Index

#: Send times remembered per peer; losing an old one only makes its late reply prove less.
SEND_TIMES_MAX = 256


class ProgressState(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One peer's replication state. Only this file assigns its state, indexes and window; the sender of a message
    notes what the peer was last told."""

    __slots__ = (
        "_inflight",
        "_send_times",
        "acked_sent_ms",
        "acked_sequence",
        "advanced_ms",
        "applied_index",
        "commit_notice_due_ms",
        "commit_sent",
        "commit_wanted",
        "inflight_bytes",
        "loss_check_due_ms",
        "match_index",
        "next_index",
        "probe_sent",
        "release_sent",
        "snapshot_behind_bytes",
        "snapshot_failed",
        "snapshot_index",
        "snapshot_share",
        "state",
    )

    def __init__(self, *, next_index: Index, now_ms: int) -> None:
        self.state = ProgressState.PROBE
        #: Highest index known to be equal and durable there (paper: matchIndex).
        self.match_index: Index = 0
        #: Next index to send (paper: nextIndex); always above `match_index`.
        self.next_index: Index = next_index
        #: PROBE: an AppendEntries is out; the leader waits for its reply, or for the reply to the next heartbeat.
        self.probe_sent = False
        #: SNAPSHOT: the last index of the snapshot under way.
        self.snapshot_index: Index = 0
        #: SNAPSHOT: how much of it has come, from 0 to 1; and the bytes of the log after it when it was begun.
        self.snapshot_share = 0.0
        self.snapshot_behind_bytes = 0
        #: The peer got nothing of the last snapshot that was sent.
        self.snapshot_failed = False
        #: Highest commit index that this peer was sent.
        self.commit_sent: Index = 0
        #: Clients at this peer wait for the commit of entries up to here: the leader tells it at once.
        self.commit_wanted: Index = 0
        #: When to tell the peer of a commit that no client there waits for; None if it knows all.
        self.commit_notice_due_ms: int | None = None
        #: The newest of the leader's releases that was sent to it (`raft.core.leases`).
        self.release_sent = 0
        #: The newest sequence that it answered in this leadership, and when that message was *sent*, by the leader's
        #: clock.
        self.acked_sequence = 0
        self.acked_sent_ms = now_ms
        #: When it last came nearer to the end of the log, by the leader's clock: by entries or by snapshot pieces.
        self.advanced_ms = now_ms
        #: As the peer last reported.
        self.applied_index: Index = 0
        #: From when on a reply without news makes the leader ask whether something was lost.
        self.loss_check_due_ms = now_ms
        self.inflight_bytes = 0
        self._inflight: deque[tuple[int, Index, int]] = deque()
        self._send_times: deque[tuple[int, int]] = deque(maxlen=SEND_TIMES_MAX)

    @property
    def inflight_messages(self) -> int:
        return len(self._inflight)

    @property
    def needed_index(self) -> Index:
        """The first entry that it lacks, as far as is known."""
        if self.state is ProgressState.SNAPSHOT:
            return self.snapshot_index + 1
        return self.next_index if self.state is ProgressState.PROBE else self.match_index + 1

    def become_probe(self) -> None:
        """Find out again where the logs meet, from the last proven point, or from the end of a snapshot under way."""
        self.next_index = self.match_index + 1
        self._enter(ProgressState.PROBE)

    def become_snapshot(self, index: Index, behind_bytes: int = 0) -> None:
        self._enter(ProgressState.SNAPSHOT)
        self.snapshot_index = index
        self.snapshot_behind_bytes = behind_bytes

    def may_send_entries(self, *, messages_max: int, bytes_max: int) -> bool:
        if self.state is ProgressState.REPLICATE:
            return len(self._inflight) < messages_max and self.inflight_bytes < bytes_max
        return self.state is ProgressState.PROBE and not self.probe_sent

    def on_sent(self, sequence: int, now_ms: int) -> None:
        """An AppendEntries was sent; its reply will prove that the follower still followed at `now_ms`."""
        self._send_times.append((sequence, now_ms))

    def on_entries_sent(self, sequence: int, last_index: Index, size: int) -> None:
        """Entries up to `last_index`, `size` bytes of them, were sent."""
        if self.state is ProgressState.REPLICATE:
            self.next_index = last_index + 1
            self._inflight.append((sequence, last_index, size))
            self.inflight_bytes += size
        else:
            self.probe_sent = True

    def on_answer(self, sequence: int) -> None:
        """Any reply of this term, success or refusal, proves that the follower still followed after `sequence` was
        sent."""
        if sequence <= self.acked_sequence:
            return
        self.acked_sequence = sequence
        while self._send_times and self._send_times[0][0] <= sequence:
            self.acked_sent_ms = self._send_times.popleft()[1]

    def on_match(self, match_index: Index) -> bool:
        """The logs are equal and durable up to `match_index`. True if that is news."""
        while self._inflight and self._inflight[0][1] <= match_index:
            self.inflight_bytes -= self._inflight.popleft()[2]
        news = match_index > self.match_index
        answers_probe = match_index >= self.next_index - 1
        if news:
            self.match_index = match_index
            self.next_index = max(self.next_index, match_index + 1)
        if self.state is ProgressState.PROBE and answers_probe:
            self._enter(ProgressState.REPLICATE)
        elif self.state is ProgressState.SNAPSHOT and self.match_index >= self.snapshot_index:
            self.become_probe()
        return news

    def on_refusal(self, rejected_index: Index, meet_index: Index) -> bool:
        """The peer refused because of the entry before those sent; `meet_index` is the best guess where the logs
        meet. False if the refusal is stale (openraft fbbf37b1, CCF#3723: a stale one must not rewind)."""
        if rejected_index <= self.match_index:
            return False
        if self.state is ProgressState.REPLICATE:
            self.become_probe()
            return True
        if self.state is not ProgressState.PROBE or self.next_index - 1 != rejected_index:
            return False
        self.next_index = max(min(rejected_index, meet_index + 1), self.match_index + 1)
        self.probe_sent = False
        return True

    def on_snapshot_advanced(self, share: float, now_ms: int) -> None:
        """This share of the snapshot has arrived."""
        if self.state is ProgressState.SNAPSHOT:
            self.snapshot_share, self.snapshot_failed = share, False
            self.advanced_ms = now_ms

    def on_snapshot_failed(self) -> None:
        self.snapshot_failed = True
        if self.state is ProgressState.SNAPSHOT:
            self.become_probe()

    def on_snapshot_delivered(self) -> None:
        """The peer has the data. Its reply may be lost, so the reply to the next heartbeat starts a probe after the
        snapshot."""
        if self.state is ProgressState.SNAPSHOT:
            self.next_index = self.snapshot_index + 1
            self._enter(ProgressState.PROBE)
            self.probe_sent = True

    def take_loss_check(self, now_ms: int, pause_ms: int) -> bool:
        """Whether to ask now if something was lost, at most once in `pause_ms`. Under load the reply to that question
        brings no news either, and would lead to the next question, in a chain that never ends."""
        if now_ms < self.loss_check_due_ms:
            return False
        self.loss_check_due_ms = now_ms + pause_ms
        return True

    def resume_probe(self) -> None:
        """A heartbeat was answered: a probe that is still unanswered may have been lost."""
        self.probe_sent = False

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = False
        self.snapshot_index = 0
        self.snapshot_share = 0.0
        # Only a peer that gets entries needs notices; for another one the leader would wake without end.
        self.commit_notice_due_ms = None
        self.inflight_bytes = 0
        self._inflight.clear()
