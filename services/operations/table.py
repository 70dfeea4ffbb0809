"""The table of all operations, of every group: what a node carries, and what the others do."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from services.operations.operation import Operation, Right
from services.operations.refusals import REFUSALS

#: Hints kept, since finding one takes milliseconds.
HINTS_MAX = 256


class Table:
    """Operations in the order of the docs."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._rows = tuple(operations)
        self.by_name: Mapping[str, Operation] = {each.name: each for each in self._rows}
        #: By method and path; no two operations share one.
        self.by_path: Mapping[tuple[str, str], Operation] = {
            (each.at.method, path): each for each in self._rows for path in each.paths
        }
        assert len(self.by_name) == len(self._rows), "two operations have one name"
        assert len(self.by_path) == sum(len(each.paths) for each in self._rows), "two operations have one path"
        assert all(reason in REFUSALS for each in self._rows for reason in each.refuses), "an unknown reason"
        self._nearest = lru_cache(HINTS_MAX)(self._find_nearest)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._rows)

    def carried(self, groups: Iterable[str]) -> Iterator[Operation]:
        """Those of a node with these groups: its own and theirs."""
        groups = tuple(groups)
        return (each for each in self._rows if not each.group or each.group in groups)

    def paths(self, right: Right) -> frozenset[str]:
        """All paths that need just this right."""
        return frozenset(path for each in self._rows if each.right == right for path in each.paths)

    def at(self, path: str) -> Operation | None:
        """An operation with this path, whatever its method."""
        return next((each for each in self._rows if path in each.paths), None)

    def nearest(self, path: str, groups: tuple[str, ...]) -> tuple[str, Operation]:
        """The path most like this one, and its operation; of those that a node with these groups carries where one
        of them is as near."""
        return self._nearest(path, groups)

    def _find_nearest(self, path: str, groups: tuple[str, ...]) -> tuple[str, Operation]:
        matcher = difflib.SequenceMatcher(b=path)
        best, found = (-1.0, False), ("", self._rows[0])
        for each in self._rows:
            is_here = not each.group or each.group in groups
            for name in each.paths:
                matcher.set_seq1(name)
                # Bounds from above, each cheaper than what follows it.
                if matcher.real_quick_ratio() < best[0] or matcher.quick_ratio() < best[0]:
                    continue
                nearness = (matcher.ratio(), is_here)
                if nearness > best:
                    best, found = nearness, (name, each)
        return found
