"""The HTTP reference says what the code does: operations, refusals, metrics and limits are compared. (Settings and
commands are compared in tests/cluster/test_files_agree.py.)"""

import re
from pathlib import Path

import pytest

from common.metrics import Metrics
from services.catalogue import SERVICES
from services.http import document
from services.replicated.machine import ReplicatedMachine

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "http-api.md").read_text()


def test_the_tables_of_the_reference_are_made_from_the_code() -> None:
    """Operations and refusals: `make docs` writes them."""
    assert document.page() == REFERENCE


def test_every_family_of_operations_has_a_table() -> None:
    for family in document.families():
        assert f"<!-- operations of {family} -->" in REFERENCE
    assert "<!-- refusals -->" in REFERENCE


def test_the_reference_names_every_metric_with_its_labels() -> None:
    """The table of metrics is the code's."""
    table = REFERENCE.partition("### Metrics")[2].partition("## Locks")[0]
    documented = {
        name: tuple(re.findall(r"`([a-z]+)`", labels))
        for name, labels in re.findall(r"^\| `([a-z_]+)` \|([^|]*)\|", table, re.MULTILINE)
    }

    assert documented == {family.name: family.label_names for family in Metrics()._families}


def test_the_reference_names_every_limit_of_a_group_with_its_default() -> None:
    """The table of limits is the code's, in its order and its words."""
    table = REFERENCE.partition("## Limits of a group")[2].partition("## Locks")[0]
    documented = [
        (group, name, int(default), what)
        for group, name, default, what in re.findall(
            r"^\| (\w+) \| `(\w+)` \| (\d+) \| (.*) \|$", table, re.MULTILINE
        )
    ]

    assert documented == [
        (group, limit.name, limit.default, limit.what)
        for group, role in SERVICES.items()
        for limit in ReplicatedMachine(role.machine).limits.declared.values()
    ]


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    """A stranger who follows a link finds the page."""
    text = (ROOT / "docs" / page).read_text()

    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("walk", ["## One write", "## One read"])
def test_the_way_through_the_code_is_straight(walk: str) -> None:
    """A stranger follows it file by file: each exists, and none is entered twice."""
    text = (ROOT / "docs" / "design.md").read_text().partition(f"{walk}\n")[2].partition("\n## ")[0]
    files = re.findall(r"`((?:common|raft|services)/[\w/]+\.py)`", text)

    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert sorted(files) == sorted(set(files))
