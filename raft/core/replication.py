"""Log replication and commitment: paper 5.3, 5.4.2, 8.

The leader sends once per drained `Ready` (`flush`): everything that was proposed since goes out together. A new
commit index travels with the entries, or in an empty AppendEntries of its own if there are none to send.
"""

from raft.core import cluster_time, election, leases, membership, reads, reconfiguration, transfer
from raft.core.messages import AppendEntries, AppendEntriesReply, Applied, InstallSnapshot
from raft.core.progress import Progress, ProgressState
from raft.core.quorum import quorum_value
from raft.core.server import Server
from raft.core.types import Entry, EntryKind, NodeId, Role


def broadcast_heartbeat(raft: Server) -> None:
    """One empty AppendEntries per peer, at an index where its log is already proven equal. So the peer cannot refuse
    that index, needs no disk for it, and the message never waits behind a large append."""
    for peer, progress in raft.progress.items():
        index = progress.match_index
        term = raft.log.term_at(index)
        if term is None:
            index = term = 0
        _send(raft, peer, progress, index, term, ())


def flush(raft: Server) -> None:
    """Send every peer what it lacks, as far as its window allows."""
    for peer, progress in raft.progress.items():
        while maybe_send_entries(raft, peer, progress):
            pass
        if progress.state is not ProgressState.REPLICATE:
            continue
        if progress.release_sent < raft.leases.release_number or _commit_notice_is_due(raft, progress):
            _send_tail_probe(raft, peer, progress)


def _commit_notice_is_due(raft: Server, progress: Progress) -> bool:
    """Whether the leader must now send a follower the commit index in a message of its own."""
    known = min(raft.log.commit_index, progress.match_index)
    if progress.commit_sent >= known:
        progress.commit_notice_due_ms = None
        return False
    # A leader that retires sends no later message that could carry the notice.
    if raft.retiring or raft.config.lease_ms or progress.commit_sent < min(progress.commit_wanted, known):
        return True
    if progress.commit_notice_due_ms is None:
        progress.commit_notice_due_ms = raft.now_ms + raft.config.commit_notice_ms
    return raft.now_ms >= progress.commit_notice_due_ms


def maybe_send_entries(raft: Server, peer: NodeId, progress: Progress) -> bool:
    """Send the next batch of entries, or start a snapshot if they are compacted away."""
    config, log = raft.config, raft.log
    if progress.next_index > log.last_index and progress.state is not ProgressState.PROBE:
        return False
    if not progress.may_send_entries(
        messages_max=config.inflight_messages_max, bytes_max=config.inflight_bytes_max
    ):
        return False
    previous = progress.next_index - 1
    previous_term = log.term_at(previous)
    if previous_term is None:
        _send_snapshot(raft, peer, progress)
        return False
    entries: tuple[Entry, ...] = ()
    if progress.next_index <= log.last_index:
        entries = tuple(
            log.slice(
                progress.next_index, entries_max=config.append_entries_max, bytes_max=config.append_bytes_max
            )
        )
    _send(raft, peer, progress, previous, previous_term, entries)
    return bool(entries)


def _send(
    raft: Server, peer: NodeId, progress: Progress, index: int, term: int, entries: tuple[Entry, ...]
) -> None:
    sequence = raft.next_sequence()
    progress.on_sent(sequence, raft.now_ms)
    if entries or (progress.state is ProgressState.PROBE and index == progress.next_index - 1):
        progress.on_entries_sent(sequence, index + len(entries), sum(len(entry.data) for entry in entries))
    progress.release_sent = raft.leases.release_number
    progress.commit_notice_due_ms = None
    commit = raft.log.commit_index
    progress.commit_sent = max(progress.commit_sent, min(commit, index + len(entries)))
    raft.send(
        AppendEntries(
            sender=raft.id,
            to=peer,
            term=raft.state.term,
            sequence=sequence,
            prev_log_index=index,
            prev_log_term=term,
            leader_commit=commit,
            entries=entries,
            lease=raft.leases.take_grant(peer),
            release=raft.leases.release,
            wants_applied=raft.leases.wants_applied(peer),
            time_ms=cluster_time.tell(raft),
        )
    )


