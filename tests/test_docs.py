"""The HTTP reference says what the code does: routes, errors and metrics are compared both ways. (Settings and
commands are compared in tests/cluster/test_files_agree.py.)"""

import re
from pathlib import Path

import pytest

from common.metrics import Metrics
from services.catalogue import SERVICES
from services.node import about as admin
from services.node import limits as limit_routes
from services.node import maintenance, members
from services.operations.refusals import TROUBLES
from services.replicated.envelope import ReplicatedMachine

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "http-api.md").read_text()


def routes_of_the_code() -> set[str]:
    found = [*admin.routes(), *maintenance.routes(), *members.routes(), *limit_routes.routes()]
    for role in SERVICES.values():
        found += role.routes()
    return {f"{route.method} {route.path}" for route in found}


def routes_of_the_docs() -> set[str]:
    return set(re.findall(r"^\| `((?:GET|POST) /[a-z_/]*)", REFERENCE, re.MULTILINE))


def test_the_reference_names_every_route_and_no_other() -> None:
    """A route that is not documented, or documented and gone, fails here."""
    assert routes_of_the_docs() == routes_of_the_code()


def test_the_reference_names_every_error_with_its_status_and_no_other() -> None:
    """The table of errors is the code's."""
    documented = {
        reason: int(status)
        for status, reason in re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", REFERENCE, re.MULTILINE)
    }

    assert documented == {reason: trouble.status for reason, trouble in TROUBLES.items()}


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
