"""docs/testing.md names what exists: tests, scenarios, invariants, planted bugs, and every known bug by number."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.sim.planted import load_bugs

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "testing.md").read_text("utf-8")


@cache
def source(path: str) -> str:
    return (TESTS / path).read_text("utf-8")


def test_every_known_bug_has_a_row() -> None:
    """1 to 82, each once, in order."""
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]

    assert numbers == list(range(1, 83))


def test_every_row_names_something_that_catches_the_bug() -> None:
    """A test, a scenario, an invariant or a planted bug; "not yet" alone is no answer."""
    rows = re.findall(r"^\| (\d+) \|(?:[^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
    empty = [
        number for number, caught in rows if not re.search(r"`[a-z_/0-9]+(: [a-z_0-9]+|\.txt|\.py)`", caught)
    ]

    assert len(rows) == 82
    assert empty == []


def test_the_tests_that_it_names_exist() -> None:
    """`core/test_log: NAME` is test_NAME in tests/core/test_log.py."""
    named = re.findall(r"`((?:[a-z_0-9]+/)*test_[a-z_0-9]+): ([a-z_0-9]+)`", PAGE)

    missing = [f"{path}: {name}" for path, name in named if f"def test_{name}(" not in source(f"{path}.py")]

    assert len(named) > 150
    assert missing == []


def test_the_files_that_it_names_exist() -> None:
    named = re.findall(r"`((?:scenarios|sim)/[a-z_/0-9]+\.(?:txt|py))`", PAGE)

    assert named
    assert [path for path in named if not (TESTS / path).exists()] == []


def test_the_planted_bugs_that_it_names_are_planted() -> None:
    named = re.findall(r"`planted: ([a-z_0-9]+)`", PAGE)

    assert named
    assert [name for name in named if name not in load_bugs()] == []


@pytest.mark.parametrize(
    "folder", ["paper", "core", "scenarios", "sim", "storage", "node", "services", "cluster"]
)
def test_every_part_is_told(folder: str) -> None:
    assert f"`tests/{folder}/`" in PAGE
