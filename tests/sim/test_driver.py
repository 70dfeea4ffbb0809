"""The simulated driver, in cases where its own fault could look like a fault of the core."""

from dataclasses import replace

from tests.sim.machine import SimMachine
from tests.sim.plan import draw_plan
from tests.sim.world import World


def test_one_entry_at_a_time_brings_the_time_along() -> None:
    """Seed 1000199: a leader appended one at each tick while something was due. A slow group fell ever further
    behind with entries that carry nothing, and no client's write was answered in time."""
    plan = replace(draw_plan(1, 100, "small"), node_count=1, disk_min_us=0, disk_max_us=0, faults={})
    world = World(plan, [], SimMachine)
    node = world.nodes["n1"]
    world.run_until(lambda: node.leads and node.applied_index == node.core.log.last_index, 10_000_000)
    node.disk.hung = True
    node.service.next_due_ms = lambda: 0
    before = node.core.log.last_index

    for _ in range(10):
        world.now_us += 1_000
        node._tick()
        node.finish_step()

    assert before + 1 == node.core.log.last_index
