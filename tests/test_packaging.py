"""What is installed is what pyproject.toml says: the name, the version, the types."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli import main
from services.version import VERSION

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

PACKAGES = ("raft", "common", "services")


def test_the_installed_distribution_tells_its_version() -> None:
    """The distribution is `mufakat-server`; whoever asked for another name would be told `unknown`."""
    printed = CliRunner().invoke(main, ["--version"], prog_name="mufakat").output

    assert "mufakat-server" == PROJECT["project"]["name"]
    assert VERSION == PROJECT["project"]["version"]
    assert printed == f"mufakat, version {VERSION}\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    """Else a type checker believes nothing of what it says (PEP 561)."""
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["*"]
