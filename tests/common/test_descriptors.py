"""common/descriptors.py: a node keeps what it needs for itself, whatever clients do."""

import pytest

from common.descriptors import OWN_DESCRIPTORS, raise_limit, share

resource = pytest.importorskip("resource")


@pytest.mark.parametrize("limit", [150, 256, 1_024, 4_096, 20_000, 1 << 20])
def test_all_shares_fit_the_limit(limit: int) -> None:
    """Goal: clients are refused before descriptors run out; also while a burst of them is being turned away."""
    shares = share(limit, 10_000)

    assert OWN_DESCRIPTORS + shares.clients + shares.spare + shares.peers + shares.backlog <= limit
    assert min(shares.clients, shares.spare, shares.peers, shares.backlog) >= 1


def test_clients_get_what_is_set_where_there_is_room() -> None:
    assert share(20_000, 10_000).clients == 10_000
    assert share(1_024, 10_000).clients == 688


def test_where_hardly_any_are_left_somebody_is_served_still() -> None:
    assert share(32, 10_000).clients == 1


def test_a_process_takes_as_many_as_it_may_have() -> None:
    """Goal: 1,024 is a default of shells, not a wish."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = min(256, before[0]), before[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
