"""Every metric of a node, declared once, under the name that the docs and dashboards use.

The rule of the file: no label ever carries a key, a client, a session or a message id, so the number of series is
bounded. One `Metrics` belongs to one node object and has a registry of its own: several nodes in one process do not
clash. Counting is plain integer arithmetic, well below a microsecond; only a scrape turns it into Prometheus' types.
Bind what you count once (`child = metrics.x.labels("a")`), not per event, and count it from one thread only. Values
that live elsewhere, such as a term, are read at scrape time: `metrics.raft_term.watch(read)`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

#: Upper bounds in seconds, for everything that uses the network or the disk.
SECONDS_BOUNDS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

#: This many queues have a label of their own; the rest are counted together as `OTHER_QUEUES`.
QUEUE_LABELS_MAX = 100
OTHER_QUEUES = "other"

RPC_OPERATIONS = ("request_vote", "append_entries", "install_snapshot")

#: One labelled value of a scrape.
Row = tuple[tuple[str, ...], float]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, count: int = 1) -> None:
        self.value += count


class Histogram:
    """How many observations fell under each bound. Bounds are in the unit of the metric's name."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self) -> None:
        self._bounds = SECONDS_BOUNDS
        #: One count for each bound, and a last one for everything above; not cumulative.
        self.counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """The cumulative buckets as Prometheus wants them."""
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self.counts, strict=True):
            total += count
            buckets.append((floatToGoString(bound), float(total)))
        return buckets


class HistogramFamily:
    """A histogram for each combination of label values."""

    def __init__(self, name: str, doc: str, label_names: tuple[str, ...] = ()) -> None:
        self.name = name
        self.doc = doc
        self.label_names = label_names
        self._children: dict[tuple[str, ...], Histogram] = {}
        if not label_names:
            self.labels()

    def labels(self, *values: str) -> Histogram:
        """The histogram of these label values; made, and shown from then on, at the first call."""
        assert len(values) == len(self.label_names), (self.name, values)
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Histogram()
        return child

    def observe(self, value: float) -> None:
        """Observe, if the metric has no labels."""
        self._children[()].observe(value)

    def collect(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.doc, labels=self.label_names)
        for values, child in self._children.items():
            family.add_metric(values, child.buckets(), child.sum)
        return family


class _ScalarFamily:
    """Numbers by label values, some of them read at scrape time."""

    def __init__(self, name: str, doc: str, label_names: tuple[str, ...] = (), cap: "LabelCap | None" = None) -> None:
        self.name = name
        self.doc = doc
        self.label_names = label_names
        self._cap = cap
        self._watches: list[Callable[[], Iterable[Row]]] = []

    def watch(self, read: Callable[[], Iterable[Row]]) -> None:
        """Call `read` at each scrape; it answers `((label value, ...), number)` rows, without suspending."""
        self._watches.append(read)

    def rows(self) -> dict[tuple[str, ...], float]:
        found = [row for read in self._watches for row in read()]
        if self._cap is not None:
            self._cap.follow(values[0] for values, _ in found)
        rows: dict[tuple[str, ...], float] = {}
        for values, number in found:
            assert len(values) == len(self.label_names), (self.name, values)
            if self._cap is not None:
                values = (self._cap.capped(values[0]), *values[1:])
            rows[values] = rows.get(values, 0) + number
        return rows


class GaugeFamily(_ScalarFamily):
    """Numbers that go up and down; they live elsewhere and are only watched."""

    def collect(self) -> Metric:
        family = GaugeMetricFamily(self.name, self.doc, labels=self.label_names)
        for values, number in self.rows().items():
            family.add_metric(values, number)
        return family


class CounterFamily(_ScalarFamily):
    """Numbers that only grow, counted here (`labels`) or elsewhere (`watch`)."""

    def __init__(self, name: str, doc: str, label_names: tuple[str, ...] = ()) -> None:
        assert name.endswith("_total"), name
        super().__init__(name, doc, label_names)
        self._children: dict[tuple[str, ...], Counter] = {}
        if not label_names:
            self.labels()

    def labels(self, *values: str) -> Counter:
        """The counter of these label values; made, and shown from then on, at the first call."""
        assert len(values) == len(self.label_names), (self.name, values)
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Counter()
        return child

    def add(self, count: int = 1) -> None:
        """Count, if the metric has no labels."""
        self._children[()].value += count

    def collect(self) -> Metric:
        rows = self.rows()
        for values, child in self._children.items():
            rows[values] = rows.get(values, 0) + child.value
        family = CounterMetricFamily(self.name, self.doc, labels=self.label_names)
        for values, number in rows.items():
            family.add_metric(values, number)
        return family


