"""The numbers that docs/http-api.md names for the cache are the code's."""

from pathlib import Path

import pytest

from services.cache import bodies, watching
from services.cache.node import changes, filling
from services.cache.replicated import commands, store, tags
from services.cache.replicated.limits import LIMITS
from services.http import events

LEASES_MAX = next(limit.default for limit in LIMITS if limit.name == "fill_leases_max")
TEXT = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text().partition("\n## Cache\n")[2]
WORDS = " ".join(TEXT.split())


@pytest.mark.parametrize(
    "sentence",
    [
        f"`tags`? (up to {tags.TAGS_PER_LINE_MAX})",
        f"`keys` (up to {commands.KEYS_MAX:,})",
        f"(seconds, both up to {bodies.WAIT_S_MAX})",
        f"for `lease_ttl` ({commands.LEASE_MS_DEFAULT // 1000} s) of cluster time",
        f"At most {LEASES_MAX:,} leases run in a cluster",
        f"{filling.WAITING_MAX:,} callers wait at a node",
        f"step by step, at most {store.SWEPT_PER_ENTRY_MAX:,} lines with each entry",
        f"did not take {changes.BUFFER_MAX:,} changes in time",
        f"more than the last {changes.HISTORY_MAX:,} changes at this node",
        f"after {watching.HEARTBEAT_SECONDS:.0f} s of silence",
        f"takes nothing for {events.STALL_SECONDS_MAX:.0f} s is disconnected",
        f"At most {changes.WATCHERS_MAX} clients watch at one node",
    ],
)
def test_the_page_names_the_limit(sentence: str) -> None:
    assert sentence in WORDS


def test_waits_and_leases_have_the_same_bound() -> None:
    """The page gives one number for both."""
    assert bodies.WAIT_S_MAX * 1000 == commands.LEASE_MS_MAX
