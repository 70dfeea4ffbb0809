"""A core with a driver that does what raft/core/ready.py says and no more, for tests that look at one core closely.

Everything is explicit: what it sends waits in `outbox`, time moves by `pass_ms`, and its disk answers at once
unless `disk_holds` is set; then `sync` lets the writes complete, one by one if wanted.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from raft.core import snapshotting
from raft.core.config import CoreConfig
from raft.core.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    RequestVote,
    RequestVoteReply,
)
from raft.core.raft import RaftCore
from raft.core.ready import Persist, ReadState
from raft.core.types import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Index,
    NodeId,
    Role,
    SnapshotMeta,
    Term,
)

#: Commits are told to every follower at once, so that a test need not wait for them; the delay has its own tests.
TOLD_AT_ONCE = {name: 0 for name in ("commit_notice_ms",) if hasattr(CoreConfig, name)}

THREE = Configuration(("a", "b", "c"))
FIVE = Configuration(("a", "b", "c", "d", "e"))


def entry(index: Index, term: Term, data: bytes = b"x", kind: EntryKind = EntryKind.COMMAND) -> Entry:
    return Entry(index, term, 0, kind, data)


def entries(*terms: Term, first: Index = 1) -> tuple[Entry, ...]:
    """One entry per term, from `first` on; its data says where it stood and whose it was."""
    return tuple(entry(first + i, term, b"%d/%d" % (first + i, term)) for i, term in enumerate(terms))


class Disk:
    """What survives a crash."""

    def __init__(
        self,
        hard_state: HardState | None = None,
        log: Sequence[Entry] = (),
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        self.hard_state = hard_state or HardState()
        self.snapshot = snapshot
        self.entries: list[Entry] = list(log)

    def write(self, persist: Persist) -> None:
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        if persist.snapshot is not None:
            self.snapshot, self.entries = persist.snapshot, []
        if persist.entries:
            kept = [e for e in self.entries if e.index < persist.entries[0].index]
            self.entries = [*kept, *persist.entries]


class Replica:
    """One node of a test: a core, its disk, what it applied and what it wants sent."""

    def __init__(
        self,
        id: NodeId = "a",
        configuration: Configuration = THREE,
        *,
        disk: Disk | None = None,
        now_ms: int = 1_000,
        seed: int = 1,
        **config: Any,
    ) -> None:
        self.id = id
        self.configuration = configuration
        self.disk = disk or Disk()
        self.now_ms = now_ms
        self.seed = seed
        self._config = {**TOLD_AT_ONCE, **config}
        #: Writes wait for `sync` while this is set.
        self.disk_holds = False
        self.start()

    def start(self) -> None:
        """Power on: everything but the disk is new."""
        self.core = RaftCore(
            CoreConfig(id=self.id, **self._config),
            self.configuration,
            random=Random(self.seed),
            now_ms=self.now_ms,
            hard_state=self.disk.hard_state,
            snapshot=self.disk.snapshot,
            entries=self.disk.entries,
        )
        self.outbox: list[Message] = []
        self.applied: list[Entry] = []
        self.read_states: list[ReadState] = []
        self._writes: list[tuple[Persist | None, tuple[Message, ...]]] = []

    restart = start

    # What a test asks

    @property
    def role(self) -> Role:
        return self.core.state.role

    @property
    def term(self) -> Term:
        return self.core.state.term

    @property
    def leads(self) -> bool:
        return self.role is Role.LEADER

    @property
    def commands(self) -> list[bytes]:
        """The commands applied in this life, in order."""
        return [e.data for e in self.applied if e.kind is EntryKind.COMMAND]

    @property
    def log_terms(self) -> list[Term]:
        log = self.core.log
        return [log.entry(index).term for index in range(log.first_index, log.last_index + 1)]

    @property
    def writes_waiting(self) -> int:
        return len(self._writes)

    def sent(self, kind: type | None = None, to: NodeId | None = None) -> list[Any]:
        """What left since the last look, of this kind and to this peer; all of it is taken."""
        taken, self.outbox = self.outbox, []
        return [m for m in taken if (kind is None or type(m) is kind) and (to is None or m.to == to)]

    def one_sent(self, kind: type, to: NodeId | None = None) -> Any:
        found = self.sent(kind, to)
        assert len(found) == 1, found
        return found[0]

    # What happens to it

    def receive(self, *messages: Message) -> "Replica":
        for message in messages:
            self.core.receive(message, self.now_ms)
        return self.drain()

    def pass_ms(self, milliseconds: int) -> "Replica":
        """Time passes, with a tick at the end."""
        self.now_ms += milliseconds
        self.core.tick(self.now_ms)
        return self.drain()

    def run_ms(self, milliseconds: int) -> "Replica":
        """Time passes, with a tick at every deadline on the way."""
        end_ms = self.now_ms + milliseconds
        while self.now_ms < end_ms:
            self.pass_ms(min(max(1, self.core.next_deadline_ms() - self.now_ms), end_ms - self.now_ms))
        return self

    def time_out(self) -> "Replica":
        """Let its election timeout pass."""
        assert not self.leads
        return self.pass_ms(max(0, self.core.next_deadline_ms() - self.now_ms))

    def propose(self, *commands: bytes) -> Index:
        index = self.core.propose(commands, self.now_ms)
        self.drain()
        return index

    def configure(self, configuration: Configuration) -> Index:
        index = self.core.propose_configuration(configuration, self.now_ms)
        self.drain()
        return index

    def read(self, context: int) -> "Replica":
        self.core.read(context, self.now_ms)
        return self.drain()

    def transfer(self, to: NodeId) -> bool:
        started = self.core.transfer_leadership(to, self.now_ms)
        self.drain()
        return started

    def take_snapshot(self, index: Index | None = None, *, retain: int = 0) -> SnapshotMeta:
        """Its own snapshot at `index` (its applied index without) is durable; `retain` entries stay in memory."""
        core = self.core
        index = core.applied_index if index is None else index
        meta = snapshotting.meta_at(core, index, core.log.entry(index).time_ms)
        core.snapshot_taken(meta, index + 1 - retain)
        self.disk.snapshot = meta
        self.disk.entries = [e for e in self.disk.entries if e.index > meta.index]
        self.drain()
        return meta

    # The Ready contract

    def drain(self) -> "Replica":
        """Do what the core wants until it wants nothing."""
        while ready := self.core.take_ready():
            self.outbox.extend(ready.messages)
            if ready.persist is not None and ready.persist.snapshot is not None:
                self.applied = []
                self.core.applied(ready.persist.snapshot.index)
            if ready.persist is not None or ready.messages_after_persist:
                self._writes.append((ready.persist, ready.messages_after_persist))
            if ready.committed:
                self.applied.extend(ready.committed)
                self.core.applied(ready.committed[-1].index)
            self.read_states.extend(ready.read_states)
            if not self.disk_holds:
                self._complete(len(self._writes))
        return self

    def sync(self, writes: int | None = None) -> "Replica":
        """Let the disk answer: the oldest `writes` of them, or all."""
        self._complete(len(self._writes) if writes is None else writes)
        return self.drain()

    def _complete(self, count: int) -> None:
        done, self._writes = self._writes[:count], self._writes[count:]
        for persist, messages in done:
            if persist is not None:
                self.disk.write(persist)
                self.core.persisted(persist, self.now_ms)
            self.outbox.extend(messages)


# Peers played by hand


def leader_of(
    configuration: Configuration = THREE, *, disk: Disk | None = None, id: NodeId = "a", **config: Any
) -> Replica:
    """A replica that won an election by its peers' votes and sent its no-op; nothing was acknowledged yet."""
    replica = Replica(id, configuration, disk=disk, **config)
    replica.time_out()
    for _ in range(2):
        for request in replica.sent(RequestVote):
            if not replica.leads:
                replica.receive(vote_reply(request))
    assert replica.leads
    return replica


