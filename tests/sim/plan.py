"""What one seed does: swarm testing. Each seed enables a random part of all faults at random intensity, because a run
with every fault at once hides what a few of them do together."""

from dataclasses import dataclass, field
from random import Random

#: Every kind of fault that the nemesis knows, with its relative weight where it is enabled.
FAULT_WEIGHTS = {
    "crash": 5,
    "crash_all": 1,
    "crash_at_boundary": 4,
    "crash_leader": 3,
    "pause": 4,
    "pause_leader": 3,
    "cut_node": 3,
    "cut_one_way": 3,
    "cut_halves": 3,
    "swizzle": 2,
    "fsync_error": 2,
    "slow_disk": 3,
    "disk_hang": 2,
    "disk_full": 2,
    "bit_flip": 2,
    "membership": 8,
    "lonely_change": 3,
    "transfer": 4,
    "peer_lost": 3,
    "burst": 3,
    "left_behind": 5,
    "rivals": 6,
}
MACHINES = ("small", "lock", "queue", "cache")


@dataclass(slots=True)
class Plan:
    """All chances of one seed that are settled before it starts. Times in microseconds unless the name says ms."""

    seed: int
    #: Events of the phase with faults.
    events: int
    node_count: int
    machine: str
    heartbeat_ms: int
    election_timeout_min_ms: int
    election_timeout_max_ms: int
    pre_vote: bool
    check_quorum: bool
    delay_min_us: int
    delay_max_us: int
    slow_max_us: int
    loss_permille: int
    duplicate_permille: int
    slow_permille: int
    reorder: bool
    disk_min_us: int
    disk_max_us: int
    clock_spread_permille: int
    #: Own snapshots are taken at multiples of this index; 0: never.
    snapshot_every: int
    #: Entries kept in the log behind a snapshot.
    retain: int
    snapshot_write_us: int
    #: Feed several events before draining one Ready.
    batching_us: int
    #: Report only the last of several writes that one fsync made durable.
    group_completions: bool
    append_entries_max: int
    append_bytes_max: int
    inflight_messages_max: int
    inflight_bytes_max: int
    uncommitted_bytes_max: int
    committed_entries_max: int
    learner_lag_max: int
    client_count: int
    think_us: int
    key_count: int
    read_permille: int
    value_bytes: int
    #: Length of read leases; 0: none.
    lease_ms: int
    fault_gap_us: int
    fault_length_us: int
    faults: dict[str, int] = field(default_factory=dict)
    #: Each start of a node draws by itself whether it has PreVote: as where it is switched on node by node.
    pre_vote_mixed: bool = False


def draw_plan(seed: int, events: int, machine: str = "") -> Plan:
    """The plan of `seed`. The same arguments give the same plan."""
    random = Random(f"plan {seed}")
    heartbeat_ms = random.choice((10, 20, 50))
    timeout_min_ms = heartbeat_ms * random.choice((3, 3, 4))
    quick = random.random() < 0.6
    faults = {
        kind: weight * random.choice((1, 1, 2, 5))
        for kind, weight in FAULT_WEIGHTS.items()
        if random.random() < 0.45
    }
    if random.random() < 0.06:
        faults = {}
    disk_max_us = random.choice((0, 200, 2_000, 10_000, 40_000, 150_000))
    return Plan(
        seed=seed,
        events=events,
        node_count=random.choice((1, 2, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 6, 7)),
        machine=machine or random.choice(MACHINES),
        heartbeat_ms=heartbeat_ms,
        election_timeout_min_ms=timeout_min_ms,
        election_timeout_max_ms=timeout_min_ms * 2,
        pre_vote=random.random() < 0.85,
        check_quorum=random.random() < 0.8,
        delay_min_us=random.choice((50, 500)),
        delay_max_us=random.choice((600, 3_000, heartbeat_ms * 700)),
        slow_max_us=timeout_min_ms * random.choice((1_000, 4_000)),
        loss_permille=random.choice((0, 0, 10, 50, 200)),
        duplicate_permille=random.choice((0, 0, 20, 100, 300)),
        slow_permille=random.choice((0, 0, 10, 50, 200)),
        reorder=random.random() < 0.6,
        disk_min_us=random.choice((0, 50, disk_max_us // 2)),
        disk_max_us=disk_max_us,
        clock_spread_permille=random.choice((0, 0, 10, 100)),
        snapshot_every=random.choice((0, 4, 4, 7, 7, 15, 40)),
        retain=random.choice((0, 0, 3, 20)),
        snapshot_write_us=random.choice((100, 5_000, 60_000)),
        batching_us=random.choice((0, 0, 0, 300, 2_000)),
        group_completions=random.random() < 0.5,
        append_entries_max=random.choice((1, 2, 8, 1024)),
        append_bytes_max=random.choice((50, 400, 1 << 20)),
        inflight_messages_max=random.choice((1, 2, 8, 64)),
        inflight_bytes_max=random.choice((100, 1_000, 8 << 20)),
        uncommitted_bytes_max=random.choice((300, 3_000, 32 << 20)),
        committed_entries_max=random.choice((1, 3, 2048)),
        learner_lag_max=random.choice((0, 2, 64)),
        client_count=random.choice((1, 2, 4, 8)),
        think_us=heartbeat_ms * random.choice((300, 2_000, 8_000)),
        key_count=random.choice((1, 2, 5)),
        read_permille=random.choice((100, 300, 600)),
        value_bytes=random.choice((1, 20, 120)),
        lease_ms=random.choice((0, timeout_min_ms, timeout_min_ms * 2)),
        fault_gap_us=timeout_min_ms * (1_000 if quick else 4_000),
        fault_length_us=timeout_min_ms * random.choice((1_000, 3_000, 8_000)),
        faults=faults,
        pre_vote_mixed=random.random() < 0.2,
    )
