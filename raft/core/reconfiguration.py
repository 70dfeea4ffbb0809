"""Cluster membership changes, one server at a time: thesis section 4 (single-server bug: raft-dev 2015).

A configuration is used as soon as it is in the log, committed or not (4.1). A leader proposes a change only
after it has committed an entry of its own term, and while no other change is uncommitted. New servers join as
learners and are promoted when they have caught up (4.2.1).
"""

from collections.abc import Sequence
from dataclasses import replace

from raft.core import answering, leases, reads
from raft.core.errors import ConfigurationBusy, ConfigurationRefused, NotLeading
from raft.core.membership import changed, decode_configuration, encode_configuration, survives_encoding
from raft.core.progress import Progress
from raft.core.server import Server
from raft.core.types import Configuration, Entry, EntryKind, Index, NodeId, Role


def propose(raft: Server, configuration: Configuration) -> Index:
    """Append a configuration that differs from the latest by one server; returns its index.

    Raises:
        NotLeading, ConfigurationRefused.
    """
    if raft.state.role is not Role.LEADER:
        raise NotLeading
    if raft.log.commit_index < raft.term_start_index:
        raise ConfigurationBusy("the leader has not committed in its term yet; try again")
    if raft.configurations.latest_index > raft.log.commit_index:
        raise ConfigurationBusy("another membership change is under way; try again")
    if raft.transfer.to:
        raise ConfigurationBusy("leadership is being handed over; try again")
    current = raft.configuration
    if len(set(current.voters) ^ set(configuration.voters)) > 1 or not configuration.voters:
        raise ConfigurationRefused("one voter can be added or removed at a time")
    if len(set(current.members) ^ set(configuration.members)) > 1:
        raise ConfigurationRefused("one server can be added or removed at a time")
    leases.check_agreement(raft, configuration)
    if not survives_encoding(configuration):
        raise ConfigurationRefused("ids must be sorted, each once, in ASCII without commas and semicolons")
    if current.life not in ("", configuration.life):
        raise ConfigurationRefused("a group's life never changes")
    bound = dict(current.incarnations)
    for member, incarnation in configuration.incarnations:
        if bound.get(member, incarnation) != incarnation:
            # A new server under the same id: that would remove one server and add another in one change.
            raise ConfigurationRefused(f"{member} is bound already; it has to be removed first")
    answering.check_removal(raft, configuration)
    raft.append_own(EntryKind.CONFIGURATION, (encode_configuration(configuration),))
    return raft.log.last_index


def on_entries_appended(raft: Server, entries: Sequence[Entry]) -> None:
    """Use a new configuration at once; go back to the earlier one if its entry was replaced."""
    _notice_who_may_have_left(raft, entries)
    before = dict(raft.configuration.incarnations)
    if not raft.configurations.append(entries) or raft.state.role is not Role.LEADER:
        return
    members, after = raft.configuration.members, dict(raft.configuration.incarnations)
    progress = raft.progress
    raft.progress = {}
    for peer in members:
        if peer == raft.id:
            continue
        known = progress.get(peer)
        if known is None or before.get(peer) != after.get(peer):
            # The id is bound to a new disk, which may be empty: what the earlier one acknowledged no longer counts.
            contact_ms = raft.now_ms if known is None else known.acked_sent_ms
            known = Progress(next_index=raft.log.last_index + 1, now_ms=contact_ms)
            raft.leases.on_joined(peer)
        raft.progress[peer] = known
    # The voters that have replied may be a quorum now. If no other is left, no reply will come to notice that.
    reads.on_answer(raft)


def _notice_who_may_have_left(raft: Server, entries: Sequence[Entry]) -> None:
    """A node that is no longer in the configuration may have a read lease. Look at each entry alone: one may remove a
    server, and the next may add another under its id."""
    before = raft.configurations.at(entries[0].index - 1)
    for entry in entries:
        if entry.kind is EntryKind.CONFIGURATION:
            after = decode_configuration(entry.data)
            if (after.members, after.incarnations) != (before.members, before.incarnations):
                raft.leases.members_changed_ms = raft.now_ms


def on_committed(raft: Server) -> None:
    """Leader: a removed leader steps down once its removal is committed (thesis 4.2.2)."""
    if raft.configurations.latest_index <= raft.log.commit_index and not raft.is_voter:
        raft.retiring = True


def maybe_promote(raft: Server, peer: NodeId) -> bool:
    """Leader: a learner that has caught up becomes a voter."""
    if peer in raft.held_back:
        return False
    if peer not in raft.configuration.learners or raft.progress[peer].applied_index == 0:
        return False
    if raft.log.last_index - raft.progress[peer].match_index > raft.config.learner_lag_max:
        return False
    promoted = changed(raft.configuration, add=peer)
    try:
        answering.check_promotion(raft, promoted)
        propose(raft, promoted)
    except ConfigurationRefused:
        return False
    return True


def maybe_agree(raft: Server) -> bool:
    """Leader: propose a configuration with the length of the leases that this node gives."""
    lease_ms, configuration = raft.config.lease_ms, raft.configuration
    if lease_ms == configuration.lease_ms:
        return False
    try:
        propose(raft, replace(configuration, lease_ms=lease_ms))
    except ConfigurationRefused:
        return False
    return True
