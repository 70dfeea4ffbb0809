"""What must be true after every action.

    1  no acknowledged write is gone (`healing.py` checks it)
    2  no node runs that `status` does not show
    3  no command says something untrue
    4  there is no traceback, and every command ends

Each finding carries the seed and the actions so far.
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from raft.storage import StorageError
from raft.storage.backup import verify_backup
from tests.chaos.operator.world import GROUPS, TOPOLOGY, Command, World, wait
from tests.cluster.tools import call

#: A node that was just started or killed is shown as it is within so many seconds.
SEEN_SECONDS_MAX = 8.0
#: A leader may change after a command has said that all are ready.
STILL_READY_SECONDS_MAX = 15.0

NODE = r"^(?P<node>node\d+)"
ADDRESS = r"127\.0\.0\.1:(?P<port>\d+)"


def check_command(world: World, command: Command) -> None:
    """Rules 3 and 4 for one command. Raises Fault."""
    if "Traceback" in command.text or "Error(" in command.text:
        raise world.fault(f"rule 4: a traceback of `{command}`:\n{command.text}")
    codes = {0, 1, 2, 3, 4}
    if command.cut_off and command.cut_off != signal.SIGSTOP:
        codes |= {-command.cut_off, 130} if command.cut_off == signal.SIGINT else {-command.cut_off}
    if command.exit_code not in codes:
        raise world.fault(f"rule 3: `{command}` ended with an exit code that there is not:\n{command.text}")
    if command.exit_code in (1, 2, 3, 4) and command.arguments[0] != "wal" and not command.err.strip():
        raise world.fault(f"rule 3: `{command}` failed and says nothing on stderr:\n{command.out}")
    for line in command.out.splitlines() if command.alone else ():
        for pattern, check in STATEMENTS:
            found = re.search(pattern, line)
            if found and (why := check(world, command, found)):
                raise world.fault(f"rule 3: `{command}` says {line!r}, but {why}")


def _is_gone(world: World, _: Command, found: re.Match[str]) -> str:
    left = world.pids(found["node"])
    return f"process {left} of {found['node']} runs" if left else ""


def _answers(world: World, _: Command, found: re.Match[str]) -> str:
    pid = int(found["pid"])
    if pid not in world.pids(found["node"]):
        return f"{world.pids(found['node'])} are its processes"
    told = wait(lambda: status_of(int(found["port"])), 5)
    return "" if told and told["pid"] == pid else f"it answers {told}"


def _runs(world: World, _: Command, found: re.Match[str]) -> str:
    pids = world.pids(found["node"])
    return "" if int(found["pid"]) in pids else f"its processes are {pids}"


def _all_ready(world: World, _: Command, found: re.Match[str]) -> str:
    def unready() -> list[str]:
        removed = {row["id"] for row in world.status()[1]["nodes"] if row["state"] == "removed"}
        nodes = set(world.processes().values()) - removed
        if len(nodes) != int(found["count"]):
            return [f"{sorted(nodes)} run"]
        return [node_id for node_id in nodes if not is_ready(world.port(node_id))]

    wait(lambda: not unready(), STILL_READY_SECONDS_MAX)
    return f"these are not: {', '.join(left)}" if (left := unready()) else ""


def _nothing_runs(world: World, _: Command, __: re.Match[str]) -> str:
    left = world.processes()
    return f"{left} run" if left else ""


def _nothing_stored(world: World, _: Command, __: re.Match[str]) -> str:
    left = files_below(world.home / TOPOLOGY)
    return f"{left[:5]} are there" if left else ""


def _votes(world: World, _: Command, found: re.Match[str]) -> str:
    def not_voting() -> list[str]:
        for node_id in world.founders:
            try:
                told = call(world.port(node_id), "/admin/members")[1]["groups"]
            except (OSError, KeyError, TypeError):
                continue
            voters = {name: {m["id"] for m in told[name]["members"] if m["role"] == "voter"} for name in told}
            return [group for group in GROUPS if found["node"] not in voters.get(group, set())]
        return ["nobody answers"]

    wait(lambda: not not_voting(), 5)
    return f"not in {', '.join(left)}" if (left := not_voting()) else ""


def _verifies(_: World, __: Command, found: re.Match[str]) -> str:
    try:
        head = verify_backup(Path(found["file"])).head
    except (StorageError, OSError) as error:
        return f"it does not verify: {error}"
    return "" if head.group == found["group"] else f"it is of {head.group}"


def _restored(world: World, _: Command, found: re.Match[str]) -> str:
    ids = found["nodes"].split(", ")
    missing = [node_id for node_id in ids if not files_below(world.data_dir(node_id))]
    return f"{', '.join(missing)} holds nothing" if missing else ""


#: What commands say, and the check of it: empty where it is true, else what is so instead.
STATEMENTS: tuple[tuple[str, Callable[[World, Command, re.Match[str]], str]], ...] = (
    (NODE + r" (was stopped|was killed|did not stop in time and was killed)\.", _is_gone),
    (NODE + r" \(pid \d+\) led .* and was killed\.", _is_gone),
    (NODE + r" does not run \(", _is_gone),
    (NODE + r" runs \(pid (?P<pid>\d+)\) and answers on " + ADDRESS, _answers),
    (NODE + r" runs already \(pid (?P<pid>\d+)\)", _runs),
    (r"^All (?P<count>\d+) nodes are ready", _all_ready),
    (r"^The cluster (is down|was down already)", _nothing_runs),
    (r"What it stored is deleted", _nothing_stored),
    (NODE + r" has its data back from the others and votes again", _votes),
    (r"^(?P<file>/\S+): group (?P<group>\w+) at index", _verifies),
    (r"^Restored on (?P<nodes>[^.]+)\.", _restored),
)


def check_world(world: World) -> None:
    """Rules 2 and 4 for the nodes, and what clients were answered. Raises Fault."""
    if world.clients.surprises:
        raise world.fault(f"a client was answered what it should not be: {world.clients.surprises[:3]}")
    check_logs(world)
    why = wait_for_truth(world)
    if why:
        raise world.fault(f"rule 2: {why}")


def wait_for_truth(world: World) -> str:
    """What `status` does not tell as it is; empty once it does."""
    found = ""

    def is_true() -> bool:
        nonlocal found
        found = _untold(world)
        return not found

    wait(is_true, SEEN_SECONDS_MAX)
    return found


def _untold(world: World) -> str:
    before = world.processes()
    code, told = world.status()
    processes = {pid: node_id for pid, node_id in world.processes().items() if before.get(pid) == node_id}
    if code == 4:
        return f"no cluster is up by `status`, and {processes} run" if processes else ""
    if code != 0:
        return f"`status` fails with {code}: {told.get('said')}"
    rows = {row["id"]: row for row in told["nodes"]}
    for pid, node_id in processes.items():
        row = rows.get(node_id)
        if row is None:
            return f"{node_id} (pid {pid}) runs and is not shown"
        pid_is_told = row["pid"] == pid or (row["pid"] is None and node_id in world.spoilt)
        if not pid_is_told or row["state"] in ("stopped", "dead"):
            return f"{node_id} (pid {pid}) runs and is shown as {row['state']} with pid {row['pid']}"
    gone = [row["id"] for row in rows.values() if row["pid"] and row["pid"] not in before]
    return f"{', '.join(gone)} is shown with a process that there is not" if gone else ""


def check_logs(world: World) -> None:
    """Rule 4 for what nodes wrote since the last look. Raises Fault."""
    for path in world.home.glob(f"{TOPOLOGY}/*/node.log"):
        size = path.stat().st_size
        begin = world.log_offsets.get(path, 0)
        with open(path, encoding="utf-8", errors="replace") as file:
            file.seek(begin if begin <= size else 0)
            text = file.read()
        world.log_offsets[path] = size
        for line in text.splitlines():
            if "Traceback" in line or '"exception"' in line:
                raise world.fault(f"rule 4: {path.parent.name} logs a traceback: {line[:3000]}")


def status_of(port: int) -> dict | None:
    """What a node says of itself; None where it does not answer."""
    try:
        status, told = call(port, "/status", timeout_seconds=3)
    except (OSError, ValueError):
        return None
    return told if status == 200 else None


def is_ready(port: int) -> bool:
    try:
        return call(port, "/readyz", timeout_seconds=3)[0] == 200
    except (OSError, ValueError):
        return False


def files_below(folder: Path) -> list[str]:
    """Every file in a folder, links followed; the filler of the small disk is none."""
    found = [os.path.join(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names]
    return [path for path in found if not path.endswith("/filler")]
