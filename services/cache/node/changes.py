"""What changed in the cache lately, in the order of the log, and who at this node wants to hear of it.

The rule of this file: hearing of a transition costs the apply a few look-ups, however many watch, and never waits for
anybody. What somebody wants is handed out later, so much at a time (`_deliver`). Changes are kept twice, bounded both
times: the latest of all keys, so that a watcher can go on where it was, and for each watcher what it has not taken
yet. A watcher that is too slow loses what it has not taken and is told so (`Gap`), as one that asks for more than is
kept, or for what never was, or whose node was brought up to date by a snapshot.

A change has a *position*, `index-number`: the log index of its entry, and its place among that entry's changes. Every
node counts alike, so that a watcher can go on at another node.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, Protocol

from common.metrics import Counter
from raft.core.types import SnapshotMeta
from raft.errors import RaftError
from raft.node import CLOSED_TOPIC
from raft.replica import RESTORED_TOPIC
from raft.slices import Pace
from services.cache.replicated.line import Transition
from services.cache.replicated.store import TRANSITION_TOPIC
from services.operations.refusals import refused

#: Changes that are kept for those who go on where they were.
HISTORY_MAX = 10_000
#: Changes that wait for one watcher.
BUFFER_MAX = 10_000
#: Changes that somebody wants and nobody was handed yet.
UNDELIVERED_MAX = 100_000
#: Changes that are handed out before others run, one to each watcher that wants it: a millisecond or two.
DELIVERED_PER_SLICE_MAX = 5_000
#: Events of all streams that are worded before others run: a millisecond or two.
EVENTS_PER_SLICE_MAX = 200
#: Watchers at one node.
WATCHERS_MAX = 500

#: `(index, number)`.
Position = tuple[int, int]
#: Behind every change of its entry.
LAST_NUMBER = 2**63 - 1

#: Why changes were missed.
GapReason = Literal["slow", "history", "snapshot", "future"]
SLOW: Final = "slow"
HISTORY: Final = "history"
SNAPSHOT: Final = "snapshot"
FUTURE: Final = "future"


class Change:
    """One transition at its position."""

    __slots__ = ("position", "transition")

    def __init__(self, position: Position, transition: Transition) -> None:
        self.position = position
        self.transition = transition


class Gap:
    """Changes up to and including `position` may be missing here."""

    __slots__ = ("position", "reason")

    def __init__(self, position: Position, reason: GapReason) -> None:
        self.position = position
        self.reason = reason


class Node(Protocol):
    """The part of `raft.node.RaftNode` that this needs."""

    @property
    def closed(self) -> RaftError | None:
        """Why nothing is accepted any more; None while the node serves."""

    def subscribe(self, topic: str, callback: Callable[[Any], None]) -> Callable[[], None]: ...

    def status(self) -> Any: ...


class Watcher:
    """One client's wish and what waits for it. Made by `Changes.watch`."""

    def __init__(self, key: str | None, prefix: str, after: Position) -> None:
        self.key = key
        self.prefix = prefix
        #: Nothing up to here is of interest: the client has it.
        self.after = after
        #: Changes up to here were offered, or are not of interest.
        self.offered = after
        self.ended = False
        self._waiting: deque[Change] = deque()
        self._gap: Gap | None = None
        self._news: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= BUFFER_MAX

    def wants(self, key: str) -> bool:
        return key == self.key if self.key is not None else key.startswith(self.prefix)

    def offer(self, change: Change) -> None:
        """A change that it wants."""
        if change.position <= self.offered:
            # It was in the history, or the client saw it at a node that was ahead of this one.
            return
        self.offered = change.position
        self._waiting.append(change)
        self.wake()

    def lose(self, position: Position, reason: GapReason) -> None:
        """What waits is given up: the client hears of a gap that reaches up to `position`."""
        self._waiting.clear()
        self._gap = Gap(max(position, self.after), reason)
        self.wake()

    def end(self) -> None:
        self.ended = True
        self.wake()

    def wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def take(self, most: int) -> list[Change | Gap]:
        """What the client is to be told next, in order, at most so many."""
        told: list[Change | Gap] = []
        if self._gap is not None:
            told.append(self._gap)
            self._gap = None
        while self._waiting and len(told) < most:
            told.append(self._waiting.popleft())
        return told

    async def wait_news(self, timeout_s: float) -> bool:
        """Return once there is something to take, or nothing more to come; False where the time was over before."""
        if self.ended or self._gap is not None or self._waiting:
            return True
        self._news = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait_for(self._news, timeout_s)
        except TimeoutError:
            return False
        finally:
            self._news = None
        return True


