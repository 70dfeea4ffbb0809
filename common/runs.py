"""Sorting of a million things on a thread, while the event loop runs on another.

The rule of this file: `sorted` holds the interpreter's lock until it is done, a second for a million keys, and the
loop stands still for as long. So this sorts short runs and then merges them; other threads may interrupt that at any
step.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")

#: Items of one run: some milliseconds.
RUN_MAX = 8192


def in_order(items: Sequence[Item], *, key: Callable[[Item], Any]) -> Iterator[Item]:
    """The items by rising key."""
    runs = [sorted(items[start : start + RUN_MAX], key=key) for start in range(0, len(items), RUN_MAX)]
    return heapq.merge(*runs, key=key)
