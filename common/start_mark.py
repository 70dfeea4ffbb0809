"""When a process started, as a text to be compared.

Process ids are used again. With its start mark an id says which process is meant, beyond doubt.
"""

import os
import subprocess
from functools import cache
from pathlib import Path

#: How `ps` is asked: it tells times in the zone and the language of whoever asks, on which the mark must
#: not depend.
_PS_ENVIRON = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC0"}


def start_mark(pid: int) -> str | None:
    """When a process started; None where there is none or it is a zombie. Differs for every process that ever has the
    same id."""
    if os.path.isdir("/proc/self"):
        return _from_proc(pid)
    return mark_from_ps(pid)


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _from_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command's name is in brackets and may hold anything; what follows the last one is fixed (proc(5)).
    fields = stat.rpartition(")")[2].split()
    state, started_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{_boot_id()}/{started_ticks}"


def mark_from_ps(pid: int) -> str | None:
    """The mark where there is no /proc (macOS)."""
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env=_PS_ENVIRON
    )
    state, _, started = told.stdout.strip().partition(" ")
    return None if told.returncode or not state or state.startswith("Z") else started.strip()
