"""What the simulator found in the core: one test for each, told as short as it can be."""

from random import Random

from raft.core import snapshotting
from raft.core.config import CoreConfig
from raft.core.membership import encode_configuration
from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    RequestVote,
    RequestVoteReply,
)
from raft.core.progress import ProgressState
from raft.core.raft import RaftCore
from raft.core.ready import Ready
from raft.core.types import Configuration, Entry, EntryKind, HardState, Role, SnapshotMeta

THREE = Configuration(("a", "b", "c"))


def entry(index: int, term: int, kind: EntryKind = EntryKind.COMMAND, data: bytes = b"x") -> Entry:
    return Entry(index, term, 0, kind, data)


def make_core(configuration: Configuration = THREE, **given) -> RaftCore:
    config = CoreConfig(id="a", **given.pop("config", {}))
    return RaftCore(config, configuration, random=Random(1), now_ms=0, **given)


def persist_all(core: RaftCore, ready: Ready) -> Ready:
    """Everything is durable at once; what that brought."""
    while ready.persist is not None:
        core.persisted(ready.persist, core.now_ms)
        ready = core.take_ready()
    return ready


def lead(core: RaftCore) -> None:
    """Make `core` win an election with the vote of b."""
    core.tick(core.next_deadline_ms())
    asked = [message for message in core.take_ready().messages if message.to == "b"]
    term = core.state.term + 1
    core.receive(RequestVoteReply("b", "a", term, asked[0].sequence, True, pre_vote=True), core.now_ms)
    ready = core.take_ready()
    asked = [message for message in ready.messages_after_persist if message.to == "b"]
    core.persisted(ready.persist, core.now_ms)
    core.receive(RequestVoteReply("b", "a", core.state.term, asked[0].sequence, True), core.now_ms)
    assert core.state.role is Role.LEADER
    persist_all(core, core.take_ready())


def append(
    core: RaftCore, previous: tuple[int, int], entries: tuple[Entry, ...], *, sender: str, term: int
) -> Ready:
    index, previous_term = previous
    core.receive(AppendEntries(sender, "a", term, 1, index, previous_term, 0, entries), core.now_ms)
    return core.take_ready()


def test_a_completion_proves_nothing_about_entries_that_a_later_write_replaces():
    """known bug 33: (5, term 2) stands again after it was replaced twice; the disk must still do both."""
    core = make_core(hard_state=HardState(2), entries=[entry(index, 1) for index in range(1, 5)])
    old = (entry(5, 2), entry(6, 2), entry(7, 2))
    first = append(core, (4, 1), old, sender="b", term=2).persist
    append(core, (4, 1), (entry(5, 3),), sender="c", term=3)
    append(core, (4, 1), old, sender="b", term=4)

    core.persisted(first, core.now_ms)

    assert core.log.last_index == 7
    assert core.log.durable_index == 4


def test_the_completion_of_one_write_covers_all_earlier_ones():
    """The contract of `persisted`: a driver that syncs several writes at once may report the last alone."""
    core = make_core()
    core.receive(RequestVote("b", "a", 3, 1, 0, 0), 0)
    core.take_ready()
    last = append(core, (0, 0), (entry(1, 3),), sender="b", term=3).persist

    core.persisted(last, 0)

    assert HardState(3, "b") == core.durable_hard_state
    assert core.log.durable_index == 1


def test_a_lost_reply_to_a_snapshot_does_not_end_replication():
    """known bugs 37, 44: the leader waits for nothing that can be lost."""
    core = leader_behind_a_snapshot()
    core.snapshot_sent("b", delivered=True, now_ms=core.now_ms)
    core.take_ready()

    core.receive(AppendEntriesReply("b", "a", core.state.term, core.last_sequence, True, 0), core.now_ms)

    probes = [m for m in core.take_ready().messages if isinstance(m, AppendEntries) and m.to == "b"]
    assert [probe.prev_log_index for probe in probes] == [10]


