"""Operating-system processes that outlive the command that started them.

The rule of this file: a signal is sent only to a process that was just shown to be ours. Process ids are used
again, so a process is known by its id *and* its start mark (when it started, in which boot), never by its id
alone.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: How often the end of a process is looked for.
POLL_SECONDS = 0.01

#: How long the system may take to clear away a killed process.
KILL_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process, beyond doubt."""

    pid: int
    #: When it started, as the system tells it; differs for every process that ever has the same id.
    started: str

    def is_alive(self) -> bool:
        """Whether it runs still (a zombie does not)."""
        return start_mark(self.pid) == self.started

    def send(self, signal_number: int) -> bool:
        """Send it a signal; False where it had ended."""
        if not self.is_alive():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal_number)
            return True
        return False

    def wait_end(self, timeout_seconds: float) -> bool:
        """Wait for it to end; False where it had not within that time."""
        until = time.monotonic() + timeout_seconds
        while self.is_alive():
            if time.monotonic() > until:
                return False
            reap(self.pid)
            time.sleep(POLL_SECONDS)
        return True


def reap(pid: int) -> None:
    """Take the exit status of a child of ours that has ended; nothing for anybody else's."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_mark(pid: int) -> str | None:
    """When a process started, as a text to be compared; None where there is none or it is a zombie."""
    if os.path.isdir("/proc/self"):
        return _start_mark_from_proc(pid)
    return _start_mark_from_ps(pid)


def _start_mark_from_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command's name is in brackets and may hold anything; what follows the last one is fixed (proc(5)).
    fields = stat.rpartition(")")[2].split()
    state, started_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{_boot_id()}/{started_ticks}"


def _start_mark_from_ps(pid: int) -> str | None:
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = told.stdout.strip().partition(" ")
    return None if told.returncode or not state or state.startswith("Z") else started.strip()


def spawn(command: Sequence[str], *, environ: Mapping[str, str], folder: Path, log_path: Path) -> Process:
    """Start a process in a session of its own, so that it outlives this one and its terminal.

    Its output is added to `log_path`; it has no input.

    Raises:
        OSError: it cannot be started.
    """
    with open(log_path, "ab") as log:
        child = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # A child that ended at once is a zombie by now; an empty mark is that of no living process.
    started = start_mark(child.pid) or ""
    # Popen warns about children that it was never asked about; this one is meant to be left alone.
    child.returncode = 0
    return Process(child.pid, started)


def stop_process(process: Process, *, grace_seconds: float) -> bool:
    """Ask a process to stop and make it, once `grace_seconds` have passed; True where asking was enough."""
    process.send(signal.SIGTERM)
    return await_stop(process, grace_seconds=grace_seconds)


def await_stop(process: Process, *, grace_seconds: float) -> bool:
    """Wait for a process that was asked to stop; kill it once `grace_seconds` have passed. True where it
    stopped by itself."""
    if process.wait_end(grace_seconds):
        return True
    kill_process(process)
    return False


def kill_process(process: Process) -> None:
    """End a process at once. Returns when it is gone.

    Raises:
        TimeoutError: the system does not let go of it (it hangs in a device).
    """
    process.send(signal.SIGKILL)
    if not process.wait_end(KILL_SECONDS_MAX):
        raise TimeoutError(f"Process {process.pid} was killed but does not end.")


def is_port_free(host: str, port: int) -> bool:
    """Whether a program could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
