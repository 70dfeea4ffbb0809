"""Waiting until nodes are in the wanted state, with a bound, and with a sentence for when they do not get there."""

import time
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

from services.cluster.backend import Backend
from services.cluster.calls import Calls
from services.cluster.errors import ClusterError
from services.cluster.log_view import Line, LogView
from services.cluster.printing import ProgressLine
from services.cluster.roster import Roster, roster
from services.cluster.topology import Node

Found = TypeVar("Found", bound=Sized)

#: How long a whole cluster may take until every node is ready.
READY_SECONDS_MAX = 90.0

#: How long one node may take until it answers at all; reading its log from the disk is part of it.
LIVE_SECONDS_MAX = 60.0

#: How long a group whose nodes run may have no leader before a command that needs one gives up.
ELECTION_SECONDS_MAX = 10.0

#: Pause between two looks.
POLL_SECONDS = 0.1

#: How many of its last lines are shown if a node ended.
TAIL_LINES = 8


def check_running(backend: Backend, nodes: Sequence[Node]) -> None:
    """Check that the nodes' processes run.

    Raises:
        ClusterError: one has ended; the message carries what it wrote last.
    """
    processes = backend.processes()
    ended = [node for node in nodes if not processes[node.id].is_running]
    if ended:
        view, lines = LogView([ended[0].id]), backend.log_tail(ended[0], TAIL_LINES)
        tail = "\n".join(f"  {view.render(Line.of(ended[0].id, line))}" for line in lines)
        names = ", ".join(node.id for node in ended)
        raise ClusterError(
            f"{names} ended while starting. `mufakat logs {ended[0].id}` shows why, `mufakat start "
            f"{ended[0].id}` tries again, `mufakat down` ends the others. Last lines of "
            f"{ended[0].id}:\n{tail or '  (it wrote nothing)'}"
        )


def wait_ready(
    backend: Backend, nodes: Sequence[Node], *, timeout_seconds: float = READY_SECONDS_MAX
) -> tuple[float, Roster]:
    """Wait until each of the nodes is ready in all groups whose member it is; returns how many seconds that took, and
    the state of the nodes then. It does not wait for nodes that were removed from all of their groups.

    Raises:
        ClusterError: a node ended, or they were not all ready in time.
    """
    began = time.monotonic()
    progress = ProgressLine()
    ids = {node.id for node in nodes}
    try:
        while True:
            found = roster(backend)
            asked = [seat for seat in found.seats if seat.node.id in ids]
            waited = time.monotonic() - began
            waiting = {seat.node.id: _words(why) for seat in asked if not seat.is_removed and (why := seat.reasons())}
            if not waiting:
                return waited, found
            progress.update(
                f"{len(asked) - len(waiting)} of {len(asked)} nodes ready after {waited:.0f} s; "
                f"waiting for {_first_of(waiting)}"
            )
            check_running(backend, nodes)
            if waited > timeout_seconds:
                raise ClusterError(
                    f"Not ready after {timeout_seconds:.0f} s: {_all_of(waiting)}. `mufakat logs "
                    f"{next(iter(waiting))}` may tell why; `mufakat down` ends the cluster."
                )
            time.sleep(POLL_SECONDS)
    finally:
        progress.clear()


def wait_live(backend: Backend, node: Node, *, timeout_seconds: float = LIVE_SECONDS_MAX) -> None:
    """Wait until one node answers. It does not have to be ready, because for that it may need others that do not run.

    Raises:
        InTheWay: a node of another cluster answers in its place.
        ClusterError: it ended, or it did not answer in time.
    """
    calls = Calls(backend)
    until = time.monotonic() + timeout_seconds
    while isinstance(calls.told(node), str):
        check_running(backend, (node,))
        if time.monotonic() > until:
            raise ClusterError(
                f"{node.id} runs but has not answered within {timeout_seconds:.0f} s. "
                f"`mufakat logs {node.id}` may tell why."
            )
        time.sleep(POLL_SECONDS)


def look_while_electing(
    look: Callable[[Roster], Found],
    backend: Backend,
    group: str,
    needed: Callable[[Roster], int] = lambda _: 1,
) -> tuple[Found, Roster]:
    """What `look` finds in the roster of a group, once it finds `needed` nodes, and the roster. It looks again as
    long as so many nodes run and the group may be electing; after that it may have found fewer.

    Raises:
        UsageError: there is no such group.
    """
    until = time.monotonic() + ELECTION_SECONDS_MAX
    while True:
        now = roster(backend, group)
        found = look(now)
        running = sum(seat.answer is not None or seat.process.is_running for seat in now.seats)
        if len(found) >= needed(now) or running < needed(now) or time.monotonic() > until:
            return found, now
        time.sleep(POLL_SECONDS)


def _words(reasons: dict[str, str]) -> str:
    return "; ".join(f"{group}: {why}" if group else why for group, why in reasons.items())


def _first_of(waiting: dict[str, str]) -> str:
    node_id, reason = next(iter(waiting.items()))
    others = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return f"{node_id} ({reason}){others}"


def _all_of(waiting: dict[str, str]) -> str:
    return ", ".join(f"{node_id} ({reason})" for node_id, reason in waiting.items())
