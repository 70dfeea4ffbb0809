"""Operating-system processes that outlive the command that started them.

The rule of this file: send a signal only to a process that we have just found to be ours. The system uses process ids
again, so an id *and* a start mark (`common.start_mark`) name a process, never its id alone.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.start_mark import start_mark
from services.node.process_file import INHERITED_VARIABLE, PROCESS_NAME, ProcessFile, look

#: How often we check whether a process has ended.
POLL_SECONDS = 0.01

#: How long the system may take to remove a killed process.
KILL_SECONDS_MAX = 10.0

#: How long a process that was just started may take to note its id.
NAME_SECONDS_MAX = 15.0


@dataclass(frozen=True, slots=True)
class Process:
    """Exactly one process."""

    pid: int
    #: When it started, as the system says; it differs for every process that ever has the same id.
    started: str
    #: The data directory that it holds.
    data_dir: Path | None = None

    def is_alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return start_mark(self.pid) == self.started

    def send(self, signal_number: int) -> bool:
        """Send it a signal; False if it had ended.

        Raises:
            PermissionError: it belongs to another user.
        """
        if not self.is_alive():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal_number)
            return True
        return False

    def wait_end(self, timeout_seconds: float) -> bool:
        """Wait for it to end and to release its data directory; False if it did not in that time."""
        until = time.monotonic() + timeout_seconds
        # A process of several threads is a zombie before the last of them has closed its files.
        while self.is_alive() or (self.data_dir is not None and self._holds(self.data_dir)):
            if time.monotonic() > until:
                return False
            reap(self.pid)
            time.sleep(POLL_SECONDS)
        return True

    def _holds(self, data_dir: Path) -> bool:
        seen = look(data_dir)
        # If another process holds it by now, the note says so, or soon will.
        return seen.is_held and (seen.record is None or seen.record.started == self.started)


def reap(pid: int) -> None:
    """Take the exit status of a child of ours that has ended; do nothing for other processes."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def holder(data_dir: Path) -> Process | None:
    """The process that runs a node on this data directory; None if none does. A process that was just started gets
    time to note its id.

    Raises:
        TimeoutError: one holds the directory and cannot be found.
        OSError: the directory cannot be read.
    """
    until = time.monotonic() + NAME_SECONDS_MAX
    while (seen := look(data_dir)).is_held:
        if seen.record is not None:
            process = Process(seen.record.pid, seen.record.started, data_dir)
            if process.is_alive():
                return process
            # Either it has ended and will release the lock in a moment, or the note names another process than the
            # holder.
        if time.monotonic() > until - NAME_SECONDS_MAX / 2 and (found := _opener(data_dir)):
            return found
        if time.monotonic() > until:
            raise TimeoutError(
                f"A process holds {data_dir} and does not say which one it is. "
                f"`fuser {shlex.quote(str(data_dir / PROCESS_NAME))}` names it; end it by hand"
            )
        time.sleep(POLL_SECONDS)
    return None


def _opener(data_dir: Path) -> Process | None:
    """The process that has had the lock for a while, from what the system says about open files (Linux)."""
    path = data_dir / PROCESS_NAME
    # Look twice: a command that only looks, or passes the lock on, has it for a moment.
    found = _who_has_locked(path)
    time.sleep(POLL_SECONDS)
    found &= _who_has_locked(path)
    found.discard(os.getpid())
    marks = {pid: mark for pid in sorted(found) if (mark := start_mark(pid))}
    return next((Process(pid, mark, data_dir) for pid, mark in marks.items()), None)


def _who_has_locked(path: Path) -> set[int]:
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(descriptor), os.stat(path)):
                # proc(5): a locked file has `lock: 1: FLOCK ...`, whoever took the lock.
                told = Path(*descriptor.parts[:3], "fdinfo", descriptor.name).read_text(encoding="ascii")
                if "FLOCK" in told and "WRITE" in told:
                    found.add(int(descriptor.parts[2]))
    return found


def spawn(
    command: Sequence[str], *, environ: Mapping[str, str], folder: Path, log_path: Path, lock: ProcessFile
) -> None:
    """Start a process in a session of its own, so that it outlives this one and its terminal, and pass `lock` on to
    it. Its output is added to `log_path`; it has no input.

    Raises:
        OSError: it cannot be started.
    """
    with open(log_path, "ab") as log:
        child = subprocess.Popen(
            command,
            env={**environ, INHERITED_VARIABLE: str(lock.descriptor)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock.descriptor,),
        )
    # Popen warns about children for which nobody waits; nobody shall wait for this one.
    child.returncode = 0


def end_all(processes: Mapping[str, Process], *, grace_seconds: float) -> set[str]:
    """Ask processes to stop, all at the same time, and kill those that have not stopped after `grace_seconds`.
    Returns the names of the killed ones when all are gone.

    Raises:
        TimeoutError: the system cannot end one (it hangs in a device).
        PermissionError: one belongs to another user.
    """
    for process in processes.values():
        process.send(signal.SIGTERM)
    until = time.monotonic() + grace_seconds
    killed = set()
    for name, process in processes.items():
        if not process.wait_end(max(0.0, until - time.monotonic())):
            killed.add(name)
            process.send(signal.SIGKILL)
    wait_gone([processes[name] for name in killed])
    return killed


def kill_all(processes: Sequence[Process]) -> None:
    """End processes at once. Returns when they are gone; raises as `end_all`."""
    for process in processes:
        process.send(signal.SIGKILL)
    wait_gone(processes)


def wait_gone(processes: Sequence[Process]) -> None:
    """Wait until killed processes are gone. Raises TimeoutError."""
    until = time.monotonic() + KILL_SECONDS_MAX
    for process in processes:
        if not process.wait_end(max(0.0, until - time.monotonic())):
            raise TimeoutError(f"Process {process.pid} was killed but does not end; it hangs in the system")


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
