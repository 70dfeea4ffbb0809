"""A bounded node keeps the lines that are asked for."""

import pytest

from bench.hit_ratio import RATIO_MIN, ideal, ours, trace
from common.parsers import CACHE_POLICIES


@pytest.mark.parametrize("policy", CACHE_POLICIES)
def test_room_for_a_tenth_of_the_keys_hits_as_often_as_an_ideal_lru(policy: str) -> None:
    """Zipf(1.0); `make bench-hit-ratio` has a longer trace. TinyLFU does not only as well, but better."""
    keys = trace(seed=2, requests=80_000)

    found, wanted = ours(keys, policy), ideal(keys)

    assert found >= (RATIO_MIN if policy == "lru" else 1.03) * wanted
