"""The Docker engine's command line: is there one, and one call to it.

Two generations of compose are in use, and this works with both: the plugin (`docker compose`) and the older program
(`docker-compose`, 1.27 or newer).
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.cluster.errors import ClusterError
from services.cluster.printing import ProgressLine

#: How long an engine may take to answer.
DETECT_TIMEOUT_SECONDS = 10.0

#: How long a call that only looks at containers, starts them or ends them may take.
CALL_TIMEOUT_SECONDS = 60.0

#: How often the progress of a longer command is shown, and how long it may take to end after an interruption.
PROGRESS_SECONDS = 0.5
INTERRUPTED_SECONDS_MAX = 20.0

#: How many lines of its output are shown if a command fails.
FAILURE_LINES = 20

#: The folder of the Dockerfile and the compose files; they come with the repository, not with an installed
#: package.
COMPOSE_FOLDER = Path(__file__).resolve().parents[2] / "docker"


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker engine that answers, with its compose command."""

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
    """What a command printed; None if it failed, hung or is not there."""
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


def run_logged(
    command: Sequence[str], what: str, *, log_path: Path, environ: Mapping[str, str] = os.environ
) -> int:
    """Run a command that may take minutes and print much; returns its exit code. Its output goes to `log_path`, and a
    progress line says that `what` goes on. If it fails, this prints the end of its output, and says where the rest
    is.

    Raises:
        ClusterError: it cannot be run, or its output cannot be kept.
    """
    progress = ProgressLine()
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=dict(environ)
            )
            exit_code = _await_end(process, what, progress)
    except OSError as error:
        raise ClusterError(f"`{command[0]}` cannot be run, or its output not be kept: {error}.") from error
    finally:
        progress.clear()
    if exit_code:
        _print_end(log_path)
    return exit_code


def _await_end(process: "subprocess.Popen[bytes]", what: str, progress: ProgressLine) -> int:
    began = time.monotonic()
    try:
        while True:
            progress.update(f"{what} ({time.monotonic() - began:.0f} s)")
            try:
                return process.wait(PROGRESS_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        # We were interrupted. So was the command, and it may have something to undo.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPTED_SECONDS_MAX)
        process.kill()
        process.wait()
        raise


def _print_end(log_path: Path) -> None:
    lines = log_path.read_bytes().decode("utf-8", "replace").splitlines()
    shown = [line for line in lines if line.strip()][-FAILURE_LINES:]
    for line in shown or ("(it said nothing)",):
        print(f"  {line}", file=sys.stderr)
    print(f"These are its last lines; {log_path} has all of them.", file=sys.stderr, flush=True)
