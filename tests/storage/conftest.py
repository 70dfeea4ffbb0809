"""Tells at the end of a run how many states the power-loss tests went through."""

import pytest

from tests.storage.power_loss import CHECKED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CHECKED:
        told = ", ".join(f"{count:,} {what}" for what, count in CHECKED.items())
        terminalreporter.write_line(f"recovered as they must after a power loss: {told}")
