"""What stands at the root of the repository says what is there: targets of make, hooks, and the pages for people."""

import re
from pathlib import Path

import pytest

from tests.shell.planted import load_planted
from tests.sim.cache_planted import BUGS as LEASE_BUGS
from tests.sim.planted import load_bugs

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PAGES = [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))]

#: By target of make, what `make help` says.
HELP = dict(re.findall(r"^([a-z-]+):.*?## (.+)$", MAKEFILE, re.MULTILINE))


def test_every_target_is_explained_and_phony() -> None:
    """A target that is not phony does nothing where a file has its name."""
    targets = re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE)
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)).split()

    assert sorted(targets) == sorted(HELP)
    assert sorted(targets) == sorted(phony)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_names_targets_that_exist(page: str) -> None:
    """In a block of commands, and in a sentence."""
    text = (ROOT / page).read_text("utf-8")

    named = set(re.findall(r"(?:^ *|[`(\"]|&& )make ([a-z][a-z-]+)", text, re.MULTILINE))

    assert named <= set(HELP)


@pytest.mark.parametrize("page", sorted(page for page in PAGES if "/" not in page))
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    """(Those of docs/ are looked at in tests/test_docs.py.)"""
    text = (ROOT / page).read_text("utf-8")

    missing = [target for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if not (ROOT / target).exists()]

    assert missing == []


@pytest.mark.parametrize("page", sorted(page for page in PAGES if "/" not in page))
def test_files_that_a_page_names_exist(page: str) -> None:
    """What somebody copies from it works."""
    text = (ROOT / page).read_text("utf-8")
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))

    named = re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]*\w", text)
    modules = [name.replace(".", "/") for name in re.findall(r"-m ((?:tests|bench)[\w.]*)", text)]

    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [name for name in modules if not list((ROOT / name).parent.glob(f"{Path(name).name}*"))] == []


def test_the_planted_bugs_that_a_page_names_are_planted() -> None:
    """And a part of a name means one of them."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

    protocol, leases = re.findall(r"--bug (\w+)", text), re.findall(r'--only "([^"]+)"', text)

    assert protocol and set(protocol) <= set(load_bugs()) | set(load_planted())
    assert [1] == [sum(1 for bug in LEASE_BUGS if part in bug.name) for part in leases]


def test_the_hook_before_a_commit_is_make_lint_and_fetches_nothing() -> None:
    """Whoever uses pre-commit sees what everybody sees."""
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")

    assert ["local"] == re.findall(r"^ *-? *repo: (.+)$", text, re.MULTILINE)
    assert ["make lint"] == re.findall(r"^ *entry: (.+)$", text, re.MULTILINE)
    assert ["system"] == re.findall(r"^ *language: (.+)$", text, re.MULTILINE)
