"""Whatever is installed is locked: the lock files satisfy pyproject.toml, and nothing is installed past them.

`make lock` writes requirements/run.txt, for the nodes, and requirements/dev.txt, for the tests as well.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

BUILD = PYPROJECT["build-system"]["requires"]
RUN = [*BUILD, *PYPROJECT["project"]["dependencies"]]
DEV = [*RUN, *PYPROJECT["project"]["optional-dependencies"]["dev"]]

#: Where our package is installed: what a marker may ask for.
SURROUNDINGS = [
    {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0", "sys_platform": system}
    for minor in range(11, 15)
    for system in ("linux", "darwin", "win32")
]
#: Files by which somebody installs something.
INSTALLERS = ["Makefile", "docker/Dockerfile", ".ci/run"]


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of a lock file."""

    version: str
    marker: Marker | None
    hashes: int

    def holds_in(self, surroundings: dict[str, str]) -> bool:
        return self.marker is None or self.marker.evaluate(surroundings)


def unfolded(text: str) -> Iterator[str]:
    """Its lines without comments, those that end in a backslash joined with the next."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return filter(None, map(str.strip, "\n".join(kept).replace("\\\n", " ").splitlines()))


def pins(name: str) -> dict[str, Pin]:
    """A lock file, by the names of its packages."""
    found = {}
    for line in unfolded((ROOT / "requirements" / name).read_text("utf-8")):
        text, *hashes = re.split(r"\s+--hash=sha256:", line)
        requirement = Requirement(text)
        (exactly,) = requirement.specifier
        assert exactly.operator == "==", line
        found[canonicalize_name(requirement.name)] = Pin(exactly.version, requirement.marker, len(hashes))
    return found


@pytest.mark.parametrize(
    ("name", "needed"),
    [("run.txt", text) for text in RUN] + [("dev.txt", text) for text in DEV],
    ids=lambda text: re.split("[<>=;]", text)[0],
)
def test_a_lock_file_satisfies_what_pyproject_names(name: str, needed: str) -> None:
    """Where this fails: `make lock`."""
    requirement = Requirement(needed)

    pin = pins(name).get(canonicalize_name(requirement.name))

    assert pin is not None, f"{needed} is not in requirements/{name}: make lock"
    assert requirement.specifier.contains(pin.version), f"{needed}, but {pin.version} is locked: make lock"
    for surroundings in SURROUNDINGS:
        if requirement.marker is None or requirement.marker.evaluate(surroundings):
            assert pin.holds_in(surroundings), f"{needed} is left out in {surroundings}: make lock"


def test_the_docs_say_of_every_dependency_why_it_is_there() -> None:
    """And of no other."""
    tables = (ROOT / "docs" / "dependencies.md").read_text("utf-8").partition("## What is locked")[0]

    documented = re.findall(r"^\| \[([\w-]+)\]", tables, re.MULTILINE)

    named = {Requirement(text).name for text in DEV} - {Requirement(text).name for text in BUILD}
    assert sorted(documented) == sorted(named)


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_every_package_has_the_hashes_of_its_files(name: str) -> None:
    """A package without one would make pip refuse all of them."""
    assert [package for package, pin in pins(name).items() if not pin.hashes] == []


def test_the_nodes_run_with_what_was_tested() -> None:
    """Both files name one version of a package, with the same files."""
    run, dev = pins("run.txt"), pins("dev.txt")

    assert {name: (pin.version, pin.hashes) for name, pin in run.items()} == {
        name: (dev[name].version, dev[name].hashes) for name in run
    }


#: What may stand behind `pip install`, less flags that only concern what is printed: others' packages by a lock file,
#: ours without anything fetched.
LOCKED = re.compile(r"--only-binary :all: --require-hashes --requirement (/src/)?requirements/(run|dev)\.txt")
OURS = re.compile(r"--no-index --no-deps --no-build-isolation (--editable \.|/src)")


def installs(text: str) -> list[str]:
    """What stands behind each `pip install` of a file, its variables (as make writes them) filled in."""
    values = dict(re.findall(r"^(\w+) := (.*)$", text, flags=re.MULTILINE))
    found = []
    for line in unfolded(text):
        if re.match(r"\w+ [:?]?= ", line):
            continue
        while (filled := re.sub(r"\$\((\w+)\)", lambda named: values.get(named[1], ""), line)) != line:
            line = filled
        found += re.findall(r"\bpip3? install (.*?)(?= *(?:&&|\|\||;|$))", line)
    return [text.replace("--quiet --disable-pip-version-check ", "") for text in found]


@pytest.mark.parametrize("name", INSTALLERS)
def test_nothing_is_installed_but_what_is_locked(name: str) -> None:
    """Neither by its name, nor to build something with."""
    text = (ROOT / name).read_text("utf-8")

    wrong = [what for what in installs(text) if not (LOCKED.fullmatch(what) or OURS.fullmatch(what))]

    assert wrong == []
    assert not re.search(r"pip3? (download|wheel|sync)|\buvx?\b (pip install|run|sync|tool)|easy_install|pipx", text)


def test_the_makefile_and_the_image_install_by_the_lock_files() -> None:
    """The test above finds what it looks for."""
    found = {name: installs((ROOT / name).read_text("utf-8")) for name in INSTALLERS}

    assert ["run.txt", "dev.txt"] == [what.split("/")[-1] for what in found["Makefile"] if LOCKED.fullmatch(what)]
    assert 1 == sum(1 for what in found["docker/Dockerfile"] if LOCKED.fullmatch(what))
    assert 2 == sum(1 for what in found["Makefile"] if OURS.fullmatch(what))
    assert 1 == sum(1 for what in found["docker/Dockerfile"] if OURS.fullmatch(what))


@pytest.mark.parametrize(
    "line",
    [
        "$(BIN)/python -m pip install --editable .",
        "pip install --require-hashes --requirement requirements/run.txt",
        "pip install --only-binary :all: --require-hashes --requirement requirements/run.txt leftpad && true",
        "PIP := pip install\n\t$(PIP) leftpad",
    ],
)
def test_what_is_not_locked_is_found(line: str) -> None:
    """By its name, built with what is fetched, beside what is locked, or through a variable."""
    (what,) = installs(f"all:\n\t{line}\n") if ":=" not in line else installs(f"{line}\n")

    assert not (LOCKED.fullmatch(what) or OURS.fullmatch(what))
