"""Waiting until nodes are where they should be, with a bound and a sentence for when they never get there."""

import time
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

from services.cluster.backend import Backend
from services.cluster.errors import ClusterError
from services.cluster.printing import ProgressLine
from services.cluster.probe import Readiness, ask_all, is_live, readiness
from services.cluster.topology import Node

Found = TypeVar("Found", bound=Sized)

#: How long a whole cluster may take until every node is ready.
READY_SECONDS_MAX = 90.0

#: How long one node may take until it answers at all; reading its log from the disk is part of it.
LIVE_SECONDS_MAX = 60.0

#: How long a group whose nodes run may be without a leader before a command that needs one gives up.
ELECTION_SECONDS_MAX = 10.0

#: Pause between two looks.
POLL_SECONDS = 0.1

#: How many of its last lines are shown of a node that ended.
TAIL_LINES = 8


def check_running(backend: Backend, nodes: Sequence[Node]) -> None:
    """See that the nodes' processes run.

    Raises:
        ClusterError: one has ended; the message carries what it wrote last.
    """
    processes = backend.processes()
    ended = [node for node in nodes if not processes[node.id].is_running]
    if ended:
        tail = "\n".join(f"  {line}" for line in backend.log_tail(ended[0], TAIL_LINES))
        names = ", ".join(node.id for node in ended)
        raise ClusterError(
            f"{names} ended while starting. `mufakat logs {ended[0].id}` shows why, `mufakat start "
            f"{ended[0].id}` tries again, `mufakat down` ends the others. Last lines of "
            f"{ended[0].id}:\n{tail or '  (it wrote nothing)'}"
        )


def wait_ready(
    backend: Backend, nodes: Sequence[Node], *, timeout_seconds: float = READY_SECONDS_MAX
) -> float:
    """Wait until every node is ready; returns how many seconds that took.

    Raises:
        ClusterError: a node ended, or they were not all ready in time.
    """
    began = time.monotonic()
    progress = ProgressLine()
    try:
        while True:
            answers = ask_all(nodes, lambda node: readiness(backend.host, node.client_port))
            waited = time.monotonic() - began
            waiting = {node_id: answer for node_id, answer in answers.items() if not answer.is_ready}
            if not waiting:
                return waited
            progress.update(
                f"{len(nodes) - len(waiting)} of {len(nodes)} nodes ready after {waited:.0f} s; "
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
    """Wait until one node answers; it need not be ready, for that it may need others that do not run.

    Raises:
        ClusterError: it ended, or it did not answer in time.
    """
    until = time.monotonic() + timeout_seconds
    while not is_live(backend.host, node.client_port):
        check_running(backend, (node,))
        if time.monotonic() > until:
            raise ClusterError(
                f"{node.id} runs but has not answered within {timeout_seconds:.0f} s. "
                f"`mufakat logs {node.id}` may tell why."
            )
        time.sleep(POLL_SECONDS)


def look_while_electing(
    backend: Backend, nodes: Sequence[Node], look: Callable[[], Found], needed: int = 1
) -> Found:
    """What `look` finds, once that is `needed` of the nodes. It looks again for as long as so many of them run, and
    their group may be electing; after that it may have found fewer."""
    until = time.monotonic() + ELECTION_SECONDS_MAX
    while len(found := look()) < needed:
        processes = backend.processes()
        running = sum(processes[node.id].is_running for node in nodes)
        if running < needed or time.monotonic() > until:
            break
        time.sleep(POLL_SECONDS)
    return found


def _first_of(waiting: dict[str, Readiness]) -> str:
    node_id, answer = next(iter(waiting.items()))
    others = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
    return f"{node_id} ({answer.reason}){others}"


def _all_of(waiting: dict[str, Readiness]) -> str:
    return ", ".join(f"{node_id} ({answer.reason})" for node_id, answer in waiting.items())
