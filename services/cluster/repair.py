"""Healing a node whose data is damaged: its files are put aside, and the group admits it again.

    refused ──removed and added──> expected with a new disk ──put aside──> empty ──started──> learner, voter, ready

The rule: touch only what the node itself refuses to use, move it and never delete it, and only if a majority of the
group is sound without this node: that majority has all that was ever acknowledged.
"""

import time

from services.cluster.backend import Backend
from services.cluster.calls import Calls
from services.cluster.errors import ClusterError
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import ProgressLine, echo
from services.cluster.roster import Roster, Seat, roster
from services.cluster.topology import Node
from services.cluster.waiting import POLL_SECONDS, check_running, look_while_electing, wait_live, wait_ready

#: How long the group may take to bring the node up to date; a large state takes long.
VOTES_SECONDS_MAX = 600.0


def repair_node(surroundings: Surroundings, node_id: str) -> None:
    """Heal one node; returns once it votes again in each group. After an interruption, call it again: the change in
    the group comes first, so that the node refuses its data until only its own start is left to do.

    Raises:
        UsageError: there is no node of that id.
        InTheWay: the environment says something else than the settings of the cluster.
        ClusterError: nothing is damaged, or too few of the others are sound.
    """
    surroundings.home.require_cluster()
    with surroundings.home.exclusive():
        backend = surroundings.backend(surroundings.settled(surroundings.home.require_cluster()))
        node = backend.topology.node(node_id)
        if not backend.process_of(node).is_running:
            backend.start(node)
        wait_live(backend, node)
        calls = Calls(backend)
        told = calls.told(node)
        problems = {} if isinstance(told, str) else told.refused
        if not problems:
            raise ClusterError(f"Nothing is damaged on {node_id}: it refuses none of its data.")
        for group, problem in problems.items():
            echo(f"{node_id}, group {group}: {problem}")
        helpers = {group: _sound_member(backend, node, group) for group in problems}
        for group, helper in helpers.items():
            _admit_anew(calls, backend, node, group, helper)
        for group, aside in calls.ask(node, "/admin/repair", {})["put_aside"].items():
            echo(f"The damaged files of {group} are kept in {aside}.")
        backend.stop(node)
        backend.start(node)
    wait_live(backend, node)
    seconds = _wait_votes(backend, node, list(problems))
    echo(f"{node_id} has its data back from the others and votes again ({seconds:.1f} s).")


def _sound_member(backend: Backend, damaged: Node, group: str) -> Seat:
    """A member of a majority of the group's voters that is sound without the damaged node. It waits if they run and
    may be electing.

    Raises:
        ClusterError: there is none.
    """

    def sound_ones(now: Roster) -> list[Seat]:
        others = [seat for seat in now.voters(group) if seat.node.id != damaged.id]
        return [seat for seat in others if seat.answer and (told := seat.answer.groups.get(group)) and told.ready]

    def majority(now: Roster) -> int:
        return len(now.voters(group)) // 2 + 1

    sound, now = look_while_electing(sound_ones, backend, group, majority)
    voters, needed = now.voters(group), majority(now)
    if len(sound) < needed:
        named = ", ".join(seat.node.id for seat in voters)
        raise ClusterError(
            f"Only {len(sound)} of the {len(voters)} voters of {group} ({named}) are ready and {needed} are needed, "
            f"without {damaged.id}, to be sure that they hold all that was acknowledged. Start or repair the others "
            "first. If a majority is lost for good: `mufakat recover` makes a group out of one disk, `mufakat "
            "restore` begins anew from a backup."
        )
    return sound[0]


def _admit_anew(calls: Calls, backend: Backend, node: Node, group: str, helper: Seat) -> None:
    """Make the group forget the node's former disk and expect a new one."""
    assert helper.answer is not None
    reached_at = helper.answer.addresses.get(node.id)
    calls.ask(helper.node, "/admin/members", {"remove": {"id": node.id, "group": group}})
    added = {"id": node.id, "address": reached_at or f"{backend.host}:{node.client_port}", "group": group}
    calls.ask(helper.node, "/admin/members", {"add": added})
    echo(f"{group} takes {node.id} in anew.")


def _wait_votes(backend: Backend, node: Node, groups: list[str]) -> float:
    """Wait until the node is ready and these groups name it a voter; returns how many seconds that took.

    Raises:
        ClusterError: it ended, or that took too long.
    """
    began = time.monotonic()
    _, now = wait_ready(backend, [node], timeout_seconds=VOTES_SECONDS_MAX)
    progress = ProgressLine()
    try:
        while True:
            seat = now.seat(node.id)
            waiting = [group for group in groups if seat is None or seat.memberships.get(group) != "voter"]
            waited = time.monotonic() - began
            if not waiting and seat is not None and not seat.reasons():
                return waited
            progress.update(f"{node.id} is a learner of {', '.join(waiting)} after {waited:.0f} s; it is catching up")
            check_running(backend, [node])
            if waited > VOTES_SECONDS_MAX:
                raise ClusterError(
                    f"{node.id} has its files back but does not vote after {VOTES_SECONDS_MAX:.0f} s in "
                    f"{', '.join(waiting)}. It goes on catching up; `mufakat status` shows how far it is."
                )
            time.sleep(POLL_SECONDS)
            now = roster(backend)
    finally:
        progress.clear()
