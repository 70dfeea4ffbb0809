"""The Docker engine's command line: is there one, and one call to it.

Two generations of compose are in use and both are served: the plugin (`docker compose`) and the older program
(`docker-compose`, 1.27 or newer).
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cluster.errors import ClusterError

#: How long an engine may take to say that it is there.
DETECT_TIMEOUT_SECONDS = 10.0

#: How long a call may take that only looks at containers, starts them or ends them.
CALL_TIMEOUT_SECONDS = 60.0

#: The folder of the Dockerfile and the compose files; they come with the repository, not with an installed
#: package.
COMPOSE_FOLDER = Path(__file__).resolve().parents[2] / "docker"


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker engine that answers, with a compose command to go with it."""

    version: str
    #: How compose is called: ("docker", "compose") or ("docker-compose",).
    compose: tuple[str, ...]

    def describe(self) -> str:
        """One phrase for people."""
        return f"a Docker engine answers (version {self.version}, with `{' '.join(self.compose)}`)"


@dataclass(frozen=True, slots=True)
class NoEngine:
    """Why containers cannot be used here."""

    #: A phrase that continues "because ...".
    reason: str


def _output(command: Sequence[str], timeout_seconds: float) -> str | None:
    """What a command printed; None where it failed, hung or is not there."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def detect_engine() -> Engine | NoEngine:
    """Look for an engine, a compose command and our compose files."""
    if not (COMPOSE_FOLDER / "docker-compose.yml").is_file():
        return NoEngine(
            "the compose files are not here (they come with the repository, not with the package)"
        )
    if shutil.which("docker") is None:
        return NoEngine("there is no `docker` command")
    version = _output(("docker", "version", "--format", "{{.Server.Version}}"), DETECT_TIMEOUT_SECONDS)
    if not version:
        return NoEngine("no Docker engine answers")
    for compose in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(compose[0]) and _output((*compose, "version", "--short"), DETECT_TIMEOUT_SECONDS):
            return Engine(version, compose)
    return NoEngine("a Docker engine answers but there is neither `docker compose` nor `docker-compose`")


def call_docker(*arguments: str, with_errors: bool = False) -> str:
    """Run one short `docker` command and return what it printed; with `with_errors`, both of its outputs.

    Raises:
        ClusterError: it failed or did not end; the message carries its last line.
    """
    try:
        done = subprocess.run(
            ("docker", *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_TIMEOUT_SECONDS,
            check=False,
        )
    except OSError as error:
        raise ClusterError(f"`docker` cannot be run: {error}.") from error
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"`docker {arguments[0]}` did not end within {CALL_TIMEOUT_SECONDS:.0f} s. Is the engine "
            "well? `docker info` tells."
        ) from None
    if done.returncode:
        last_line = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ClusterError(f"`docker {' '.join(arguments)}` failed: {last_line}")
    return done.stdout + done.stderr if with_errors else done.stdout


def run_shown(command: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run a command whose output goes straight to the caller's; returns its exit code.

    Raises:
        ClusterError: it cannot be run.
    """
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, env=dict(environ), check=False).returncode
    except OSError as error:
        raise ClusterError(f"`{command[0]}` cannot be run: {error}.") from error