def test_entries_lost_on_the_way_and_compacted_meanwhile_are_made_up_for_by_a_snapshot():
    """known bugs 37, 49: a full window of lost messages, and nothing in the log any more to ask about."""
    core = make_core(config={"inflight_messages_max": 1})
    lead(core)
    core.receive(AppendEntriesReply("b", "a", core.state.term, core.last_sequence, True, 1), core.now_ms)
    core.propose((b"lost",), core.now_ms)
    persist_all(core, core.take_ready())
    core.propose((b"more",), core.now_ms)
    persist_all(core, core.take_ready())
    core.receive(AppendEntriesReply("c", "a", core.state.term, core.last_sequence, True, 3), core.now_ms)
    core.take_ready()
    core.applied(3)
    core.snapshot_taken(snapshotting.meta_at(core, 3, 0), 4)

    core.receive(AppendEntriesReply("b", "a", core.state.term, core.last_sequence, True, 0), core.now_ms)

    sent = core.take_ready().messages
    assert [message.snapshot.index for message in sent if isinstance(message, InstallSnapshot)] == [3]


def test_a_server_whose_removal_is_not_committed_still_campaigns():
    """Thesis 4.2.2: its log may be the only one that can win."""
    removal = entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(Configuration(("b",))))
    core = make_core(Configuration(("a", "b")), hard_state=HardState(1), entries=[removal])

    core.tick(core.next_deadline_ms())

    assert core.state.role is Role.PRE_CANDIDATE


def test_a_server_that_joined_and_was_removed_since_a_restart_still_campaigns():
    """Thesis 4.2.2: after a restart it knows nothing committed, and it began with no configuration at all."""
    joined = entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(Configuration(("a", "b"))))
    removal = entry(2, 1, EntryKind.CONFIGURATION, encode_configuration(Configuration(("b",))))
    core = make_core(Configuration(), hard_state=HardState(1), entries=[joined, removal])

    core.tick(core.next_deadline_ms())

    assert core.state.role is Role.PRE_CANDIDATE


def test_a_server_that_knows_its_removal_committed_never_campaigns():
    """Thesis 4.2.2 and known bug 14."""
    snapshot = SnapshotMeta(1, 1, 0, Configuration(("b",)))
    core = make_core(Configuration(("a", "b")), hard_state=HardState(1), snapshot=snapshot)

    core.tick(core.next_deadline_ms())

    assert core.state.role is Role.FOLLOWER


def test_a_server_that_knows_no_configuration_takes_no_snapshot():
    """known bug 46: a snapshot from before the entry that added this server would say that nobody votes."""
    added = entry(2, 1, EntryKind.CONFIGURATION, encode_configuration(Configuration(("b",), ("a",))))

    core = make_core(Configuration(), hard_state=HardState(1), entries=[entry(1, 1), added])

    assert not snapshotting.may_take(core, 1)
    assert snapshotting.may_take(core, 2)


def test_a_campaign_is_given_a_whole_timeout_though_the_leader_is_known_to_be_lost():
    """Its votes need the disks of a quorum; the short delays are for pre-votes."""
    core = make_core(config={"fast_election_delay_max_ms": 1})
    append(core, (0, 0), (), sender="b", term=1)
    core.peer_lost("b", core.now_ms)
    core.tick(core.next_deadline_ms())
    sequence = core.take_ready().messages[0].sequence

    core.receive(RequestVoteReply("c", "a", 2, sequence, True, pre_vote=True), core.now_ms)

    assert core.state.role is Role.CANDIDATE
    assert core.next_deadline_ms() - core.now_ms >= core.config.election_timeout_min_ms


def leader_behind_a_snapshot() -> RaftCore:
    """A leader that has begun to send b its snapshot at index 10."""
    snapshot = SnapshotMeta(10, 1, 0, THREE)
    core = make_core(hard_state=HardState(1), snapshot=snapshot)
    lead(core)
    core.receive(
        AppendEntriesReply("b", "a", core.state.term, core.last_sequence, False, 0, 10, 0, 0), core.now_ms
    )
    ready = core.take_ready()
    assert any(isinstance(message, InstallSnapshot) for message in ready.messages)
    assert core.progress["b"].state is ProgressState.SNAPSHOT
    return core
