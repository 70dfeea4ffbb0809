"""This node's linearizable reads on their way through ReadIndex (thesis 6.4).

    new ──ask──> asked under a context ──ReadState──> known index ──applied──> answered

All reads that are new when the node asks share one context. A refusal, a lost leader or silence sends them back
to new: asking again under a new context is always safe. Contexts start at a random number, so that an answer to
the node's former life is never taken for one to this.
"""

from asyncio import Future
from collections.abc import Callable
from random import Random

from common.chance import SYSTEM_RANDOM
from raft.core.raft import RaftCore
from raft.core.ready import ReadState
from raft.core.types import NOBODY, Index
from raft.errors import NoLeader

#: An unanswered question is asked again after this time.
ASK_AGAIN_MS = 150

Read = tuple[Future[None], int]


class ReadIndexClient:
    """Reads that wait, and where each stands."""

    def __init__(self, clock_ms: Callable[[], int], random: Random = SYSTEM_RANDOM) -> None:
        self._clock_ms = clock_ms
        self._context = random.getrandbits(61)
        self._new: list[Read] = []
        #: context -> (asked at, reads)
        self._asked: dict[int, tuple[int, list[Read]]] = {}
        self._known: list[tuple[Index, list[Read]]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, future: Future[None], *, give_up_ms: int) -> None:
        self._count += 1
        self._new.append((future, give_up_ms))

    def ask(self, core: RaftCore, now_ms: int) -> None:
        """Put all new reads to the leader under one context, where one is known."""
        if not self._new or core.state.leader == NOBODY:
            return
        self._context += 1
        self._asked[self._context] = (now_ms, self._new)
        self._new = []
        core.read(self._context, now_ms)

    def ask_again(self) -> None:
        """The leader changed or was lost: unanswered questions are put anew."""
        for _, reads in self._asked.values():
            self._new.extend(reads)
        self._asked.clear()

    def on_read_state(self, state: ReadState) -> None:
        _, reads = self._asked.pop(state.context, (0, []))
        if state.index:
            self._known.append((state.index, reads))
        else:
            self._new.extend(reads)

    def serve(self, applied_index: Index) -> None:
        """Answer the reads whose index has been applied here."""
        if not self._known:
            return
        waiting = []
        for index, reads in self._known:
            if index > applied_index:
                waiting.append((index, reads))
                continue
            self._count -= len(reads)
            for future, _ in reads:
                if not future.done():
                    future.set_result(None)
        self._known = waiting

    def expire(self, now_ms: int) -> None:
        """Give up on reads whose time is over; ask again what got no answer."""
        if not self._count:
            return
        for context in [c for c, (asked_ms, _) in self._asked.items() if now_ms - asked_ms > ASK_AGAIN_MS]:
            self._new.extend(self._asked.pop(context)[1])
        self._new = [read for read in self._new if not self._gave_up(read, now_ms)]
        self._known = [
            (index, kept)
            for index, reads in self._known
            if (kept := [read for read in reads if not self._gave_up(read, now_ms)])
        ]

    def fail_all(self, error: Exception) -> None:
        self.ask_again()
        for future, _ in self._new + [read for _, reads in self._known for read in reads]:
            if not future.done():
                future.set_exception(error)
        self._new, self._known, self._count = [], [], 0

    def _gave_up(self, read: Read, now_ms: int) -> bool:
        future, give_up_ms = read
        if not future.done() and give_up_ms > now_ms:
            return False
        if not future.done():
            future.set_exception(NoLeader("no leader confirmed the read in time; try again shortly"))
        self._count -= 1
        return True