class LabelCap:
    """At most `names_max` names have their own label at one time, so that the number of series stays bounded. A name
    keeps its label as long as it exists; then another name gets the room."""

    def __init__(self, names_max: int, other: str) -> None:
        self._names_max = names_max
        self._other = other
        self._names: set[str] = set()

    def follow(self, names: Iterable[str]) -> None:
        """These names exist, and no others."""
        there = dict.fromkeys(names)
        self._names &= there.keys()
        for name in there:
            if len(self._names) >= self._names_max:
                return
            self._names.add(name)

    def capped(self, name: str) -> str:
        return name if name in self._names else self._other


def _by_queue(name: str, doc: str) -> GaugeFamily:
    """All of these get the same queues at each scrape, so their labels agree."""
    return GaugeFamily(name, doc, ("queue",), LabelCap(QUEUE_LABELS_MAX, OTHER_QUEUES))


@dataclass(slots=True)
class Served:
    """What this node has answered to its own clients since it started: the counters of `/metrics?format=json`."""

    #: Acquires that were answered `ok`, one for each lock.
    locks_acquired: int = 0
    #: Acquires with another answer: held by others, timed out, deadlock.
    locks_failed: int = 0
    locks_released: int = 0
    queue_push: int = 0
    #: Messages handed to consumers.
    queue_pop: int = 0
    cache_writes: int = 0
    cache_reads: int = 0


