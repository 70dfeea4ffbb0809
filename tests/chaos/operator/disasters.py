"""What happens to disks, files and ports: damage, loss, a full disk, a restore, a recovery, another cluster.

The rule of the file: between two healings, at most one node's data is destroyed, right after the first of them,
unless the story itself brings the rest back (restore, recover).
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.chaos.operator.actions import Action
from tests.chaos.operator.healing import check_kept, heal
from tests.chaos.operator.judge import check_world, files_below, is_ready, status_of
from tests.chaos.operator.world import ADDED, GROUPS, TOPOLOGY, World, wait

#: A node whose data directory was deleted ends within so many seconds.
ENDS_SECONDS_MAX = 15.0
READY_SECONDS_MAX = 60.0
#: First bytes of a record of the log, and how many of them must follow one that is damaged: not a torn end.
RECORD_MARK = b"MR"
RECORDS_BEHIND_MIN = 3
FILL_BYTES = 1 << 16


def empty(folder: Path) -> None:
    """Delete what is in a folder, as `rm -rf FOLDER/*` does; the folder may be a link."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def damage_wal(world: World, chance: random.Random) -> bool | None:
    """A byte in the middle of the newest file of the log changes while the node is dead; then it is repaired."""
    node_id, group = chance.choice(world.founders), chance.choice(GROUPS)
    world.mufakat("kill", node_id)
    path = max((world.data_dir(node_id) / group).glob("*.wal"), default=None)
    if path is None:
        return False
    content = bytearray(path.read_bytes())
    places = [at for at in range(150, len(content)) if content.startswith(RECORD_MARK, at)]
    if len(places) < 2 * RECORDS_BEHIND_MIN:
        return False
    content[places[len(places) // 2] + 30] ^= 1
    path.write_bytes(content)
    world.note(f"a byte of {path.relative_to(world.home)} was changed")
    if chance.random() < 0.5:
        world.mufakat("start", node_id)
    if chance.random() < 0.5:
        world.mufakat("repair", node_id, cut_off=(signal.SIGKILL, chance.uniform(0.3, 5)))
    if chance.random() < 0.7:
        done = world.mufakat("repair", node_id)
        if done.exit_code not in (0, 1):
            raise world.fault(f"rule 3: `{done}`: {done.text}")
    return None


def wipe_disk(world: World, chance: random.Random) -> None:
    """A node that does not run loses all it had, is started, and is removed and added as the docs say."""
    node_id = chance.choice(world.founders)
    world.mufakat(chance.choice(("stop", "kill")), node_id)
    empty(world.data_dir(node_id))
    world.note(f"all data of {node_id} was deleted")
    world.mufakat("start", node_id)
    if chance.random() < 0.5:
        world.mufakat("member", "remove", node_id)
        world.mufakat("member", "add", node_id)


def delete_while_running(world: World, chance: random.Random) -> bool | None:
    """The directory of a node goes while it runs: it ends by itself."""
    node_id = chance.choice(world.founders)
    pids = world.pids(node_id)
    if not pids:
        return False
    data_dir = world.data_dir(node_id)
    what = chance.choice(("all", "all", "PROCESS", "a group"))
    world.note(f"{what} of the data of {node_id} is deleted while it runs")
    if what == "PROCESS":
        (data_dir / "PROCESS").unlink()
    elif what == "a group":
        shutil.rmtree(data_dir / chance.choice(GROUPS))
    elif data_dir.is_symlink():
        empty(data_dir)
    else:
        shutil.rmtree(data_dir, ignore_errors=True)
    if not wait(lambda: not set(pids) & set(world.processes()), ENDS_SECONDS_MAX):
        raise world.fault(f"rule 2: {node_id} runs {ENDS_SECONDS_MAX:.0f} s after {what} of its data was deleted")
    return None


def fill_disk(world: World, chance: random.Random) -> bool | None:
    """The small disk of node3 fills up, commands go on, and it is freed again."""
    if world.small_disk is None:
        return False
    filler = world.small_disk / "filler"
    world.note("the disk of node3 is full")
    try:
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * FILL_BYTES)
        with open(filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 512)
        time.sleep(chance.uniform(0.5, 3.0))
        for command in chance.sample((("status",), ("stop", "node3"), ("start", "node3"), ("kill", "node3")), 2):
            world.mufakat(*command)
    finally:
        filler.unlink(missing_ok=True)
        world.note("the disk of node3 has room again")
    return None


def restore_from_backups(world: World, chance: random.Random) -> bool | None:
    """Backups of all groups, `down --wipe`, `restore`, `up`: what was acknowledged before them is there."""
    kept = world.clients.acknowledged()
    files = {group: world.folder / f"{group}.backup" for group in GROUPS}
    for group, file in files.items():
        if world.mufakat("backup", "--group", group, str(file)).exit_code != 0:
            return False
    with world.clients.quiet():
        if chance.random() < 0.5:
            world.mufakat("down")
        if chance.random() < 0.4:
            world.mufakat("down", "--wipe", cut_off=(signal.SIGKILL, chance.uniform(0.2, 1.0)))
            if files_below(world.home / TOPOLOGY):
                check_world(world)
        wiped = world.mufakat("down", "--wipe")
        if wiped.exit_code != 0:
            raise world.fault(f"rule 3: `down --wipe` failed: {wiped.text}")
        world.clients.claim_only(kept)
        for group in chance.sample(GROUPS, len(GROUPS)):
            _restore(world, chance, files[group])
        up = world.up()
        if up.exit_code != 0:
            raise world.fault(f"rule 3: `up` after a restore failed: {up.text}")
        check_kept(world)
    return None


def _restore(world: World, chance: random.Random, file: Path) -> None:
    command = ("restore", str(file), "--topology", TOPOLOGY)
    if chance.random() < 0.4:
        number = chance.choice((signal.SIGKILL, signal.SIGINT))
        cut = world.mufakat(*command, cut_off=(number, chance.uniform(0.2, 0.8)))
        if (world.home / "restoring.json").exists():
            refused = world.up()
            if refused.exit_code == 0:
                raise world.fault(f"rule 3: `up` went on beside an unfinished restore: {refused.text}")
            world.counts["interrupted restores"] += 1
            if chance.random() < 0.4:
                world.mufakat("restore", "--abandon")
        elif cut.exit_code == 0 or any(map(files_below, _folders(world, file.stem))):
            return
    done = world.mufakat(*command)
    if done.exit_code != 0:
        raise world.fault(f"rule 3: `{done}` failed: {done.text}")


def _folders(world: World, group: str) -> list[Path]:
    return [world.data_dir(node_id) / group for node_id in world.founders]


def recover_from_one(world: World, chance: random.Random) -> bool | None:
    """All disks but one are lost; what was on that one is there afterwards."""
    survivor = chance.choice(world.founders)
    if ADDED in world.node_ids():
        # This story is of three nodes.
        world.mufakat("member", "remove", ADDED)
        if world.mufakat("stop", ADDED).exit_code != 0:
            return False
        shutil.rmtree(world.data_dir(ADDED).parent)
    with world.clients.quiet():
        if not wait(lambda: _holds_all(world, survivor), 20):
            return False
        if world.mufakat("stop", *world.founders).exit_code != 0:
            return False
        others = [node_id for node_id in world.founders if node_id != survivor]
        for node_id in others:
            empty(world.data_dir(node_id))
        world.note(f"all data but that of {survivor} was deleted")
        if chance.random() < 0.3:
            world.mufakat("recover", str(world.data_dir(survivor)), "--yes", cut_off=(signal.SIGKILL, 0.6))
        done = world.mufakat("recover", str(world.data_dir(survivor)), "--yes")
        if done.exit_code != 0:
            raise world.fault(f"rule 3: `{done}` failed: {done.text}")
        for node_id in (survivor, *others):
            started = world.mufakat("start", node_id)
            if started.exit_code != 0:
                raise world.fault(f"rule 3: `{started}` after a recovery failed: {started.text}")
            if node_id == survivor and not wait(lambda: is_ready(world.port(survivor)), READY_SECONDS_MAX):
                raise world.fault(f"{survivor} is not ready alone after it was recovered")
            if node_id != survivor:
                added = world.mufakat("member", "add", node_id, f"127.0.0.1:{world.port(node_id)}")
                if added.exit_code != 0:
                    raise world.fault(f"rule 3: `{added}` after a recovery failed: {added.text}")
        heal(world)
    return None


def _holds_all(world: World, node_id: str) -> bool:
    told = {each: status_of(world.port(each)) for each in world.founders}
    if not all(told.values()):
        return False
    commits = {group: max(each["groups"][group]["commit_index"] for each in told.values()) for group in GROUPS}
    return all(told[node_id]["groups"][group]["durable_index"] >= commits[group] for group in GROUPS)


def another_cluster(world: World, chance: random.Random) -> None:
    """Another home's cluster takes the ports while ours is down, or dead: no command here does anything to it."""
    home = world.folder / "another"
    with world.clients.quiet():
        was_killed = chance.random() < 0.5
        if was_killed:
            world.mufakat("kill", *world.founders)
        # After a kill, an added node may run still.
        if not was_killed or world.processes():
            world.mufakat("down")
        offset = ("--port-offset", str(world.port_offset))
        up = world.mufakat("up", "--topology", TOPOLOGY, "--mode", "local", *offset, home=home)
        if up.exit_code != 0:
            raise world.fault(f"rule 3: another cluster on the ports of ours, which is down, is refused: {up.text}")
        theirs = world.processes(home)
        commands = (
            *(("start", world.founders[0]), ("stop", world.founders[0]), ("kill", *world.founders), ("kill-leader",)),
            *(("member", "remove", "node2"), ("member", "add", "node3"), ("repair", "node1"), ("down",)),
            ("backup", "--group", "lock", str(world.folder / "theirs.backup")),
        )
        for command in chance.sample(commands, 4):
            done = world.mufakat(*command)
            if command[0] in ("member", "repair", "backup", "kill-leader") and done.exit_code == 0:
                raise world.fault(f"rule 3: `{done}` was done to another cluster: {done.text}")
        refused = world.up()
        if refused.exit_code == 0:
            raise world.fault(f"rule 3: `up` on the ports of another cluster says that it is up: {refused.text}")
        if world.processes(home) != theirs:
            raise world.fault(f"rule 3: the other cluster was {theirs} and is {world.processes(home)}")
        members = status_of(world.port("node1"))
        if not members or set(members["members"]) != set(world.founders):
            raise world.fault(f"rule 3: the other cluster's members were changed: {members}")
        world.mufakat("down", "--wipe", home=home)
        left = world.processes(home)
        if left:
            raise world.fault(f"rule 2: {left} of the other cluster run after its `down`")


def spoil_process_file(world: World, chance: random.Random) -> bool | None:
    """What is noted in a PROCESS file is spoilt; whether a node runs is told by the lock."""
    node_id = chance.choice(world.node_ids())
    path = world.data_dir(node_id) / "PROCESS"
    if not path.is_file():
        return False
    text = chance.choice((b"", b"\0" * 40, b'{"node": "node1", "pid": 1, "started": "x"}', os.urandom(64)))
    world.note(f"PROCESS of {node_id} is spoilt with {text[:12]!r}")
    with open(path, "r+b") as file:
        file.truncate(0)
        file.write(text)
    world.spoilt.add(node_id)
    world.mufakat(*chance.choice((("status",), ("stop", node_id), ("kill", node_id), ("start", node_id), ("down",))))
    return None


def spoil_cluster_file(world: World, chance: random.Random) -> None:
    """cluster.json is damaged: every command says so and what to do, and that is done."""
    path = world.home / "cluster.json"
    if not path.exists():
        return
    whole = path.read_bytes()
    path.write_bytes(chance.choice((b"", whole[: len(whole) // 2], b"[]\n", os.urandom(80), b'{"format": 1}\n')))
    world.note("cluster.json is damaged")
    commands = (("status",), ("start", "node1"), ("kill", "node1"), ("member", "list"), ("up",))
    for command in chance.sample(commands, 2):
        done = world.mufakat(*command)
        if done.exit_code != 1 or "cluster.json" not in done.err:
            raise world.fault(f"rule 3: `{done}` with a damaged cluster.json: {done.text}")
    world.mufakat("down")
    if left := world.processes():
        raise world.fault(f"rule 2: {left} run after the `down` that the message advised")
    path.unlink()
    done = world.up()
    if done.exit_code != 0:
        raise world.fault(f"rule 3: `up` after the damaged cluster.json was deleted failed: {done.text}")


def delete_cluster_file(world: World, chance: random.Random) -> None:
    """cluster.json is gone while nodes run: `down` finds them by their data."""
    (world.home / "cluster.json").unlink(missing_ok=True)
    world.note("cluster.json was deleted")
    if chance.random() < 0.5:
        world.mufakat("down")
        if left := world.processes():
            raise world.fault(f"rule 2: {left} run after `down`")
    done = world.up()
    if done.exit_code != 0:
        raise world.fault(f"rule 3: `up` without a cluster.json failed: {done.text}")


def make_small_disk(folder: Path, size_mib: int = 48) -> Path | None:
    """Mount a small disk; None where that is not allowed here."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return None
    command = ("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder))
    return folder if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0 else None


#: First after a healing.
DISASTERS = (
    Action("damaged log, repair", damage_wal),
    Action("wiped disk", wipe_disk),
    Action("data deleted while running", delete_while_running),
    Action("full disk", fill_disk),
    Action("wipe, restore, up", restore_from_backups),
    Action("recover from one disk", recover_from_one, 3),
    Action("another cluster on the ports", another_cluster, 2),
    Action("damaged cluster.json", spoil_cluster_file, 2),
    Action("deleted cluster.json", delete_cluster_file, 2),
)
MORE_ACTIONS = (Action("damaged PROCESS", spoil_process_file, 3),)
