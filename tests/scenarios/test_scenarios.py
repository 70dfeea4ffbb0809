"""Every scenario file leaves exactly the trace that stands in it."""

from difflib import unified_diff
from pathlib import Path

import pytest

from tests.scenarios.runner import Scenario, read_steps

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_scenario_goes_as_told(path: Path) -> None:
    """The file's head says what it is about; the first step that differs is shown with its line."""
    scenario = Scenario()

    for step in read_steps(path.read_text("utf-8")):
        actual = scenario.run(step.command)
        diff = "\n".join(unified_diff(step.expected, actual, "expected", "actual", lineterm=""))
        assert step.expected == actual, f"{path.name}:{step.line}: $ {step.command}\n{diff}"


def test_every_command_is_told_in_the_readme() -> None:
    """The list of commands that a writer of scenarios looks at must be whole."""
    readme = (Path(__file__).parent / "README.md").read_text("utf-8")

    missing = [
        name[3:] for name in vars(Scenario) if name.startswith("do_") and f"`{_word(name)}" not in readme
    ]

    assert missing == []


def _word(name: str) -> str:
    return name.removeprefix("do_").replace("_", "-")