class Metrics:
    """All metrics of one node. Register nothing elsewhere."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.served = Served()
        self._declare_raft()
        self._declare_node()
        self._declare_services()
        self._families: tuple[HistogramFamily | GaugeFamily | CounterFamily, ...] = tuple(
            each for each in vars(self).values() if isinstance(each, HistogramFamily | GaugeFamily | CounterFamily)
        )
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def _declare_raft(self) -> None:
        group = ("group",)
        self.rpc_latency_seconds = HistogramFamily(
            "rpc_latency_seconds", "Time from sending a Raft RPC to its reply", ("op",)
        )
        for operation in RPC_OPERATIONS:
            self.rpc_latency_seconds.labels(operation)
        self.raft_term = GaugeFamily("raft_term", "Current term", group)
        self.raft_role = GaugeFamily("raft_role", "0 follower, 1 candidate, 2 leader", group)
        self.raft_commit_index = GaugeFamily("raft_commit_index", "Highest committed index known", group)
        self.raft_applied_index = GaugeFamily("raft_applied_index", "Highest applied index", group)
        self.raft_elections_total = CounterFamily(
            "raft_elections_total", "Elections that this node started", group
        )
        self.raft_leader_changes_total = CounterFamily(
            "raft_leader_changes_total", "Changes of leader that this node saw", group
        )
        self.raft_fsync_seconds = HistogramFamily("raft_fsync_seconds", "Time of one fsync of the log", group)
        self.raft_propose_seconds = HistogramFamily(
            "raft_propose_seconds", "Time from a proposal to its answer on this node", group
        )
        self.mufakat_log_memory_bytes = GaugeFamily(
            "mufakat_log_memory_bytes", "What the entries of the log take in memory, overhead included", group
        )
        self.mufakat_log_disk_bytes = GaugeFamily("mufakat_log_disk_bytes", "Bytes of the log on disk", group)
        self.mufakat_proposals = GaugeFamily("mufakat_proposals", "Commands under way at this node", group)
        self.mufakat_proposals_bytes = GaugeFamily(
            "mufakat_proposals_bytes", "What the commands under way at this node take in memory", group
        )
        self._declare_standing()

    def _declare_standing(self) -> None:
        group = ("group",)
        self.mufakat_membership = GaugeFamily(
            "mufakat_membership", "What this node is in the group: 0 no member, 1 learner, 2 voter", group
        )
        self.mufakat_log_version = GaugeFamily(
            "mufakat_log_version", "Version of the group's log: what all its members know", group
        )
        self.mufakat_group_refused = GaugeFamily(
            "mufakat_group_refused", "1 where this node refuses the group, because its data is damaged", group
        )
        self.mufakat_data_put_aside_total = CounterFamily(
            "mufakat_data_put_aside_total", "Times that this node put damaged data of the group aside", group
        )
        self.mufakat_disk_full = GaugeFamily(
            "mufakat_disk_full", "1 while the disk has no room for what the group is to write", group
        )
        self.mufakat_disk_free_bytes = GaugeFamily(
            "mufakat_disk_free_bytes", "Room left on the file system of the data directory"
        )

    def _declare_node(self) -> None:
        self.http_request_seconds = HistogramFamily(
            "http_request_seconds", "Time to answer a client's request", ("route", "method", "status")
        )
        self.http_connections = GaugeFamily("http_connections", "Open connections", ("listener",))
        self.http_refused_total = CounterFamily(
            "http_refused_total", "Connections and requests that a listener refused itself", ("listener", "reason")
        )
        self.event_loop_lag_seconds = HistogramFamily(
            "event_loop_lag_seconds", "How late the event loop woke up"
        )
        limit = ("group", "limit")
        self.mufakat_limit = GaugeFamily("mufakat_limit", "Limit that the replicas of a group share", limit)
        self.mufakat_limit_used = GaugeFamily("mufakat_limit_used", "How much of such a limit is taken", limit)

        self.mufakat_withdrawals_waiting = GaugeFamily(
            "mufakat_withdrawals_waiting",
            "What is to be taken back for clients that have gone, and is not yet",
            ("group",),
        )
        self.mufakat_idempotency_bytes = GaugeFamily(
            "mufakat_idempotency_bytes", "Bytes of the kept answers, their overhead included", ("group",)
        )
        self.mufakat_idempotency_keys = GaugeFamily(
            "mufakat_idempotency_keys", "Idempotency keys whose answers are kept", ("group",)
        )
        self.mufakat_idempotency_forgotten_early_total = CounterFamily(
            "mufakat_idempotency_forgotten_early_total",
            "Kept answers that went before their ten minutes were over, for want of room",
            ("group",),
        )

    def _declare_services(self) -> None:
        self.locks_held = GaugeFamily("locks_held", "Locks that somebody holds")
        self.lock_waiters = GaugeFamily("lock_waiters", "Requests that wait for a lock")
        self.lock_deadlocks_total = CounterFamily(
            "lock_deadlocks_total", "Requests refused because they would close a cycle"
        )
        self.queue_depth = _by_queue("queue_depth", "Messages ready for delivery")
        self.queue_in_flight = _by_queue("queue_in_flight", "Messages delivered and not yet acknowledged")
        self.queue_dead = _by_queue("queue_dead", "Dead letters")
        self.queue_redelivered_total = CounterFamily(
            "queue_redelivered_total", "Deliveries of messages that had been delivered before"
        )
        self.cache_hit_total = CounterFamily("cache_hit_total", "Reads of the cache that found the key")
        self.cache_miss_total = CounterFamily("cache_miss_total", "Reads of the cache that did not")
        self.cache_filled_total = CounterFamily(
            "cache_filled_total", "Reads of the cache that found the key in the log and not in this node's memory"
        )
        self.cache_lines = GaugeFamily("cache_lines", "Lines of this node by MESI state", ("state",))
        self.cache_transitions_total = CounterFamily(
            "cache_transitions_total", "Changes of a line's MESI state at this node", ("from", "to")
        )
        self.cache_invalidation_wait_seconds = HistogramFamily(
            "cache_invalidation_wait_seconds", "How long a write waited for invalidations"
        )
        self._declare_fills()

    def _declare_fills(self) -> None:
        self.cache_fill_leases = GaugeFamily("cache_fill_leases", "Absent keys that somebody has the lease to fill")
        self.cache_fill_waiting = GaugeFamily("cache_fill_waiting", "Reads at this node that wait for a fill")
        self.cache_leases_granted_total = CounterFamily(
            "cache_leases_granted_total", "Leases to fill a key that this node gave to clients"
        )
        self.cache_leases_lost_total = CounterFamily(
            "cache_leases_lost_total", "Fills refused by this node because their lease had ended"
        )
        self.cache_tags = GaugeFamily("cache_tags", "Different tags that lines carry")
        self.cache_invalidated_total = CounterFamily(
            "cache_invalidated_total", "Lines that this node saw invalidated by a tag"
        )
        self.cache_watching = GaugeFamily("cache_watching", "Clients that watch changes at this node")
        self.cache_watch_gaps_total = CounterFamily(
            "cache_watch_gaps_total", "Times that a watcher was told that it missed changes"
        )

    def collect(self) -> Iterator[Metric]:
        """What Prometheus' registry calls at a scrape."""
        for family in self._families:
            yield family.collect()
