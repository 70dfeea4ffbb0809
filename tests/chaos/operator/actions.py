"""What an operator does in a day: start, stop, kill, freeze, add, remove, back up, and be interrupted.

An action takes the world and the random numbers of its step. It returns False if it did not fit the situation and did
nothing. The rule of the file: nothing here destroys data (`disasters.py` does).
"""

import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.operator.judge import is_ready, status_of
from tests.chaos.operator.world import ADDED, GROUPS, TOPOLOGY, World, wait

#: Longest time after which a command is cut off; `up` of three nodes takes some seconds.
CUT_OFF_SECONDS_MAX = 4.0
#: Longer than an election and a lease.
FREEZE_SECONDS_MAX = 3.0


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that the operator can do."""

    name: str
    do: Callable[[World, random.Random], bool | None]
    #: How often it is chosen, beside the others.
    weight: int = 4
    #: Only where all is whole.
    needs_whole: bool = False


def _any_node(world: World, chance: random.Random) -> str:
    return chance.choice(world.node_ids())


def up(world: World, chance: random.Random) -> None:
    world.up()


def up_again(world: World, chance: random.Random) -> None:
    """Twice, and then with another port offset, which is refused."""
    if world.up().exit_code != 0:
        return
    again = world.up()
    if again.exit_code != 0:
        raise world.fault(f"rule 3: a second `up` fails: {again.text}")
    other = world.mufakat("up", "--topology", "combined", "--mode", "local", "--port-offset", "7")
    if other.exit_code != 3:
        raise world.fault(f"rule 3: `up` on other ports beside a cluster that is up is not refused: {other}")


def down(world: World, chance: random.Random) -> None:
    done = world.mufakat("down")
    if done.exit_code not in (0, 4):
        raise world.fault(f"rule 3: `down` failed: {done.text}")


def start(world: World, chance: random.Random) -> None:
    node_ids = chance.sample(world.node_ids(), chance.randint(1, 2))
    world.mufakat("start", *node_ids)


def start_twice(world: World, chance: random.Random) -> None:
    node_id = _any_node(world, chance)
    world.mufakat("start", node_id, node_id)


def start_running(world: World, chance: random.Random) -> bool | None:
    runs = sorted(set(world.processes().values()))
    if not runs or world.status()[0] != 0:
        return False
    done = world.mufakat("start", chance.choice(runs))
    if done.exit_code == 0 and "runs" not in done.out:
        raise world.fault(f"rule 3: `{done}` of a node that runs says {done.text!r}")
    return None


def stop(world: World, chance: random.Random) -> None:
    world.mufakat("stop", _any_node(world, chance))


def stop_twice(world: World, chance: random.Random) -> None:
    node_id = _any_node(world, chance)
    world.mufakat("stop", node_id, node_id)


def kill(world: World, chance: random.Random) -> None:
    world.mufakat("kill", *chance.sample(world.node_ids(), chance.randint(1, 3)))


def kill_leader(world: World, chance: random.Random) -> None:
    world.mufakat("kill-leader", "--group", chance.choice(GROUPS))


def unknown_node(world: World, chance: random.Random) -> None:
    command = chance.choice((("start",), ("stop",), ("kill",), ("repair",), ("logs",)))
    before = world.processes()
    done = world.mufakat(*command, "node1", "nodeX") if command[0] == "stop" else world.mufakat(*command, "nodeX")
    if done.exit_code not in (2, 4, 3):
        raise world.fault(f"rule 3: `{done}` of a node that there is not: {done.text}")
    if set(before) != set(world.processes()):
        raise world.fault(f"rule 3: `{done}` was refused, and did something: {before}, then {world.processes()}")


def sigkill(world: World, chance: random.Random) -> bool | None:
    pids = sorted(world.processes())
    if not pids:
        return False
    pid = chance.choice(pids)
    world.note(f"SIGKILL to {world.processes().get(pid)}")
    world.send(pid, signal.SIGKILL)
    wait(lambda: pid not in world.processes(), 5)
    return None


def freeze(world: World, chance: random.Random) -> bool | None:
    """One node stands still, mostly for a while, sometimes while a command runs."""
    pids = sorted(world.processes())
    if not pids:
        return False
    pid = chance.choice(pids)
    node_id = world.processes().get(pid, "?")
    world.note(f"SIGSTOP to {node_id}")
    world.freeze(pid)
    what = chance.choice(("wait", "wait", "status", "kill", "list", "start"))
    if what == "wait":
        time.sleep(chance.uniform(0.2, FREEZE_SECONDS_MAX))
    elif what == "status":
        world.status()
    elif what == "kill":
        world.mufakat("kill", node_id)
    elif what == "list":
        world.mufakat("member", "list")
    else:
        world.mufakat("start", node_id, cut_off=(signal.SIGINT, 3.0))
    world.thaw()
    return None


def freeze_and_stop(world: World, chance: random.Random) -> bool | None:
    """`stop` of a node that stands still: it is killed in the end."""
    pids = sorted(world.processes())
    if not pids:
        return False
    pid = chance.choice(pids)
    node_id = world.processes().get(pid, "?")
    world.freeze(pid)
    world.mufakat("stop", node_id)
    world.thaw()
    return None


def cut_off(world: World, chance: random.Random) -> None:
    """A command that is ended by a signal on its way."""
    node_id = _any_node(world, chance)
    commands: tuple[tuple[str, ...], ...] = (
        ("start", *world.node_ids()),
        ("stop", node_id),
        ("stop", *world.founders),
        ("down",),
        ("repair", node_id),
        ("member", "add", ADDED),
        ("member", "remove", node_id),
        ("backup", "--group", chance.choice(GROUPS), str(world.folder / "cut-off.backup")),
    )
    when = chance.choice((signal.SIGKILL, signal.SIGINT)), chance.uniform(0.05, CUT_OFF_SECONDS_MAX)
    if chance.random() < 0.4:
        if world.status()[0] == 0 and chance.random() < 0.6:
            world.mufakat("down", cut_off=(when[0], chance.uniform(0.2, 1.5)))
        world.up(cut_off=when)
        return
    world.mufakat(*chance.choice(commands), cut_off=when)


def cut_off_down(world: World, chance: random.Random) -> None:
    """A `down` that was cut off is finished by the next."""
    number = chance.choice((signal.SIGKILL, signal.SIGINT))
    world.mufakat("down", cut_off=(number, chance.uniform(0.1, 1.5)))
    down(world, chance)
    left = world.processes()
    if left:
        raise world.fault(f"rule 2: after `down`, cut off and asked again, {left} run")


def member_add_new(world: World, chance: random.Random) -> None:
    world.mufakat("member", "add", ADDED)


def member_remove(world: World, chance: random.Random) -> None:
    world.mufakat("member", "remove", chance.choice([*world.founders, ADDED]))


def member_remove_and_add(world: World, chance: random.Random) -> bool | None:
    """Of a node that runs; it may be of any group's leader."""
    if world.status()[0] != 0:
        return False
    node_id = _any_node(world, chance)
    if world.mufakat("member", "remove", node_id).exit_code == 0:
        if chance.random() < 0.5:
            world.mufakat("stop", node_id)
        world.mufakat("member", "add", node_id)
    return None


