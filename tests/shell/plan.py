"""What one seed does: swarm testing. Each seed enables a random part of all faults and manners, at random
intensity."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from raft.replica import TURN_WORK_MAX

#: Every kind of fault that the nemesis knows, with its weight where it is enabled.
FAULT_WEIGHTS = {
    "kill": 4,
    "kill_leader": 4,
    "stop": 3,
    "stop_leader": 2,
    "power_off": 3,
    "power_off_all": 1,
    "freeze": 4,
    "freeze_leader": 3,
    "suspend": 2,
    "cut_node": 3,
    "cut_leader": 3,
    "cut_one_way": 4,
    "cut_pair": 3,
    "cut_clients": 2,
    "reset_connections": 4,
    "lossy": 2,
    "slow_links": 2,
    "slow_disk": 3,
    "hang_disk": 2,
    "full_disk": 2,
    "failing_sync": 2,
    "clock_drifts": 2,
    "clock_stops": 1,
    "clock_jumps": 1,
    "busy": 3,
    "few_descriptors": 1,
    "lost_disk": 2,
    "member_leaves": 2,
    "member_joins": 1,
    "other_lease": 2,
}
#: Whoever is away for a moment needs a snapshot.
SMALL_SNAPSHOTS = {"MUFAKAT_SNAPSHOT_ENTRIES": "10", "MUFAKAT_LOG_RETAINED_BYTES_MAX": "0"}
#: How a client may behave, with how often it does so at each request, in permille, where it is enabled.
MANNERS = {
    "vanishes": 120,
    "impatient": 120,
    "dawdles_writing": 60,
    "dawdles_reading": 60,
    "pipelines": 100,
    "repeats": 100,
    "overstays": 150,
    "forgets": 80,
    "sends_much": 20,
    "abandons": 120,
    "doubles": 120,
    "gives_up": 200,
    "reuses_keys": 60,
}
#: Lengths of read leases that nodes are set to.
LEASES_MS = (150, 400, 600, 1_500)
#: So little that a start, or a node that catches up, takes many turns.
TURN_WORK_FEW = 30
SERVICES = ("lock", "queue", "cache")
GROUPS: tuple[tuple[str, ...], ...] = (("lock",), ("queue",), ("cache",), SERVICES)
#: Not where the cache is. Its read leases count on clocks that differ in rate by so many percent at most, at any
#: moment (docs/coherence.md). A clock that jumps by itself takes the time of a lease away from its leader while the
#: holder serves on, and one that stands still gives it to the holder. (One that is frozen or suspended is another
#: thing: it does nothing meanwhile, and CLOCK_BOOTTIME goes on.)
OUTSIDE_OF_LEASES = ("clock_stops", "clock_jumps")


@dataclass(slots=True)
class Plan:
    """All chances of one seed that are settled before it starts."""

    seed: int
    node_count: int
    groups: tuple[str, ...]
    #: By variable.
    settings: dict[str, str]
    #: Of the read leases, by node: most often all have the same.
    leases_ms: list[int]
    #: The phase with faults, in seconds of the world.
    duration_s: float
    client_count: int
    key_count: int
    #: Behind it a leader is cut off for so long, and nothing else happens but that it may be told to stop.
    silence_s: float
    #: Mean pause of a client between two requests.
    think_s: float
    delay_us: tuple[int, int]
    split_permille: int
    #: How much faster or slower clocks run, at most.
    drift_permille: int
    fault_gap_s: float
    fault_length_s: float
    #: Changes of the cache that a node keeps for watchers who come again; and that may wait for one watcher.
    history_max: int
    buffer_max: int
    #: Work after which a turn of a node applies no further entry (`Replica.turn_work_max`).
    turn_work_max: int = TURN_WORK_MAX
    #: What goes wrong right before all is mended (`Nemesis.end`), so that clients still wait then; "": nothing.
    ending: str = ""
    faults: dict[str, int] = field(default_factory=dict)
    manners: dict[str, int] = field(default_factory=dict)


def draw_plan(seed: int, group: str = "") -> Plan:
    """The plan of `seed`: the same one each time. `group`: of this one alone, whatever was drawn."""
    random, beside = Random(f"plan {seed}"), Random(f"plan beside {seed}")
    heartbeat_ms = random.choice((40, 70, 100))
    timeout_ms = heartbeat_ms * random.choice((4, 6, 8))
    groups = random.choice(GROUPS)
    request_ms = random.choice((600, 1_200, 1_800))
    plan = Plan(
        seed=seed,
        node_count=random.choice((1, 2, 3, 3, 3, 3, 3, 3, 5)),
        groups=(group,) if group else groups,
        settings={
            "MUFAKAT_HEARTBEAT_MS": str(heartbeat_ms),
            "MUFAKAT_ELECTION_TIMEOUT_MIN_MS": str(timeout_ms),
            "MUFAKAT_ELECTION_TIMEOUT_MAX_MS": str(timeout_ms * 2),
            "MUFAKAT_REQUEST_TIMEOUT_MS": str(request_ms),
            "MUFAKAT_LEADER_WAIT_MS": str(random.choice((request_ms // 2, request_ms))),
            "MUFAKAT_SNAPSHOT_ENTRIES": str(random.choice((10, 20, 50, 100_000))),
            "MUFAKAT_WAL_SEGMENT_BYTES": str(random.choice((4_096, 16_384, 1 << 20))),
            "MUFAKAT_LOG_RETAINED_BYTES_MAX": str(random.choice((0, 2_000, 32 << 20))),
            "MUFAKAT_WAITER_GONE_MS": str(random.choice((500, 2_000))),
            "MUFAKAT_PROPOSALS_MAX": str(random.choice((3, 10_000, 10_000))),
            "MUFAKAT_CACHE_LEASE_DRIFT_PERCENT": "5",
        },
        leases_ms=random.choice(([random.choice(LEASES_MS)] * 5, random.choices(LEASES_MS, k=5))),
        duration_s=random.choice((3.0, 5.0, 7.0)),
        silence_s=random.choice((0.0,) * 9 + (9.0,)),
        client_count=random.choice((2, 3, 5, 8)),
        key_count=random.choice((1, 2, 4)),
        think_s=random.choice((0.01, 0.02, 0.1, 0.3)),
        delay_us=random.choice(((50, 300), (200, 3_000), (1_000, 30_000))),
        split_permille=random.choice((0, 0, 50, 300)),
        drift_permille=random.choice((0, 0, 10, 20)),
        fault_gap_s=random.choice((0.3, 0.8, 2.0)),
        fault_length_s=random.choice((0.2, 0.8, 2.5)),
        history_max=beside.choice((2, 20, 10_000)),
        buffer_max=beside.choice((2, 10, 10_000)),
        faults={
            kind: weight * random.choice((1, 1, 2, 5))
            for kind, weight in FAULT_WEIGHTS.items()
            if random.random() < 0.4
        },
        manners={
            kind: permille * random.choice((1, 1, 3)) for kind, permille in MANNERS.items() if random.random() < 0.6
        },
    )
    random = Random(f"plan {seed}, the rest")
    plan.turn_work_max = random.choice((TURN_WORK_MAX, TURN_WORK_FEW))
    if "lock" in plan.groups:
        plan.ending = random.choice(("", "kills", "stop", "stop", "cut", "full_disk"))
        if random.random() < 0.4:
            plan.settings |= SMALL_SNAPSHOTS
    if "cache" in plan.groups:
        for kind in OUTSIDE_OF_LEASES:
            plan.faults.pop(kind, None)
    return plan
