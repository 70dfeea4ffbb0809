"""Bugs of a node's life: start, stop, disk threads, the way between nodes."""

from tests.shell.planted import Planted

_SYNC_THAT_FAILS = """\
            except OSError as error:
                if error.errno != 5:
                    raise
                written = 1
                break
            except DiskFull:
"""

PLANTED = [
    Planted(
        "told_before_it_is_synced",
        "an ok does not survive a power loss",
        "lock",
        (("raft.storage.wal:Wal.write", "writer.sync()", "pass"),),
    ),
    Planted(
        "failed_sync_is_taken_for_done",
        "an ok does not survive a power loss after a failed sync",
        "lock",
        (("raft.disk:DiskQueue._write_batch", "            except DiskFull:\n", _SYNC_THAT_FAILS),),
    ),
    Planted(
        "transfer_of_a_snapshot_ends_untold",
        "a follower that needs a snapshot never gets another",
        "lock",
        (("raft.snapshot_transfer:SnapshotSending._report", "if wanted:", "if wanted and delivered:"),),
    ),
    Planted(
        "silent_stream_stays_connected",
        "a stream whose packets vanish is used for minutes",
        "lock",
        (("raft.transport.silence:break_on_silence", "if connection is None:", "if True:"),),
    ),
    Planted(
        "restored_machine_is_not_announced",
        "a node that installed a snapshot does not go on",
        "lock",
        (("raft.snapshotter:Snapshotter._restore", "node.on_restored(wanted)", "node.core.applied(wanted.index)"),),
    ),
    Planted(
        "link_ends_at_an_odd_error",
        "a node ends because a peer did not answer in time",
        "lock",
        (
            (
                "raft.transport.client:PeerLink._keep_connected",
                "except (aiohttp.ClientError, TimeoutError, OSError) as error:",
                "except aiohttp.ClientConnectorError as error:",
            ),
        ),
    ),
    Planted(
        "lock_ends_early",
        "a lock ends before its time",
        "lock",
        (("services.lock.replicated.tables:LockTables.has_expired", "self.time_ms", "self.time_ms + 200"),),
    ),
    Planted(
        "disk_that_is_full_is_fatal",
        "a node whose disk is full ends",
        "lock",
        (("raft.disk:DiskQueue._write_batch", "except DiskFull:", "except ZeroDivisionError:"),),
    ),
    Planted(
        "stop_waits_for_what_cannot_be_said",
        "a stop hangs as long as no leader is there",
        "lock",
        (("raft.node:RaftNode._part", "asyncio.timeout(PARTING_SECONDS_MAX)", "asyncio.timeout(None)"),),
    ),
    Planted(
        "turn_applies_all_that_there_is",
        "the work of a turn has no bound",
        "lock",
        (("raft.replica:Replica._apply", " and self.turn_work < self.turn_work_max", ""),),
    ),
    Planted(
        "reads_are_answered_at_once",
        "a read does not see what was acknowledged before it",
        "lock",
        (("raft.node:RaftNode.read_index", "        await future\n", ""),),
    ),
    Planted(
        "request_is_never_given_up",
        "a node without a quorum leaves its clients without an answer",
        "lock",
        (
            (
                "raft.node:RaftNode.propose",
                "settle_by_ms=now_ms + self.config.request_timeout_ms",
                "settle_by_ms=now_ms + 3_600_000",
            ),
        ),
    ),
    Planted(
        "proposals_are_counted_for_ever",
        "a node refuses everything after a while",
        "lock",
        (("raft.proposals:Proposals._leave", "self._count -= 1", "self._count -= 0"),),
    ),
    Planted(
        "full_disk_is_never_forgotten",
        "a node whose disk has room again refuses writes",
        "lock",
        (
            (
                "raft.node:RaftNode.disk_full",
                "self.is_disk_full = full",
                "self.is_disk_full = self.is_disk_full or full",
            ),
        ),
    ),
    Planted(
        "time_begins_anew_with_a_leader",
        "locks live too long after a change of leader",
        "lock",
        (("raft.core.cluster_time:begin", "_standing_ms(raft)", "0"),),
    ),
]
