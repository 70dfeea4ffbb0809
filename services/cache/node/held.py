"""The lines that this node may serve from its own memory, bounded by number and by bytes.

The rule of this file: what goes, goes silently, as a line is dropped in hardware. The directory goes on listing
the node, which costs the next writer of the line at most the wait that it would have had anyhow; the next read there
is a fill. Nothing of this is replicated, so each node may have bounds and a policy of its own.
"""

from collections import OrderedDict

from services.cache.replicated.line import Line

#: Values up to this size have their whole answers kept beside the line.
KEPT_ANSWER_BYTES_MAX = 16 << 10


class HeldLine:
    """A line that this node may serve while its lease is valid and the directory lists it."""

    __slots__ = ("get_answer", "line", "read_answer", "size", "version")

    def __init__(self, version: int, size: int) -> None:
        self.version = version
        #: Bytes that it counts for.
        self.size = size
        #: The row that was found in order last; None before the first look.
        self.line: Line | None = None
        #: Whole answers for that very row, kept by the routes.
        self.get_answer = b""
        self.read_answer = b""


class HeldLines:
    """Lines by key. The least recently used one goes first."""

    def __init__(self, *, lines_max: int, bytes_max: int) -> None:
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        #: Least recently used first.
        self._granted: OrderedDict[str, HeldLine] = OrderedDict()
        #: Sum of the sizes of all lines.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._granted)

    def find(self, key: str) -> HeldLine | None:
        """The line, without counting it as used."""
        return self._granted.get(key)

    def touch(self, key: str) -> None:
        """The line of `key`, which is held, was served."""
        self._granted.move_to_end(key)

    def put(self, key: str, granted: HeldLine) -> None:
        """Hold this line, in the place of an earlier one, if the bounds let it; others may go."""
        self.drop(key)
        if granted.size > self._bytes_max:
            return
        self._granted[key] = granted
        self.bytes += granted.size
        self._make_room(key)
        while self.bytes > self._bytes_max:
            self.drop(next(iter(self._granted)))

    def drop(self, key: str) -> None:
        """Hold no line of `key`."""
        granted = self._granted.pop(key, None)
        if granted is not None:
            self.bytes -= granted.size

    def _make_room(self, key: str) -> None:
        """The line of `key` came: see to it that there are not too many."""
        if len(self._granted) > self._lines_max:
            self.drop(next(iter(self._granted)))
