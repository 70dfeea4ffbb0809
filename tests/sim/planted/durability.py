"""What is on the disk, and messages that leave before it is."""

from tests.sim.planted import Bug

BUGS = (
    Bug(
        "entries_acknowledged_before_fsync",
        (3, 53),
        "raft.core.server:Server._must_wait_for_disk",
        "return message.success and message.match_index > self.log.durable_index",
        "return False",
    ),
    Bug(
        "snapshot_acknowledged_before_fsync",
        (52, 53),
        "raft.core.log:RaftLog.restore",
        "self.durable_index = 0",
        "self.durable_index = snapshot.index",
    ),
    Bug(
        "driver_sends_before_the_disk_answered",
        (3, 53),
        "tests.sim.node:SimNode._enqueue",
        "disk.queue.append(Write(persist, after, data))",
        "disk.queue.append(Write(persist, (), data)); [self.send(message) for message in after]",
    ),
    Bug(
        "failed_fsync_is_taken_for_done",
        (54, 55),
        "tests.sim.node:SimNode._on_synced",
        "self.crash()",
        "done = [disk.queue.popleft() for _ in range(disk.syncing)]; disk.syncing = 0; self._complete(done)",
    ),
    Bug(
        "record_behind_a_torn_one_is_read",
        (56, 57),
        "tests.sim.disk:SimDisk.crash",
        "whole = False",
        "pass",
    ),
    Bug(
        "suffix_on_disk_is_not_cut",
        (26, 57),
        "tests.sim.disk:SimDisk.write_entry",
        "del self.entries[entry.index - self.base_index - 1 :]",
        "del self.entries[entry.index - self.base_index - 1 : entry.index - self.base_index]",
    ),
    Bug(
        "damage_is_taken_for_the_end_of_the_log",
        (58,),
        "tests.sim.disk:SimDisk.recover",
        "raise DamagedDisk",
        "del self.entries[len(self.entries) // 2 :]",
    ),
    Bug(
        "wiped_node_returns_under_its_old_name",
        (63,),
        "tests.sim.disk:SimDisk.recover",
        "raise DamagedDisk",
        "self.__init__()",
    ),
    Bug(
        "entries_never_reach_the_disk_again",
        (27,),
        "raft.core.log:RaftLog.append",
        "self.submitted_index = min(self.submitted_index, first - 1)",
        "pass",
    ),
)
