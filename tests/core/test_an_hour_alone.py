"""An hour of a leader's time without a quorum, in which clients never stop asking: known bug 35 (etcd#10167)."""

import tracemalloc
from contextlib import suppress

import pytest

from raft.core.errors import ProposalRefused
from tests.core.replica import Replica, settled_leader

HOUR_MS = 3_600_000
COMMAND = b"x" * 1_000
#: What may come and go in Python's own pools; an hour holds 14,400 heartbeats and 3,600 proposals.
GROWTH_BYTES_MAX = 64 << 10


def live(replica: Replica, milliseconds: int) -> None:
    """Time passes; each second a client proposes and reads, and nothing that is sent arrives."""
    end_ms = replica.now_ms + milliseconds
    context = 0
    while replica.now_ms < end_ms:
        replica.run_ms(1_000)
        context += 1
        replica.read(context)
        with suppress(ProposalRefused):
            replica.propose(COMMAND)
        replica.sent()
        replica.read_states.clear()


@pytest.mark.parametrize("check_quorum", [True, False])
def test_memory_does_not_grow_in_an_hour_without_a_quorum(check_quorum: bool) -> None:
    """With CheckQuorum it becomes one who campaigns in vain; without, a leader at the bound of its tail."""
    replica = settled_leader(
        check_quorum=check_quorum,
        heartbeat_ms=250,
        election_timeout_min_ms=1_000,
        election_timeout_max_ms=2_000,
        uncommitted_bytes_max=100_000,
        reads_waiting_max=50,
    )
    live(replica, 300_000)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    live(replica, HOUR_MS)

    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < GROWTH_BYTES_MAX
    assert check_quorum != replica.leads
