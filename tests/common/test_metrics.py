"""common/metrics.py: names as in the docs, right buckets, bounded labels."""

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from common.metrics import OTHER_QUEUES, QUEUE_LABELS_MAX, SECONDS_BOUNDS, Histogram, Metrics

#: The names that the HTTP contract promises.
NAMES = {
    "rpc_latency_seconds": "histogram", "cache_hit_total": "counter", "cache_miss_total": "counter",
    "raft_term": "gauge", "raft_role": "gauge", "raft_commit_index": "gauge", "raft_applied_index": "gauge",
    "mufakat_log_memory_bytes": "gauge", "mufakat_log_disk_bytes": "gauge", "mufakat_proposals": "gauge",
    "mufakat_proposals_bytes": "gauge",
    "raft_elections_total": "counter", "raft_leader_changes_total": "counter", "raft_fsync_seconds": "histogram",
    "raft_propose_seconds": "histogram", "http_request_seconds": "histogram", "event_loop_lag_seconds": "histogram",
    "locks_held": "gauge", "lock_waiters": "gauge", "lock_deadlocks_total": "counter", "queue_depth": "gauge",
    "queue_in_flight": "gauge", "queue_dead": "gauge", "queue_redelivered_total": "counter", "cache_lines": "gauge",
    "cache_transitions_total": "counter", "cache_invalidation_wait_seconds": "histogram",
    "cache_fill_leases": "gauge", "cache_fill_waiting": "gauge", "cache_leases_granted_total": "counter",
    "cache_leases_lost_total": "counter", "cache_tags": "gauge", "cache_invalidated_total": "counter",
    "cache_watching": "gauge", "cache_watch_gaps_total": "counter", "cache_filled_total": "counter",
}  # fmt: skip


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text(metrics))
        for sample in family.samples
        if sample.name == name
    }


def test_every_metric_of_the_contract_is_declared_with_its_kind():
    """Goal: dashboards find what the contract promises, even before anything happened."""
    page = text(Metrics())

    for name, kind in NAMES.items():
        assert f"# TYPE {name} {kind}\n" in page


def test_the_three_rpcs_are_there_from_the_start():
    """Goal: a scrape of a node that has sent nothing yet shows all series of rpc_latency_seconds."""
    counts = samples(Metrics(), "rpc_latency_seconds_count")

    assert counts == {("request_vote",): 0.0, ("append_entries",): 0.0, ("install_snapshot",): 0.0}


def test_two_nodes_in_one_process_do_not_clash():
    """Goal: each node's metrics have a registry of their own."""
    first, second = Metrics(), Metrics()

    first.cache_hit_total.add()

    assert list(samples(first, "cache_hit_total").values()) == [1.0]
    assert list(samples(second, "cache_hit_total").values()) == [0.0]


def test_a_value_on_a_bound_counts_under_that_bound():
    """Goal: Prometheus' `le` means less or equal."""
    histogram = Histogram()

    for value in (SECONDS_BOUNDS[0], SECONDS_BOUNDS[1], SECONDS_BOUNDS[-1] * 2):
        histogram.observe(value)

    buckets = dict(histogram.buckets())
    assert [buckets["0.0001"], buckets["0.0002"], buckets["10.0"]] == [1.0, 2.0, 2.0]
    assert buckets["+Inf"] == 3.0


def test_histograms_are_rendered_as_prometheus_reads_them():
    """Goal: count, sum and cumulative buckets agree."""
    metrics = Metrics()
    child = metrics.rpc_latency_seconds.labels("append_entries")

    child.observe(0.003)
    child.observe(0.3)

    assert samples(metrics, "rpc_latency_seconds_count")["append_entries",] == 2.0
    assert pytest.approx(0.303) == samples(metrics, "rpc_latency_seconds_sum")["append_entries",]
    assert 'rpc_latency_seconds_bucket{le="0.005",op="append_entries"} 1.0\n' in text(metrics)


def test_watched_values_are_read_at_each_scrape():
    """Goal: a term that lives in the core is never copied into a gauge that goes stale."""
    metrics = Metrics()
    term = {"lock": 3}
    metrics.raft_term.watch(lambda: [((group,), value) for group, value in term.items()])
    before = samples(metrics, "raft_term")

    term["lock"] = 4

    assert (before, samples(metrics, "raft_term")) == ({("lock",): 3.0}, {("lock",): 4.0})


def test_counted_and_watched_parts_of_a_counter_add_up():
    """Goal: what a machine counts and what a route counts may share a name."""
    metrics = Metrics()
    metrics.lock_deadlocks_total.add(2)

    metrics.lock_deadlocks_total.watch(lambda: [((), 5)])

    assert list(samples(metrics, "lock_deadlocks_total").values()) == [7.0]


def test_queues_beyond_the_cap_share_one_label():
    """Goal: clients choose the names of queues, so they must not choose the number of series."""
    metrics = Metrics()
    metrics.queue_depth.watch(lambda: [((f"queue {n}",), 1) for n in range(QUEUE_LABELS_MAX + 7)])

    depths = samples(metrics, "queue_depth")

    assert len(depths) == QUEUE_LABELS_MAX + 1
    assert depths[OTHER_QUEUES,] == 7.0


def test_labels_follow_the_queues_that_are_there():
    """Goal: queues that went do not keep their labels from those that are there, however many came before."""
    metrics = Metrics()
    names = ["a"]
    metrics.queue_dead.watch(lambda: [((name,), 1) for name in names])
    metrics.queue_depth.watch(lambda: [((name,), 1) for name in names])

    for batch in range(5):
        names[:] = ["a", *(f"{batch}-{n}" for n in range(60))]

        assert set(samples(metrics, "queue_dead")) == set(samples(metrics, "queue_depth")) == {(n,) for n in names}


def test_a_queue_keeps_its_label_while_it_is_there():
    """Goal: a new queue takes a free place, never another's; each scrape is bounded."""
    metrics = Metrics()
    names = [f"old {n}" for n in range(QUEUE_LABELS_MAX)]
    metrics.queue_dead.watch(lambda: [((name,), 1) for name in names])
    before = set(samples(metrics, "queue_dead"))

    names[:] = ["new 1", "new 2", *names[1:]]
    after = set(samples(metrics, "queue_dead"))

    assert after - before == {("new 1",), (OTHER_QUEUES,)}
    assert before - after == {("old 0",)}