def _send_tail_probe(raft: Server, peer: NodeId, progress: Progress) -> None:
    """An empty AppendEntries after everything that was sent: it brings the commit index, and the peer refuses it if
    something was lost on the way."""
    index = progress.next_index - 1
    term = raft.log.term_at(index)
    if term is None:
        # What was sent is compacted away meanwhile: only a new start can show what is missing.
        progress.become_probe()
    else:
        _send(raft, peer, progress, index, term, ())


def _send_snapshot(raft: Server, peer: NodeId, progress: Progress) -> None:
    snapshot = raft.log.snapshot
    progress.become_snapshot(snapshot.index, raft.log.counted_bytes(snapshot.index, raft.log.last_index))
    if not progress.snapshot_failed:
        # Starting a snapshot is progress. After a failure only its first piece is: else endless tries would count.
        progress.advanced_ms = raft.now_ms
    sequence = raft.next_sequence()
    progress.on_sent(sequence, raft.now_ms)
    raft.send(
        InstallSnapshot(sender=raft.id, to=peer, term=raft.state.term, sequence=sequence, snapshot=snapshot)
    )


def on_append_entries(raft: Server, message: AppendEntries) -> None:
    """Receiver's rules of AppendEntries (Figure 2). The term was checked and the sender is the leader."""
    if not _is_well_formed(message):
        raft.rejected_messages += 1
        return
    cluster_time.on_heard(raft, message.term, message.time_ms)
    raft.leases.on_append_entries(message)
    raft.heard_commit_index = max(raft.heard_commit_index, message.leader_commit)
    log = raft.log
    previous, entries = message.prev_log_index, message.entries
    verified = previous + len(entries)
    if previous < log.compacted_index:
        # Up to the compaction point everything is committed and equal: skip it (openraft#511 deleted it).
        entries = entries[log.compacted_index - previous :]
    elif log.term_at(previous) != message.prev_log_term:
        _refuse(raft, message)
        return
    for position, entry in enumerate(entries):
        own_term = log.term_at(entry.index)
        if own_term == entry.term:
            continue
        if entry.index <= log.commit_index:
            # Committed entries never change: this sender breaks the protocol.
            raft.rejected_messages += 1
            return
        # Only a real conflict or the end of the log leads to a truncation: a stale or reordered request that matches
        # what is here must not shorten the log (openraft 9540c904).
        log.append(entries[position:])
        reconfiguration.on_entries_appended(raft, entries[position:])
        break
    # Not min(leader_commit, last_index): entries after `verified` may be a dead leader's (Figure 2, step 5).
    log.commit_to(min(message.leader_commit, max(verified, log.commit_index)))
    _reply(raft, message, success=True, match_index=verified)


def _is_well_formed(message: AppendEntries) -> bool:
    """Whether the entries follow the previous one without a gap, in terms that a leader's log can hold, and every
    configuration can be read. Check this before you use any of it."""
    index, term = message.prev_log_index, message.prev_log_term
    if index < 0:
        return False
    for entry in message.entries:
        index += 1
        if entry.index != index or entry.term < term:
            return False
        term = entry.term
        if entry.kind is EntryKind.CONFIGURATION and not membership.is_readable(entry.data):
            return False
    return term <= message.term


def _refuse(raft: Server, message: AppendEntries) -> None:
    hint_index, hint_term = raft.log.conflict_hint(message.prev_log_index, message.prev_log_term)
    _reply(raft, message, success=False, hint_index=hint_index, hint_term=hint_term)


def refuse_stale(raft: Server, message: AppendEntries | InstallSnapshot) -> None:
    """A leader of an older term learns the current one and steps down (paper 5.1)."""
    raft.send(
        AppendEntriesReply(
            sender=raft.id,
            to=message.sender,
            term=raft.state.term,
            sequence=message.sequence,
            success=False,
        )
    )


def _reply(
    raft: Server,
    message: AppendEntries,
    *,
    success: bool,
    match_index: int = 0,
    hint_index: int = 0,
    hint_term: int = 0,
) -> None:
    raft.send(
        AppendEntriesReply(
            sender=raft.id,
            to=message.sender,
            term=raft.state.term,
            sequence=message.sequence,
            success=success,
            match_index=match_index,
            rejected_index=0 if success else message.prev_log_index,
            hint_index=hint_index,
            hint_term=hint_term,
            applied_index=raft.applied_index,
            number=raft.leases.on_reply(raft.now_ms) if raft.config.lease_ms else 0,
        )
    )


