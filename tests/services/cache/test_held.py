"""The lines that a node may serve: bounded by number and by bytes, whatever the policy."""

import sys
from collections import OrderedDict
from random import Random

import pytest

from common.config import Settings, SettingsError, load_settings
from common.metrics import Metrics
from common.parsers import CACHE_POLICIES
from services.cache import operations as routes
from services.cache.node.coherence import Coherence
from services.cache.node.held import HeldLine, HeldLines
from services.cache.node.policies import make_held_lines
from services.cache.replicated.commands import Fill, Put
from services.node.host import Host
from services.replicated.envelope import encode_command
from tests.services.cache.cluster import Replica, SharedLog


def held_lines(policy: str, *, lines_max: int = 100, bytes_max: int = 1 << 30) -> HeldLines:
    settings = Settings(cache_policy=policy, cache_lines_max=lines_max, cache_lines_bytes_max=bytes_max)
    return make_held_lines(settings)


def test_what_was_used_longest_ago_goes_first() -> None:
    """LRU: a use counts, a look does not."""
    held = held_lines("lru", lines_max=2)

    held.put("a", HeldLine(1, 10))
    held.put("b", HeldLine(2, 10))
    held.touch("a")
    held.find("b")
    held.put("c", HeldLine(3, 10))

    assert [held.find(key) is not None for key in "abc"] == [True, False, True]
    assert held.bytes == 20


def test_lru_does_what_its_twin_does() -> None:
    """The same lines after every step of a random life."""
    chance, held, twin = Random(3), held_lines("lru", lines_max=20, bytes_max=600), OrderedDict()

    for _ in range(5_000):
        key, size = f"k{chance.randrange(60)}", chance.randrange(1, 90)
        what = chance.random()
        if what < 0.2:
            held.drop(key)
            twin.pop(key, None)
        elif what < 0.6 and key in twin:
            held.touch(key)
            twin.move_to_end(key)
        else:
            held.put(key, HeldLine(1, size))
            twin.pop(key, None)
            twin[key] = size
            while len(twin) > 20 or sum(twin.values()) > 600:
                twin.popitem(last=False)

        assert {f"k{number}" for number in range(60) if held.find(f"k{number}")} == set(twin)
        assert held.bytes == sum(twin.values())


@pytest.mark.parametrize("policy", CACHE_POLICIES)
def test_neither_bound_is_ever_passed(policy: str) -> None:
    """A random life; what is held adds up, and what was dropped is not found."""
    chance, held = Random(4), held_lines(policy, lines_max=30, bytes_max=1_500)
    keys = [f"k{number}" for number in range(200)]

    for _ in range(20_000):
        key = keys[int(chance.random() ** 3 * len(keys))]
        granted = held.find(key)
        if chance.random() < 0.05:
            held.drop(key)
            assert held.find(key) is None
        elif granted is not None and chance.random() < 0.9:
            held.touch(key)
        else:
            held.put(key, HeldLine(1, chance.randrange(1, 120)))

        assert len(held) <= 30
        assert held.bytes <= 1_500
    assert len(held) > 10
    assert held.bytes == sum(granted.size for granted in map(held.find, keys) if granted)


@pytest.mark.parametrize("policy", CACHE_POLICIES)
def test_a_line_larger_than_all_room_is_not_held_and_drives_nothing_out(policy: str) -> None:
    held = held_lines(policy, bytes_max=2_000)
    held.put("small", HeldLine(1, 100))

    held.put("large", HeldLine(2, 2_001))

    assert held.find("large") is None
    assert held.find("small") is not None


@pytest.mark.parametrize("policy", CACHE_POLICIES)
def test_a_line_that_is_granted_anew_takes_the_place_of_the_old(policy: str) -> None:
    held = held_lines(policy)
    held.put("a", HeldLine(1, 100))

    held.put("a", HeldLine(2, 30))

    assert held.find("a").version == 2
    assert (len(held), held.bytes) == (1, 30)


def test_with_tinylfu_what_is_read_once_does_not_drive_out_what_is_read_all_the_time() -> None:
    """A scan over many keys passes by; under LRU it takes everything with it."""
    left = {}
    for policy in CACHE_POLICIES:
        held = held_lines(policy, lines_max=100)
        for _ in range(20):
            for number in range(50):
                if held.find(f"hot{number}"):
                    held.touch(f"hot{number}")
                else:
                    held.put(f"hot{number}", HeldLine(1, 10))

        for number in range(5_000):
            held.put(f"scan{number}", HeldLine(1, 10))

        left[policy] = sum(held.find(f"hot{number}") is not None for number in range(50))

    assert left["lru"] == 0
    assert left["w-tinylfu"] >= 45


def test_a_policy_whose_package_is_missing_stops_the_node_and_names_the_setting(monkeypatch) -> None:
    """Not an ImportError from somewhere inside, and LRU goes on to work."""
    monkeypatch.setitem(sys.modules, "theine_core", None)
    monkeypatch.delitem(sys.modules, "services.cache.node.tinylfu", raising=False)

    with pytest.raises(SettingsError, match=r"MUFAKAT_CACHE_POLICY.*theine-core"):
        held_lines("w-tinylfu")
    held_lines("lru").put("a", HeldLine(1, 10))


async def test_a_node_holds_as_many_lines_as_it_is_told() -> None:
    """The settings reach the table, and a line that was dropped is read by a fill like any other."""
    log = SharedLog()
    node = Replica("node1", log)
    here = Host(Settings(cache_lines_max=1), Metrics(), "boot", {"cache": node})
    routes.attach(here, node)
    coherence = here.parts[Coherence]

    for key in ("a", "b"):
        written = log.append(encode_command(Put(key, b"1", "node1")))["node1"]
        coherence.grant(key, written["version"])

    assert coherence.may_serve("a") is None
    assert coherence.may_serve("b") is not None
    filled = log.append(encode_command(Fill("a", "node1")))["node1"]
    coherence.grant("a", filled["version"])
    assert filled["state"] == "M"
    assert coherence.may_serve("a") is not None


def test_the_bounds_are_settings() -> None:
    settings = load_settings(
        {
            "MUFAKAT_CACHE_POLICY": "w-tinylfu",
            "MUFAKAT_CACHE_LINES_MAX": "7",
            "MUFAKAT_CACHE_LINES_BYTES_MAX": "5000",
        }
    )

    assert settings.cache_policy == "w-tinylfu"
    assert (settings.cache_lines_max, settings.cache_lines_bytes_max) == (7, 5000)
    with pytest.raises(SettingsError, match="MUFAKAT_CACHE_POLICY"):
        load_settings({"MUFAKAT_CACHE_POLICY": "fifo"})
