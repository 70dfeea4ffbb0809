"""Tags: which lines carry one, and which of them an invalidation has made worthless.

The rule of this file: an invalidation costs the same however many lines carry the tag. It turns the tag's present
*generation* into a dead one, at one place of the log, and from there on no line of it is shown to anybody; their
room is taken back in bounded steps (`pop_dead`). A line belongs, for each of its tags, to the first generation that
died after the line was written, or to the live one. Generations hold keys in the order of their writes.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from operator import attrgetter

from services.cache.replicated.directory import Directory
from services.cache.replicated.line import Line

#: Tags of one line.
TAGS_PER_LINE_MAX = 16

#: Index of a generation that is not dead.
_LIVE = 0


class Generation:
    """The lines that carry one tag and were written between two invalidations of it."""

    __slots__ = ("directories", "index", "keys", "tag")

    def __init__(self, tag: str) -> None:
        self.tag = tag
        #: Log index of the invalidation that ended it; 0 while it lives.
        self.index = _LIVE
        #: In order of their last writes (a dict as an ordered set).
        self.keys: dict[str, None] = {}
        #: How many of the lines are in which situation; none is counted with 0.
        self.directories: dict[Directory, int] = {}

    def holders(self) -> tuple[str, ...]:
        """The nodes that hold a line of it, sorted."""
        return tuple(sorted({node for directory in self.directories for node, _ in directory.holders}))

    def count(self, directory: Directory, by: int) -> None:
        number = self.directories.get(directory, 0) + by
        assert number >= 0, f"more lines of {self.tag!r} left {directory} than entered it"
        if number:
            self.directories[directory] = number
        else:
            del self.directories[directory]


class Tags:
    """All tags of one store."""

    def __init__(self) -> None:
        #: By tag, the lines that carry it and are worth something.
        self.live: dict[str, Generation] = {}
        #: Dead generations that still have lines, by index, oldest first.
        self._dead: OrderedDict[int, Generation] = OrderedDict()
        #: The same by tag, oldest first.
        self._dead_of: dict[str, list[Generation]] = {}

    def __len__(self) -> int:
        """Tags that some living line carries."""
        return len(self.live)

    @property
    def has_dead(self) -> bool:
        return bool(self._dead)

    def add(self, line: Line) -> None:
        """The line was written; it is the newest of each of its tags."""
        for tag in line.tags:
            generation = self.live.get(tag)
            if generation is None:
                generation = self.live[tag] = Generation(tag)
            generation.keys[line.key] = None
            generation.count(line.directory, 1)

    def remove(self, line: Line) -> None:
        """The line is rewritten or goes, whatever the cause."""
        for tag in line.tags:
            generation = self._generation_of(tag, line.version)
            # `pop_dead` may have just returned it.
            generation.keys.pop(line.key, None)
            generation.count(line.directory, -1)
            if not generation.keys:
                self._forget(generation)

    def on_fill(self, line: Line, before: Directory) -> None:
        """The line was read: it is in another situation now."""
        for tag in line.tags:
            generation = self._generation_of(tag, line.version)
            generation.count(line.directory, 1)
            generation.count(before, -1)

    def is_dead(self, line: Line) -> bool:
        """Whether a tag of the line was invalidated after it was written."""
        if not self._dead:
            return False
        for tag in line.tags:
            generations = self._dead_of.get(tag)
            if generations and generations[-1].index > line.version:
                return True
        return False

    def invalidate(self, tag: str, index: int) -> Generation | None:
        """Every line that carries the tag is dead; None where none does."""
        generation = self.live.pop(tag, None)
        if generation is not None:
            self._bury(generation, index)
        return generation

    def pop_dead(self) -> str | None:
        """Key of a dead line whose room is to be taken back next, which the caller then does (`remove`); None where
        there is none."""
        if not self._dead:
            return None
        # The newest of the oldest: taking from the other end walks over all that was taken before.
        return next(iter(self._dead.values())).keys.popitem()[0]

    # Snapshots

    def dead(self) -> list[tuple[str, int]]:
        """`(tag, index)` of every dead generation, oldest first."""
        return [(generation.tag, generation.index) for generation in self._dead.values()]

    def restore(self, dead: Iterable[tuple[str, int]], lines: Iterable[Line]) -> None:
        """Fill empty tables; `lines` are those with tags, in the order of their writes."""
        for tag, index in dead:
            self._bury(Generation(tag), index)
        for line in lines:
            for tag in line.tags:
                generation = self._find(tag, line.version)
                if generation is None:
                    generation = self.live[tag] = Generation(tag)
                generation.keys[line.key] = None
                generation.count(line.directory, 1)

    def _bury(self, generation: Generation, index: int) -> None:
        generation.index = index
        self._dead[index] = generation
        self._dead_of.setdefault(generation.tag, []).append(generation)

    def _find(self, tag: str, version: int) -> Generation | None:
        generations = self._dead_of.get(tag)
        if generations and generations[-1].index > version:
            return generations[bisect_right(generations, version, key=attrgetter("index"))]
        return self.live.get(tag)

    def _generation_of(self, tag: str, version: int) -> Generation:
        generation = self._find(tag, version)
        assert generation is not None, f"a line of {version} carries {tag!r}, which no line carries"
        return generation

    def _forget(self, generation: Generation) -> None:
        if generation.index == _LIVE:
            del self.live[generation.tag]
            return
        del self._dead[generation.index]
        others = self._dead_of[generation.tag]
        others.remove(generation)
        if not others:
            del self._dead_of[generation.tag]
