"""RaftNode: one replica of one group, driven by asyncio.

Everything that happens (messages, completions of the disk, proposals, reads, time) is put into an inbox, and one
callback, `_run`, takes a turn (`raft.replica`) for all of it. It never awaits. What arrives while the disk works is
the next batch; there is no timer, task, lock or fsync per entry.

A node answers a proposal when it has itself applied the entry, whoever leads, so a client that wrote through a
node can read its write there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Protocol

from common.chance import SYSTEM_RANDOM
from common.runtime import settle
from raft.alarm import WAKE_MS, Alarm
from raft.core import leases
from raft.core.messages import (
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    RequestVoteReply,
)
from raft.core.raft import RaftCore
from raft.core.ready import Persist
from raft.core.types import Configuration, Index, NodeId, Role, Term
from raft.disk import DiskQueue
from raft.errors import Overloaded, RaftError, Stopping, StorageFailed, TooLarge
from raft.handover import hand_over
from raft.inquiries import Inquiries, InquiryTransport
from raft.life import ANY_LIFE, UNKNOWN_LIFE
from raft.membership import Membership, MemberTransport
from raft.peer_messages import PeerMessage
from raft.remarks import Remarks
from raft.replica import Replica
from raft.snapshot_transfer import SnapshotSender
from raft.snapshotter import Snapshotter
from raft.state_machine import StateMachine
from raft.status import NodeConfig, NodeStatus, why_no_leader
from raft.storage import Recovered, Storage
from raft.transport.limits import COMMAND_BYTES_MAX, check_limits
from raft.versions import Versions

#: What listeners hear, with the error that everybody is told from now on, when this node takes no more requests.
CLOSED_TOPIC = "raft.closed"
#: How long a stopping node may take to say what its clients that wait must have said before it leaves.
PARTING_SECONDS_MAX = 1.0
#: Submissions that may wait for the disk before messages are no longer made to wait behind them.
DISK_WAITING_MAX = 1_000
_BARRIER = Persist(hard_state=None, entries=())
_REPLIES = (AppendEntriesReply, RequestVoteReply, InstallSnapshotReply)


class Transport(SnapshotSender, MemberTransport, InquiryTransport, Protocol):
    """How a node reaches its peers."""

    def send(self, message: PeerMessage) -> bool:
        """Hand over a message without blocking. False where it is certain that it was not sent."""

    def is_connected(self, peer: NodeId) -> bool: ...


class RaftNode(Replica):
    """One replica. `start` it inside a running loop; `stop` hands leadership over first.

    Args:
        on_fatal: told once of an error that this process must not survive (a storage error, a bug).
        admitted: False where the disk is empty and nobody has said yet that this node may take part.
        incarnation: of the disk's data; the group binds this node's id to it. Empty: nobody asks for it.
        life: which life of the group the disk's data is of, where a file says so.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        machine: StateMachine,
        storage: Storage,
        disk: DiskQueue,
        recovered: Recovered,
        transport: Transport,
        clock_ms: Callable[[], int],
        on_fatal: Callable[[BaseException], None],
        observe_propose_seconds: Callable[[float], None] = lambda seconds: None,
        admitted: bool = True,
        incarnation: str = "",
        life: str = UNKNOWN_LIFE,
        random: Random = SYSTEM_RANDOM,
    ) -> None:
        check_limits(config.core)
        core = RaftCore(
            config.core,
            Configuration(voters=tuple(sorted(config.voters))),
            random=Random(random.getrandbits(64)),
            now_ms=clock_ms(),
            hard_state=recovered.hard_state,
            snapshot=recovered.snapshot,
            entries=recovered.entries,
        )
        super().__init__(core, machine, clock_ms, random)
        self.config = config
        self.group = config.group
        self._clock_ms = clock_ms
        self.disk = disk
        self._transport = transport
        self._on_fatal = on_fatal
        self._observe_propose_seconds = observe_propose_seconds
        self._loop = asyncio.get_running_loop()
        self.snapshotter = Snapshotter(self, storage, transport)
        self.membership = Membership(self, transport)
        self.inquiries = Inquiries(self, transport)
        self.versions = Versions(self)
        self.admitted = admitted
        #: How far the group's log was committed when a leader took this node in, in this life of the process.
        self.admitted_index: Index = 0
        self.incarnation = incarnation
        #: Once it is known it never changes; see `life`. Where log and file differ, the log is right.
        self._life = self.core.log.snapshot.configuration.life or life
        #: Why this node takes no part, where the group has said so or has not said anything yet (raft.admission).
        self.hindrance = ""
        #: Told of every configuration that is used from now on.
        self.on_configuration: Callable[[Configuration], None] = lambda configuration: None
        self._configuration = self.core.configuration
        self._messages: list[PeerMessage] = []
        self._durable: list[tuple[Persist, tuple[PeerMessage, ...]]] = []
        self._lost_peers: list[NodeId] = []
        #: Requests that came by POST and whose reply goes back on it: (peer, sequence) -> future.
        self._rpcs: dict[tuple[NodeId, int], asyncio.Future[Message | None]] = {}
        self._scheduled = False
        #: No further turn is taken.
        self._has_ended = False
        self._alarm = Alarm(clock_ms, self.wake)
        self._wake_ms = min(WAKE_MS, self._stall_ms // 2)
        self.started_ms = clock_ms()
        #: Why nothing is accepted any more.
        self._closed: RaftError | None = None
        #: What is awaited of a node that stops, between its last client and its leaving.
        self.before_leaving: list[Callable[[], Awaitable[None]]] = []
        self._is_parting = False
        #: The disk has no room, and writes wait for some.
        self.is_disk_full = False
        self._remarks = Remarks(self)

    # For clients of the group

    async def propose(self, command: bytes, *, parting: bool = False) -> Any:
        """Replicate `command` and return its answer once this node has applied it. With `parting` it is what is left
        to be said for clients that have gone, which a node that stops takes still.

        Raises:
            NoLeader, NoQuorum, Overloaded, TooLarge, Stopping, StorageFailed: certainly not done.
            OutcomeUnknown: it may or may not have been done, now or later.
        """
        if self._closed is not None and not (parting and self._is_parting):
            raise self._closed
        if self.is_disk_full:
            raise StorageFailed("this node's disk is full; ask another one, or free some space")
        if len(command) > COMMAND_BYTES_MAX:
            raise TooLarge(f"the command takes {len(command)} bytes; {COMMAND_BYTES_MAX} are the most")
        waiting_bytes, config = self.proposals.memory_bytes, self.config
        too_much = waiting_bytes and waiting_bytes + len(command) > config.proposals_bytes_max
        if too_much or len(self.proposals) >= config.proposals_max:
            raise Overloaded("this node has too many requests under way")
        now_ms = self._clock_ms()
        future = self._loop.create_future()
        self.proposals.add(
            command,
            future,
            place_by_ms=now_ms + self.config.leader_wait_ms,
            settle_by_ms=now_ms + self.config.request_timeout_ms,
        )
        self.wake()
        result = await future
        self._observe_propose_seconds((self._clock_ms() - now_ms) / 1000)
        return result

    async def read_index(self) -> None:
        """Return when this node's machine holds everything that was committed when this was called.

        The caller reads the machine with no await in between. Raises NoLeader, Overloaded, Stopping.
        """
        if self._closed is not None:
            raise self._closed
        if len(self.reads) >= self.config.core.reads_waiting_max:
            raise Overloaded("this node has too many reads under way")
        future = self._loop.create_future()
        self.reads.add(future, give_up_ms=self._clock_ms() + self.config.leader_wait_ms)
        self.wake()
        await future

    def may_serve_locally(self) -> bool:
        """Whether this node's read lease is valid at this moment. Ask after the value was picked up, and answer
        with no await in between."""
        return leases.is_valid(self.core, self._clock_ms())

    def removal_unknown_ms(self) -> int:
        """What this node applied this long ago is certainly known to every node that serves by a read lease."""
        return leases.removal_unknown_ms(self.core)

    def applied_time_ms(self) -> int:
        """Cluster time of the last entry that this node has applied."""
        return self.applier.applied_time_ms

    def cluster_time_ms(self) -> int:
        """This node's estimate of the group's clock, for answers such as remaining times; never for apply."""
        return self.core.estimated_time_ms(self._clock_ms())

    def status(self) -> NodeStatus:
        return NodeStatus.of(self, self._clock_ms())

    @property
    def leads(self) -> bool:
        return self.core.state.role is Role.LEADER

    def silence_ms(self, member: NodeId) -> int | None:
        """Leader: how long `member` has not answered; None where this node does not lead or knows no such member."""
        progress = self.core.progress.get(member)
        return None if progress is None else self._clock_ms() - progress.acked_sent_ms

    @property
    def is_member(self) -> bool:
        return self.id in self.core.configuration.members

    @property
    def closed(self) -> RaftError | None:
        """Why nothing is accepted any more; None while this node serves."""
        return self._closed

    @property
    def log_bytes(self) -> int:
        return self.disk.log_bytes

    @property
    def life(self) -> str:
        """Which life of the group this node's data is of, as far as that is committed (`raft.life`)."""
        if not self._life:
            log = self.core.log
            self._life = self.core.configurations.at(log.commit_index).life
            if not self._life and log.last_index == 0:
                return ANY_LIFE
        return self._life

    def now_ms(self) -> int:
        return self._clock_ms()

    def connected_peers(self) -> tuple[NodeId, ...]:
        peers = (peer for peer in self.core.configuration.members if peer != self.id)
        return tuple(peer for peer in peers if self._transport.is_connected(peer))

    # For the transport

    def receive(self, message: PeerMessage) -> None:
        """A peer's message arrived."""
        self._messages.append(message)
        self.wake()

    async def call(self, message: Message, timeout_s: float) -> Message | None:
        """A peer's request arrived by POST: its reply, or None where there is none in time or this node has ended."""
        if self._has_ended:
            return None
        key = (message.sender, message.sequence)
        # Of an earlier life of the sender, which has gone.
        if (earlier := self._rpcs.pop(key, None)) is not None:
            settle(earlier, None)
        future = self._rpcs[key] = self._loop.create_future()
        self.receive(message)
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return None
        finally:
            if self._rpcs.get(key) is future:
                del self._rpcs[key]

    def peer_lost(self, peer: NodeId) -> None:
        """The connection to `peer` broke or was refused."""
        self._lost_peers.append(peer)
        self.wake()

    # Life

    def start(self) -> None:
        """Begin to take part."""
        self.disk.start()
        self._last_wake_ms = self._clock_ms()
        self.wake()

    async def stop(self, handover_s: float = 1.0) -> None:
        """Stop taking requests, say what is left to be said, hand leadership over if this node has it, answer whoever
        waits, close the disk."""
        if self._closed is None:
            self._is_parting = True
            self._close(Stopping("this node is stopping; ask another one"))
            await self._part()
            if handover_s and self.core.state.role is Role.LEADER:
                await hand_over(self, handover_s)
        assert self._closed is not None
        self._end(self._closed)
        self._alarm.cancel()
        await self.snapshotter.stop()
        await self.disk.close()

    async def _part(self) -> None:
        """What is not said in time is said by others: the leader ends the waits of a node that has gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PARTING_SECONDS_MAX):
                await asyncio.gather(*(each() for each in self.before_leaving))
        self._is_parting = False

    def admit(self, term: Term, vote: NodeId, commit_index: Index = 0) -> None:
        """This node, which holds nothing, takes part from `term` on, having voted for `vote` in it, and serves once
        it has applied what the group had committed up to `commit_index`."""
        self.core.admit(term, vote, self._clock_ms())
        self.admitted_index = commit_index
        self.admitted = True
        self.wake()

    def propose_configuration(self, configuration: Configuration) -> Index:
        """As `RaftCore.propose_configuration`, which see."""
        self.wake()
        return self.core.propose_configuration(configuration, self._clock_ms())

    def transfer_leadership(self, to: NodeId) -> bool:
        """Begin to hand leadership to `to`. False where that is not possible now."""
        started = self.core.transfer_leadership(to, self._clock_ms())
        self.wake()
        return started

    def disk_full(self, full: bool) -> None:
        """The disk has no room, or has room again. A leader without room hands the group to others."""
        self.is_disk_full = full
        if full:
            self.core.stalled(self._clock_ms())
        self.wake()

    def fail(self, error: BaseException) -> None:
        """This replica must not go on: answer whoever waits, tell the process."""
        if isinstance(self._closed, StorageFailed):
            return
        failed = StorageFailed("this node's storage failed; ask another one")
        self._close(failed)
        self._end(failed)
        self._on_fatal(error)

    def _close(self, why: RaftError) -> None:
        self._closed = why
        self.applier.announce(CLOSED_TOPIC, why)

    def _end(self, error: RaftError) -> None:
        """Take no further turn, and let nobody wait for one."""
        self._has_ended = True
        self.proposals.fail_all(error)
        self.reads.fail_all(error)
        self.membership.fail_all(error)
        for future in self._rpcs.values():
            settle(future, None)

    # The run loop

    def wake(self) -> None:
        if not self._scheduled and not self._has_ended:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        """One turn for all that has arrived. Runs to completion, never awaits."""
        if self._has_ended:
            return
        try:
            self._scheduled = False
            now_ms = self._clock_ms()
            self.notice_stall(now_ms)
            messages, self._messages = self._messages, []
            lost_peers, self._lost_peers = self._lost_peers, []
            if not self.admitted:
                # The core of a node that is not admitted is fed nothing; requests are refused in time.
                self.expire(now_ms)
                self._alarm.set(now_ms + self._wake_ms, now_ms)
                return
            if self.core.configuration.learners:
                self.core.held_back = self.versions.held_back()
            self.turn(now_ms, messages, lost_peers)
            self.snapshotter.release_log()
            self._set_alarm(now_ms)
            self._remarks.observe(now_ms)
            if self.core.configuration is not self._configuration:
                self._configuration = self.core.configuration
                self.on_configuration(self._configuration)
        except Exception as error:
            self.fail(error)

    def _set_alarm(self, now_ms: int) -> None:
        due_ms = min(self.core.next_deadline_ms(), now_ms + self._wake_ms)
        if self.core.state.role is Role.LEADER:
            machine_due_ms = self.machine.next_due_ms()
            if machine_due_ms is not None:
                due_ms = min(due_ms, now_ms + max(1, machine_due_ms - self.core.cluster_time_ms(now_ms)))
        self._alarm.set(due_ms, now_ms)

    # What a turn needs (raft.replica)

    def feed_completions(self, now_ms: int) -> None:
        durable, self._durable = self._durable, []
        for persist, messages in durable:
            if persist is not _BARRIER:
                self.core.persisted(persist, now_ms)
            if persist.snapshot is not None:
                self.snapshotter.restore(persist.snapshot)
            for message in messages:
                self.dispatch(message)

    def send(self, message: PeerMessage) -> bool:
        if self._rpcs and isinstance(message, _REPLIES):
            future = self._rpcs.pop((message.to, message.sequence), None)
            if future is not None and not future.done():
                future.set_result(message)
                return True
        if isinstance(message, InstallSnapshot):
            self.snapshotter.send(message)
            return True
        return self._transport.send(message)

    def write(self, persist: Persist | None, messages: tuple[PeerMessage, ...]) -> None:
        if persist is None:
            if self.disk.statistics().waiting >= DISK_WAITING_MAX:
                # On a disk that is full or hangs every heartbeat adds another reply. Beyond the limit they are as
                # good as lost on the way, which costs nothing but another try.
                return
            persist = _BARRIER
        self.disk.submit(persist, partial(self._on_durable, persist, messages))

    def _on_durable(self, persist: Persist, messages: tuple[PeerMessage, ...]) -> None:
        self._durable.append((persist, messages))
        self.wake()

    def maybe_take_snapshot(self) -> None:
        self.snapshotter.maybe_take()

    def why_no_leader(self) -> RaftError:
        return why_no_leader(self)
