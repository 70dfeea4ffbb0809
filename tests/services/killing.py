"""Ends a piece of work as kill -9 would, before any one of the things that it does to the disk.

Not by time: the work runs in a child process that counts what it is about to do (a name made, renamed or removed, a
file opened for writing, bytes written or synced) and kills itself at the one that was asked for.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from raft.storage.files import RealFile

_NAMES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: No work of these tests does more to a disk.
STEPS_MAX = 1_000


def is_killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that is killed before its step of this number, from 0 on. False where it has fewer; then
    it was done to its end."""
    child = os.fork()
    if not child:
        _run(step, work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, f"what was to be killed at step {step} has failed"
    return False


def _run(step: int, work: Callable[[], None]) -> None:
    """In the child; never returns."""
    left = step

    def count() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        opens_for_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if event in _NAMES or (opens_for_writing and not str(arguments[0]).startswith("/dev/")):
            count()

    for name in ("write", "sync"):
        setattr(RealFile, name, _counted(getattr(RealFile, name), count))
    sys.addaudithook(on_event)
    try:
        work()
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def _counted(call: Callable[..., Any], count: Callable[[], None]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        count()
        return call(*arguments)

    return counted