def settled_leader(configuration: Configuration = THREE, **options: Any) -> Replica:
    """A leader whose log every peer holds, in state REPLICATE, with everything committed."""
    leader = leader_of(configuration, **options)
    acknowledge_all(leader)
    return leader


def follower_of(
    leader: NodeId = "b", term: Term = 1, *, disk: Disk | None = None, id: NodeId = "a", **options: Any
) -> Replica:
    """A replica that just heard a heartbeat of this leader."""
    replica = Replica(id, disk=disk, **options)
    replica.receive(append(leader, term, to=id))
    assert replica.core.state.leader == leader
    replica.sent()
    return replica


def vote_reply(request: RequestVote, *, granted: bool = True, term: Term | None = None) -> RequestVoteReply:
    if term is None:
        term = request.term if granted or not request.pre_vote else request.term - 1
    return RequestVoteReply(request.to, request.sender, term, request.sequence, granted, request.pre_vote)


def append(
    sender: NodeId,
    term: Term,
    previous: tuple[Index, Term] = (0, 0),
    new: Sequence[Entry] = (),
    *,
    to: NodeId = "a",
    commit: Index = 0,
    sequence: int = 1,
) -> AppendEntries:
    return AppendEntries(sender, to, term, sequence, previous[0], previous[1], commit, tuple(new))


def vote_request(
    sender: NodeId,
    term: Term,
    last: tuple[Index, Term] = (0, 0),
    *,
    to: NodeId = "a",
    pre_vote: bool = False,
    transfer: bool = False,
    sequence: int = 1,
) -> RequestVote:
    return RequestVote(sender, to, term, sequence, last[0], last[1], pre_vote, transfer)


def acknowledge(request: AppendEntries, *, applied: Index = 0) -> AppendEntriesReply:
    """The follower has it all, durably."""
    match = request.prev_log_index + len(request.entries)
    return AppendEntriesReply(
        request.to, request.sender, request.term, request.sequence, True, match, applied_index=applied
    )


def refuse(request: AppendEntries, hint_index: Index, hint_term: Term) -> AppendEntriesReply:
    return AppendEntriesReply(
        request.to,
        request.sender,
        request.term,
        request.sequence,
        False,
        rejected_index=request.prev_log_index,
        hint_index=hint_index,
        hint_term=hint_term,
    )


def acknowledge_all(leader: Replica, *peers: NodeId) -> None:
    """Every peer (or these) acknowledges whatever the leader sends, until it sends nothing more."""
    while requests := leader.sent(AppendEntries):
        leader.receive(*(acknowledge(r) for r in requests if not peers or r.to in peers))


def heartbeat(leader: Replica) -> list[AppendEntries]:
    """Let the heartbeat interval pass; what it sent."""
    leader.sent()
    leader.pass_ms(max(0, leader.core.next_deadline_ms() - leader.now_ms))
    return leader.sent(AppendEntries)
