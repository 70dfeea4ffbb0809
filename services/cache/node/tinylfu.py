"""Lines held by W-TinyLFU: the policy is theine's core, the table ours.

theine-core is the policy alone, without a table, a lock or a thread: it is told of numbers that stand for keys and
says which of them go. It knows numbers of lines and no sizes, so it decides where the number is what binds; where
the bytes bind first, the least recently used line goes, as ever.
"""

from theine_core import TlfuCore, spread

from services.cache.node.held import HeldLine, HeldLines

#: Uses that the policy is told of together: a call for each would cost more than the hit.
USES_MAX = 64


class TinyLfuLines(HeldLines):
    """Lines by key. What is asked for often stays."""

    def __init__(self, *, lines_max: int, bytes_max: int) -> None:
        super().__init__(lines_max=lines_max, bytes_max=bytes_max)
        self._policy = TlfuCore(lines_max)
        #: Number that stands for a key -> the key. Two keys with one number cannot both be held.
        self._key_of: dict[int, str] = {}
        #: Uses that the policy has not been told of.
        self._uses: list[int] = []

    def touch(self, key: str) -> None:
        super().touch(key)
        self._uses.append(spread(hash(key)))
        if len(self._uses) >= USES_MAX:
            self._tell_uses()

    def put(self, key: str, granted: HeldLine) -> None:
        same = self._key_of.get(spread(hash(key)))
        if same is not None:
            self.drop(same)
        super().put(key, granted)

    def drop(self, key: str) -> None:
        number = spread(hash(key))
        if self._key_of.get(number) == key:
            del self._key_of[number]
            self._policy.remove(number)
        super().drop(key)

    def _make_room(self, key: str) -> None:
        self._tell_uses()
        number = spread(hash(key))
        self._key_of[number] = key
        for gone in self._policy.set([(number, 0)]):
            # That may be the newcomer itself, where it is asked for less than what it would drive out.
            super().drop(self._key_of.pop(gone))

    def _tell_uses(self) -> None:
        self._policy.access(self._uses)
        self._uses.clear()
