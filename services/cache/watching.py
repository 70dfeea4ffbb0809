"""Changes of lines, told as they come: `cache.watch`.

The rule of this file: one watch is one loop that words what waits for it, tells it, and waits for more. Only that
loop waits for its client.

    ready     from behind this position on changes are told
    write     or fill, delete, expire, evict, invalidate: a line changed
    gap       changes are missing: read anew what matters
    end       the node stops
"""

import asyncio
import re
from collections.abc import AsyncGenerator

from msgspec import Struct

from common.api_error import bad_request
from raft.errors import RaftError
from services.cache.answers import Changed, End, Missed, Ready
from services.cache.bodies import WatchQuery, key_of
from services.cache.node.changes import (
    EVENTS_PER_SLICE_MAX,
    LAST_NUMBER,
    Change,
    Changes,
    Gap,
    Position,
    Watcher,
)
from services.cache.replicated.directory import Directory, State
from services.operations.call import Call
from services.operations.operation import Event

#: Silence after which it is said that nothing happened.
HEARTBEAT_SECONDS = 10.0
#: Events that are told at one time.
EVENTS_PER_WRITE_MAX = 200
#: Pause before a position is looked into again.
RETRY_S = 1.0

_POSITION = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")

#: What each event tells, by its name.
CAUSES = ("write", "fill", "delete", "expire", "evict", "invalidate")
EVENTS: dict[str, type[Struct]] = {"ready": Ready, **dict.fromkeys(CAUSES, Changed), "gap": Missed, "end": End}


async def watch_changes(call: Call, asked: WatchQuery) -> AsyncGenerator[list[Event], None]:
    """See `services.operations.operation`. Ends when the node stops.

    Raises:
        ApiError: 400; 429, too many watch at this node.
    """
    here = call.host
    if (asked.key is None) == (asked.prefix is None):
        raise bad_request("Give what to watch, as either `key` or `prefix`.")
    key = None if asked.key is None else key_of(here, asked.key)
    since = position_of(asked.since)
    changes = here.parts[Changes]
    await changes.pace.wait_turn()
    watcher = changes.watch(key=key, prefix=asked.prefix or "", since=since)
    if since is not None:
        # Looking through the history takes a millisecond, and many may connect anew at once.
        changes.pace.spend(EVENTS_PER_SLICE_MAX)
    checking = None
    if changes.is_ahead(watcher):
        checking = asyncio.create_task(_check_position(call, watcher), name="check a watcher's position")
    try:
        at = position_text(watcher.after)
        yield [Event("ready", Ready(position=at, node=here.node_id), at)]
        while True:
            await changes.pace.wait_turn()
            told = watcher.take(EVENTS_PER_WRITE_MAX)
            changes.pace.spend(len(told))
            if told:
                yield [event_of(each) for each in told]
            elif watcher.ended:
                break
            elif not await watcher.wait_news(HEARTBEAT_SECONDS):
                yield []
        yield [Event("end", End())]
    finally:
        changes.leave(watcher)
        if checking is not None:
            checking.cancel()


async def _check_position(call: Call, watcher: Watcher) -> None:
    """Find out whether the position that the client names is yet to come here. The watch stands meanwhile: as long as
    no leader can tell, nothing comes that could be missed."""
    while not watcher.ended:
        try:
            await call.node().read_index()
        except RaftError:
            await asyncio.sleep(RETRY_S)
        else:
            call.host.parts[Changes].check_position(watcher)
            return


def position_of(text: str | None) -> Position | None:
    """The position behind which a client wants to go on; a version alone stands for all changes of that entry.

    Raises:
        ApiError: 400.
    """
    if text is None:
        return None
    found = _POSITION.fullmatch(text)
    if found is None:
        raise bad_request("`since` must be a version, or the id of an event such as 124-0.")
    index, number = found.groups()
    return (int(index), LAST_NUMBER if number is None else int(number))


def position_text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def event_of(told: Change | Gap) -> Event:
    at = position_text(told.position)
    if isinstance(told, Gap):
        return Event("gap", Missed(reason=told.reason, position=at), at)
    transition = told.transition
    changed = Changed(
        key=transition.key,
        version=transition.version_after,
        previous_version=transition.version_before,
        states=_states(transition.after),
        previous_states=_states(transition.before),
    )
    return Event(transition.cause, changed, at)


def _states(directory: Directory) -> dict[str, State]:
    """By node; who is not named has none of it (I)."""
    return dict(directory.holders)
