"""A call in a process of its own, forked for it: so what it leaves behind is nobody's."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def forked(call: Callable[[], Result]) -> Result:
    """What `call` returns, which must be picklable. Raises RuntimeError where its process ends without."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(call(), pipe)
            status = 0
        finally:
            # Without the way out of a process: nothing of this one is to be cleaned up.
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise RuntimeError("the forked process ended without a result")
    result: Result = pickle.loads(told)
    return result