def member_list(world: World, chance: random.Random) -> None:
    world.mufakat("member", "list")


def backup_online(world: World, chance: random.Random) -> None:
    for group in GROUPS:
        world.mufakat("backup", "--group", group, str(world.folder / f"{group}.online"))


def backup_offline(world: World, chance: random.Random) -> bool | None:
    """Of the disk of a node that does not run; one that runs is refused."""
    node_id, group = _any_node(world, chance), chance.choice(GROUPS)
    data_dir, file = world.data_dir(node_id), world.folder / f"{group}.offline"
    if not any((data_dir / group).glob("*.wal")):
        return False
    runs = bool(world.pids(node_id))
    done = world.mufakat("backup", "--data-dir", str(data_dir), "--group", group, str(file))
    if runs and done.exit_code == 0 and world.pids(node_id):
        raise world.fault(f"rule 3: the disk of {node_id} was backed up although it runs")
    return None


def stray_variable(world: World, chance: random.Random) -> None:
    """A variable in the environment that says something else than the cluster's settings is refused."""
    name, text = chance.choice(
        (("MUFAKAT_SNAPSHOT_ENTRIES", "123"), ("MUFAKAT_CLUSTER_SECRET", "x" * 20), ("MUFAKAT_CLUSTER_ID", "ab" * 8))
    )
    command = chance.choice((("start", _any_node(world, chance)), ("member", "add", ADDED), ("repair", "node1")))
    before = set(world.processes())
    done = world.mufakat(*command, environ={name: text})
    if done.exit_code not in (3, 4):
        raise world.fault(f"rule 3: {name} in the environment is not refused by `{done}`: {done.text}")
    if set(world.processes()) - before:
        raise world.fault(f"rule 3: `{done}` was refused and started a node")


