"""Bugs of a node's life: start, stop, disk threads, the way between nodes."""

from tests.shell.planted import Planted

_FORWARD_REPLY = """\
        if leader != message.sender:
            return
        del self._forwarded[message.batch]
"""
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
        "batches_are_numbered_anew_in_each_life",
        "a client gets the result of another command",
        "lock",
        (
            ("raft.proposals:Proposals.__init__", "random.getrandbits(61)", "0"),
            (
                "raft.proposals:Proposals.on_forward_reply",
                _FORWARD_REPLY,
                "        self._forwarded.pop(message.batch, None)\n",
            ),
        ),
    ),
    Planted(
        "posts_wait_for_a_node_that_has_ended",
        "a node that stops leaves handlers behind",
        "lock",
        (
            ("raft.node:RaftNode._end", "settle(future, None)", "pass"),
            ("raft.node:RaftNode.call", "settle(earlier, None)", "pass"),
        ),
    ),
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
]