class Changes:
    """The latest changes at this node and all its watchers."""

    def __init__(self, node: Node, gaps: Counter) -> None:
        self._node = node
        self._gaps = gaps
        self._history: deque[Change] = deque()
        #: The history holds every change behind this position.
        self._kept_after: Position = (node.status().applied_index, LAST_NUMBER)
        self._last: Position = self._kept_after
        self._by_key: dict[str, list[Watcher]] = {}
        self._by_prefix: dict[str, list[Watcher]] = {}
        #: How many of those prefixes are so long.
        self._prefix_lengths: dict[int, int] = {}
        self._count = 0
        #: What all streams together may do before others run.
        self.pace = Pace(EVENTS_PER_SLICE_MAX)
        #: Changes that somebody wants, oldest first.
        self._undelivered: deque[Change] = deque()
        self._is_scheduled = False
        self._is_closed = False
        node.subscribe(TRANSITION_TOPIC, self._on_transition)
        node.subscribe(RESTORED_TOPIC, self._on_restored)
        node.subscribe(CLOSED_TOPIC, self._on_closed)

    def __len__(self) -> int:
        """Watchers."""
        return self._count

    def now(self) -> Position:
        """Behind everything that this node has applied."""
        return (self._node.status().applied_index, LAST_NUMBER)

    def watch(self, *, key: str | None, prefix: str, since: Position | None) -> Watcher:
        """A watcher of one key, or of all that begin with `prefix`, of what comes from now on or from behind `since`.
        Leave it with `leave`.

        Raises:
            ApiError: 429, too many watch at this node.
        """
        if len(self) >= WATCHERS_MAX:
            raise refused("quota", f"{WATCHERS_MAX} clients watch at this node already; ask another node.")
        now = self.now()
        watcher = Watcher(key, prefix, now if since is None else since)
        if since is not None and since < self._kept_after:
            self._lose(watcher, now, HISTORY)
        elif since is not None and since < now:
            for change in self._history:
                if watcher.wants(change.transition.key):
                    self._offer(watcher, change)
            watcher.offered = max(since, self._last)
        self._join(watcher)
        if self._node.closed is not None:
            watcher.end()
        return watcher

    def _join(self, watcher: Watcher) -> None:
        self._count += 1
        if watcher.key is not None:
            self._by_key.setdefault(watcher.key, []).append(watcher)
            return
        of_prefix = self._by_prefix.setdefault(watcher.prefix, [])
        if not of_prefix:
            length = len(watcher.prefix)
            self._prefix_lengths[length] = self._prefix_lengths.get(length, 0) + 1
        of_prefix.append(watcher)

    def is_ahead(self, watcher: Watcher) -> bool:
        """Whether the client names a position that this node has not applied: it may have it from another node, or
        from a history that is no more."""
        return watcher.after > self.now()

    def check_position(self, watcher: Watcher) -> None:
        """To be called after a ReadIndex, behind which this node has applied everything that any node had told when
        the watcher came: a position that is still ahead is none of this history, and would be waited for in vain."""
        if self.is_ahead(watcher):
            watcher.after = watcher.offered = now = self.now()
            self._lose(watcher, now, FUTURE)

    def leave(self, watcher: Watcher) -> None:
        self._count -= 1
        if watcher.key is not None:
            of_key = self._by_key[watcher.key]
            of_key.remove(watcher)
            if not of_key:
                del self._by_key[watcher.key]
            return
        of_prefix = self._by_prefix[watcher.prefix]
        of_prefix.remove(watcher)
        if not of_prefix:
            del self._by_prefix[watcher.prefix]
            length = len(watcher.prefix)
            self._prefix_lengths[length] -= 1
            if not self._prefix_lengths[length]:
                del self._prefix_lengths[length]

    def _watchers(self) -> Iterator[Watcher]:
        for watchers in (*self._by_key.values(), *self._by_prefix.values()):
            yield from watchers

    def _wanting(self, key: str) -> Iterator[list[Watcher]]:
        """Those who want to hear of `key`: a look-up for each length that a prefix has, not for each watcher."""
        if key in self._by_key:
            yield self._by_key[key]
        for length in self._prefix_lengths:
            of_prefix = self._by_prefix.get(key[:length]) if length <= len(key) else None
            if of_prefix is not None:
                yield of_prefix

    def _on_transition(self, transition: Transition) -> None:
        index, number = self._last
        number = number + 1 if transition.index == index else 0
        change = Change((transition.index, number), transition)
        self._last = change.position
        self._history.append(change)
        if len(self._history) > HISTORY_MAX:
            self._kept_after = self._history.popleft().position
        if next(self._wanting(transition.key), None) is None:
            return
        self._undelivered.append(change)
        if len(self._undelivered) > UNDELIVERED_MAX:
            self._undelivered.clear()
            for watcher in self._watchers():
                self._lose(watcher, change.position, SLOW)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        """Hand out what waits, oldest first. What is too much for now is handed out after others had their turn."""
        self._is_scheduled = False
        delivered = 0
        while self._undelivered and delivered < DELIVERED_PER_SLICE_MAX:
            change = self._undelivered.popleft()
            delivered += 1
            for watchers in self._wanting(change.transition.key):
                delivered += len(watchers)
                for watcher in watchers:
                    self._offer(watcher, change)
        if self._undelivered:
            self._schedule()
        elif self._is_closed:
            self._end()

    def _offer(self, watcher: Watcher, change: Change) -> None:
        if watcher.is_full:
            self._lose(watcher, change.position, SLOW)
        else:
            watcher.offer(change)

    def _on_restored(self, snapshot: SnapshotMeta) -> None:
        """A snapshot replaced the machine: what changed on the way is not known here."""
        self._history.clear()
        self._undelivered.clear()
        self._last = self._kept_after = (snapshot.index, LAST_NUMBER)
        for watcher in self._watchers():
            if watcher.after < self._kept_after:
                self._lose(watcher, self._kept_after, SNAPSHOT)

    def _lose(self, watcher: Watcher, position: Position, reason: GapReason) -> None:
        self._gaps.add()
        watcher.lose(position, reason)

    def _on_closed(self, why: RaftError) -> None:
        """A node that stops ends its streams, behind what was applied before."""
        self._is_closed = True
        if not self._undelivered:
            self._end()

    def _end(self) -> None:
        for watcher in self._watchers():
            watcher.end()
