"""When a process started, as a text to compare.

The system uses process ids again. An id together with its start mark names exactly one process.
"""

import os
import subprocess
from functools import cache
from pathlib import Path

#: The environment for `ps`: it shows times in the zone and the language of its caller, and the mark must not depend
#: on them.
_PS_ENVIRON = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC0"}


def start_mark(pid: int) -> str | None:
    """When a process started; None if there is none or it is a zombie. It differs for every process that ever has the
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
    """The mark on a system without /proc (macOS)."""
    told = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env=_PS_ENVIRON
    )
    state, _, started = told.stdout.strip().partition(" ")
    return None if told.returncode or not state or state.startswith("Z") else started.strip()
