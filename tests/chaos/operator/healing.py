"""Making a cluster whole again as the docs say, whatever `status` shows, and the check that everything is there then.

The rule of the file: each turn looks at the status again and does the one next thing that docs/operations.md names
for it.
"""

import re
import time
from typing import Any

from tests.chaos.operator.clients import look, missing
from tests.chaos.operator.judge import check_world, is_ready
from tests.chaos.operator.world import ADDED, GROUPS, World

#: So long a healing may take in all.
HEAL_SECONDS_MAX = 240.0
#: Nodes that run and are not ready are given so long before a healing says that they never will be.
PAUSE_SECONDS = 0.4
#: How long replicas may take until they have applied the same.
ALIKE_SECONDS_MAX = 30.0


def heal(world: World) -> None:
    """Make every node a ready voter, then compare with what was acknowledged.

    Raises:
        Fault: that is not reached in time, or something acknowledged is gone.
    """
    world.note("heal")
    world.thaw()
    until = time.monotonic() + HEAL_SECONDS_MAX
    while not _do_next(world):
        if time.monotonic() > until:
            raise world.fault(f"not healed within {HEAL_SECONDS_MAX:.0f} s: {_shown(world)}")
    check_world(world)
    check_kept(world)
    check_alike(world)
    world.is_whole = True
    world.spoilt.clear()
    world.counts["healings"] += 1


def _do_next(world: World) -> bool:
    """One turn; True where nothing is left to do."""
    code, told = world.status()
    if code == 4:
        _up(world)
        return False
    if code != 0:
        raise world.fault(f"`status` fails with {code}: {told.get('said')}")
    rows = told["nodes"]
    down = [row["id"] for row in rows if row["state"] in ("stopped", "dead") and _is_wanted(row)]
    if len(down) == len(world.founders) and not world.processes():
        _up(world)
        return False
    if down:
        world.mufakat("start", *down)
        return False
    for row in rows:
        command = _command_for(row)
        if command:
            world.mufakat(*command)
            return False
    if all(_is_whole(row) for row in rows if _is_wanted(row)):
        return True
    time.sleep(PAUSE_SECONDS)
    return False


def _up(world: World) -> None:
    done = world.up()
    if done.exit_code == 0:
        return
    advice = re.search(r"`mufakat (restore [^`]*)` finishes it", done.text)
    if advice:
        world.mufakat(*advice[1].split())


def _memberships(row: dict[str, Any]) -> set[str]:
    return {group["member"] or "" for group in row["status"].values()}


def _is_wanted(row: dict[str, Any]) -> bool:
    """A node of the topology, or an added one that is a member of anything."""
    return row["id"] != ADDED or bool(_memberships(row) & {"voter", "learner"})


def _is_whole(row: dict[str, Any]) -> bool:
    return row["state"] == "running" and _memberships(row) == {"voter"}


def _command_for(row: dict[str, Any]) -> tuple[str, ...] | None:
    """What an operator does about a node that runs; None where it is to be waited for."""
    if row["state"] == "away":
        # Its cluster.json was lost, and with it that it was started from here.
        return ("member", "remove", row["id"])
    if row["state"] == "removed":
        return ("stop", row["id"]) if row["id"] == ADDED else ("member", "add", row["id"])
    reasons = " ".join(row["reasons"].values())
    if "this node takes no part" in reasons and "damaged" in reasons:
        return ("repair", row["id"])
    if "not the one that the group knows" in reasons:
        return ("member", "remove", row["id"])
    if "none" in _memberships(row) or "no member of the group" in reasons:
        return ("member", "add", row["id"])
    return None


def _shown(world: World) -> list[str]:
    rows = world.status()[1]["nodes"]
    return [f"{row['id']} {row['state']} {_memberships(row)} {row['reasons']}" for row in rows]


def check_kept(world: World) -> None:
    """Rule 1. Raises Fault."""
    ledger = world.clients.acknowledged()
    ready = [node_id for node_id in world.founders if is_ready(world.port(node_id))]
    if not ready:
        return
    lost = missing(world.port(ready[0]), ledger)
    if lost:
        raise world.fault(f"rule 1: {len(lost)} acknowledged writes are gone, among them {lost[:5]}")


def check_alike(world: World) -> None:
    """Replicas that have applied the same hold the same. Raises Fault."""
    for group in GROUPS:
        until = time.monotonic() + ALIKE_SECONDS_MAX
        while True:
            told = [look(world.port(node_id), f"/admin/hash?group={group}") for node_id in world.founders]
            by_index: dict[int, set[str]] = {}
            for each in told:
                by_index.setdefault(each["applied_index"], set()).add(each["hash"])
            if any(len(hashes) > 1 for hashes in by_index.values()):
                raise world.fault(f"rule 1: nodes at the same index of {group} differ: {told}")
            if len(by_index) < len(told):
                break
            if time.monotonic() > until:
                break
