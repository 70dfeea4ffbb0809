"""What stands at the root of the repository says what is there: targets of make, hooks, and the pages for people."""

import re
from pathlib import Path

import pytest

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

    missing = [target for target in re.findall(r"\]\(([^)#:]+)", text) if not (ROOT / target).exists()]

    assert missing == []


def test_the_hook_before_a_commit_is_make_lint_and_fetches_nothing() -> None:
    """Whoever uses pre-commit sees what everybody sees."""
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")

    assert ["local"] == re.findall(r"^ *-? *repo: (.+)$", text, re.MULTILINE)
    assert ["make lint"] == re.findall(r"^ *entry: (.+)$", text, re.MULTILINE)
    assert ["system"] == re.findall(r"^ *language: (.+)$", text, re.MULTILINE)