def config_and_rolling_restart(world: World, chance: random.Random) -> None:
    """A setting is changed, then one node after another is restarted, each once the one before is ready."""
    entries = str(chance.choice((150, 300, 500, 2_000)))
    done = world.mufakat("config", "set", f"MUFAKAT_SNAPSHOT_ENTRIES={entries}")
    if done.exit_code != 0:
        raise world.fault(f"rule 3: `{done}` failed: {done.text}")
    world.settings["MUFAKAT_SNAPSHOT_ENTRIES"] = entries
    for node_id in world.founders:
        for command in ("stop", "start"):
            if world.mufakat(command, node_id).exit_code != 0:
                return
        if not wait(lambda node_id=node_id: is_ready(world.port(node_id)), 60):
            told = status_of(world.port(node_id)) or {}
            raise world.fault(f"{node_id} is not ready 60 s after a restart: {told.get('not_ready')}")


def several_at_once(world: World, chance: random.Random) -> None:
    """Commands at the same time: some may be told to wait, and none leaves a node that nobody knows."""
    faults: list[BaseException] = []

    def run(arguments: tuple[str, ...], options: dict[str, Any]) -> None:
        try:
            world.mufakat(*arguments, alone=False, **options)
        except BaseException as error:
            faults.append(error)

    some, other = (_any_node(world, chance) for _ in range(2))
    offset = str(world.port_offset)
    commands: tuple[tuple[str, ...], ...] = (
        *(("start", some), ("start", other), ("stop", some), ("kill", other), ("down",), ("status",)),
        *(("member", "add", some), ("repair", other), ("kill-leader",), ("member", "remove", other)),
        ("up", "--topology", TOPOLOGY, "--mode", "local", "--port-offset", offset),
    )
    chosen = chance.sample(commands, chance.randint(2, 3))
    # One of them may stand still for a moment, with whatever it holds.
    stands = chance.choice(({}, {"cut_off": (signal.SIGSTOP, chance.uniform(0.2, 2.0))}))
    threads = [
        threading.Thread(target=run, args=(arguments, stands if number == 0 else {}))
        for number, arguments in enumerate(chosen)
    ]
    for thread in threads:
        thread.start()
        time.sleep(chance.uniform(0, 0.4))
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def look_around(world: World, chance: random.Random) -> None:
    """Commands that only look."""
    command = chance.choice((("status",), ("config", "show"), ("logs", "--lines", "5"), ("member", "list")))
    world.mufakat(*command)


def calm(world: World, chance: random.Random) -> None:
    time.sleep(chance.uniform(0.5, 2.0))


ACTIONS = (
    Action("up", up),
    Action("up again", up_again, 2),
    Action("down", down, 3),
    Action("start", start, 6),
    Action("start, named twice", start_twice),
    Action("start of one that runs", start_running, 2),
    Action("stop", stop, 6),
    Action("stop, named twice", stop_twice, 2),
    Action("kill", kill, 6),
    Action("kill-leader", kill_leader, 6),
    Action("an unknown node", unknown_node, 2),
    Action("SIGKILL", sigkill, 6),
    Action("freeze", freeze, 6),
    Action("freeze and stop", freeze_and_stop, 1),
    Action("a command that is cut off", cut_off, 14),
    Action("down, cut off and again", cut_off_down, 3),
    Action("member add node4", member_add_new),
    Action("member remove", member_remove),
    Action("member remove and add", member_remove_and_add),
    Action("member list", member_list, 2),
    Action("backup", backup_online, 3),
    Action("backup of a disk", backup_offline),
    Action("a stray variable", stray_variable, 3),
    Action("several commands at once", several_at_once, 8),
    Action("a look around", look_around, 2),
    Action("calm", calm, 3),
    Action("config set, rolling restart", config_and_rolling_restart, 2, needs_whole=True),
)