def on_append_entries_reply(raft: Server, message: AppendEntriesReply) -> None:
    """Leader: the reply of a follower in this term."""
    progress = raft.progress.get(message.sender)
    if progress is None:
        return
    progress.on_answer(message.sequence)
    progress.applied_index = max(progress.applied_index, message.applied_index)
    leases.on_answer(raft, message.sender, message.number)
    reads.on_answer(raft)
    if not message.success:
        meet_index, _ = raft.log.conflict_hint(message.hint_index, message.hint_term)
        progress.on_refusal(message.rejected_index, meet_index)
        return
    if message.match_index > raft.log.last_index:
        raft.rejected_messages += 1
        return
    reconfiguration.maybe_promote(raft, message.sender)
    if progress.on_match(message.match_index):
        progress.advanced_ms = raft.now_ms
        maybe_commit(raft)
        transfer.maybe_finish(raft, message.sender)
    elif progress.match_index < raft.log.last_index and message.match_index <= progress.match_index:
        # Also less than what is known: heartbeats ask about index 0 if the known entry is compacted away.
        _recover_from_loss(raft, message.sender, progress)


def on_applied(raft: Server, message: Applied) -> None:
    """Leader: a follower says how far it has applied."""
    progress = raft.progress.get(message.sender)
    if progress is not None:
        progress.applied_index = max(progress.applied_index, message.applied_index)


def _recover_from_loss(raft: Server, peer: NodeId, progress: Progress) -> None:
    """A heartbeat was answered while entries are outstanding: ask whether they arrived, because nothing else shows a
    lost message (etcd does the same on every reply to a heartbeat). A pause of half a heartbeat lets the reply to
    every heartbeat ask, however much the replies jitter."""
    if not progress.take_loss_check(raft.now_ms, raft.config.heartbeat_ms // 2):
        return
    if progress.state is ProgressState.PROBE:
        progress.resume_probe()
    elif progress.state is ProgressState.REPLICATE and progress.next_index > progress.match_index + 1:
        _send_tail_probe(raft, peer, progress)


def on_install_snapshot_reply(raft: Server, peer: NodeId, sequence: int, match_index: int) -> None:
    """Leader: the follower holds a snapshot up to `match_index` durably."""
    progress = raft.progress.get(peer)
    if progress is None:
        return
    if match_index > raft.log.last_index:
        raft.rejected_messages += 1
        return
    progress.on_answer(sequence)
    reads.on_answer(raft)
    if progress.on_match(match_index):
        progress.advanced_ms = raft.now_ms
        maybe_commit(raft)
        # A snapshot may reach to the end of the log; then no append follows that could tell the successor.
        transfer.maybe_finish(raft, peer)


def maybe_commit(raft: Server) -> bool:
    """Commit what a quorum holds durably, counting copies of the current term's entries only (5.4.2)."""
    if raft.state.role is not Role.LEADER:
        return False
    matches = {peer: progress.match_index for peer, progress in raft.progress.items()}
    matches[raft.id] = raft.log.durable_index
    index = quorum_value(matches, raft.configuration.voters)
    if index <= raft.log.commit_index or raft.log.term_at(index) != raft.state.term:
        return False
    before = raft.log.commit_index
    raft.log.commit_to(index)
    raft.on_own_committed(before, index)
    reconfiguration.on_committed(raft)
    return True


def on_tick(raft: Server) -> None:
    """Leader: the work that comes with time, at the pace of heartbeats. Read rounds do not delay it: a leader that is
    busy with reads must still notice that its disk hangs, and end a transfer that does not succeed."""
    if raft.now_ms < raft.heartbeat_deadline_ms:
        return
    raft.heartbeat_deadline_ms = raft.now_ms + raft.config.heartbeat_ms
    if not election.check_leadership(raft):
        return
    transfer.check_deadline(raft)
    cluster_time.tell(raft)
    raft.leases.on_heartbeat(raft.log.commit_index, raft.now_ms)
    reconfiguration.maybe_agree(raft)
    broadcast_heartbeat(raft)


def next_deadline_ms(raft: Server) -> int:
    """Leader: when the next heartbeat or commit notice is due."""
    due_ms = raft.heartbeat_deadline_ms
    for progress in raft.progress.values():
        if progress.commit_notice_due_ms is not None:
            due_ms = min(due_ms, progress.commit_notice_due_ms)
    return due_ms
