"""What the operator works with: a home, the `mufakat` command as a process, the nodes as the system sees them.

The rule of the file: it acts and observes, and judges only how a command ended (`judge.py` does the rest). It finds a
node by what the system says about its process, never by what a command says about it.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.cluster.topology import TOPOLOGIES, Topology
from tests.chaos.operator.clients import Clients
from tests.cluster.tools import free_port_offset

TOPOLOGY = "combined"
GROUPS = ("lock", "queue", "cache")
#: The node that is added beside those of the topology.
ADDED = "node4"
COMMAND_SECONDS_MAX = 120.0
#: Small files and frequent snapshots, so that a short run sees many.
SETTINGS = {"MUFAKAT_SNAPSHOT_ENTRIES": "400", "MUFAKAT_WAL_SEGMENT_BYTES": str(1 << 20)}


class Fault(AssertionError):
    """A rule was broken."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command that has ended."""

    arguments: tuple[str, ...]
    #: Negative where a signal ended it.
    exit_code: int
    out: str
    err: str
    seconds: float
    #: The signal that was sent to it; 0 where none was.
    cut_off: int = 0
    #: Nothing else changed the cluster while it ran.
    alone: bool = True

    @property
    def text(self) -> str:
        return self.out + self.err

    def __str__(self) -> str:
        by = f" (cut off by {signal.Signals(self.cut_off).name})" if self.cut_off else ""
        return f"mufakat {' '.join(self.arguments)} -> {self.exit_code}{by}"


@dataclass(slots=True)
class World:
    """One run."""

    folder: Path
    seed: int
    #: Told of every command that has ended; raises where it said something untrue.
    on_command: "Callable[[World, Command], None]"
    #: Folder of a small disk on which node3 lies; None where none could be made.
    small_disk: Path | None = None
    port_offset: int = field(default_factory=lambda: free_port_offset(TOPOLOGY))
    history: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    #: What the cluster's settings are, for an `up` that begins one.
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    #: All is healed and no data was destroyed since.
    is_whole: bool = False
    #: Nodes whose PROCESS file was spoilt since the last healing.
    spoilt: set[str] = field(default_factory=set)
    frozen: set[int] = field(default_factory=set)
    log_offsets: dict[Path, int] = field(default_factory=dict)
    clients: Clients = field(init=False)
    topology: Topology = field(init=False)

    def __post_init__(self) -> None:
        self.topology = TOPOLOGIES[TOPOLOGY].shifted(self.port_offset)
        self.clients = Clients([node.client_port for node in self.topology.nodes])

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def founders(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.topology.nodes)

    def node_ids(self) -> list[str]:
        """The nodes that have a folder, or are of the topology."""
        return sorted({*self.founders, *(path.parent.name for path in self.home.glob(f"{TOPOLOGY}/*/data"))})

    def data_dir(self, node_id: str) -> Path:
        return self.home / TOPOLOGY / node_id / "data"

    def port(self, node_id: str) -> int:
        """Where clients reach a node; that of the added one is the next behind the topology's."""
        return self.topology.nodes[0].client_port + int(node_id.removeprefix("node")) - 1

    def note(self, text: str) -> None:
        self.history.append(f"{len(self.history) + 1}. {text}")
        if os.environ.get("OPERATOR_TALKS"):
            print(f"[{time.strftime('%H:%M:%S')}] {self.history[-1]}", flush=True)

    def fault(self, what: str) -> Fault:
        """A broken rule, with what led to it."""
        history = "\n  ".join(self.history[-60:])
        return Fault(f"seed {self.seed}: {what}\nActions so far (the last 60):\n  {history}")

    # Commands

    def mufakat(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
        cut_off: tuple[signal.Signals, float] | None = None,
        alone: bool = True,
    ) -> Command:
        """Run one command to its end.

        Args:
            environ: further variables.
            home: of another cluster; what is said of that is not judged.
            cut_off: a signal, and after how many seconds it is sent. SIGSTOP is followed by SIGCONT after as many.
            alone: no other command runs at the same time that could make untrue what this one says.

        Raises:
            Fault: it took too long, or said something untrue.
        """
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", *arguments],
            env={"PATH": "/usr/bin:/bin", "MUFAKAT_HOME": str(home or self.home), **(environ or {})},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        sent = 0
        try:
            if cut_off is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(cut_off[1])
                if process.poll() is None:
                    sent = int(cut_off[0])
                    process.send_signal(sent)
                    if sent == signal.SIGSTOP:
                        time.sleep(cut_off[1])
                        process.send_signal(signal.SIGCONT)
            out, err = process.communicate(timeout=COMMAND_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise self.fault(
                f"rule 4: `mufakat {' '.join(arguments)}` took longer than {COMMAND_SECONDS_MAX:.0f} s: {out}{err}"
            ) from None
        command = Command(arguments, process.returncode, out, err, time.monotonic() - began, sent, alone)
        self.commands[arguments[0]] += 1
        self.note(f"{command}{': ' + err.strip()[:300] if err else ''}")
        if home is None:
            self.on_command(self, command)
        return command

    def up(self, **options: Any) -> Command:
        return self.mufakat(
            *("up", "--topology", TOPOLOGY, "--mode", "local", "--port-offset", str(self.port_offset)),
            environ=self.settings,
            **options,
        )

    def status(self) -> tuple[int, dict[str, Any]]:
        """The exit code of `status --json` and what it told. Not noted: it is asked all the time."""
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", "status", "--json"],
            env={"PATH": "/usr/bin:/bin", "MUFAKAT_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        if "Traceback" in done.stdout + done.stderr:
            raise self.fault(f"rule 4: a traceback of `status --json`: {done.stdout}{done.stderr}")
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {"nodes": [], "said": done.stderr}

    # What the system says

    def processes(self, home: Path | None = None) -> dict[int, str]:
        """Every process of a node under the home: its id and the node's."""
        below = home or self.home
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                pairs = (pair.partition(b"=") for pair in path.read_bytes().split(b"\0"))
                named = next((value for name, _, value in pairs if name == b"MUFAKAT_DATA_DIR"), None)
                if named and Path(os.fsdecode(named)).is_relative_to(below):
                    found[int(path.parts[2])] = Path(os.fsdecode(named)).parent.name
        return found

    def pids(self, node_id: str) -> list[int]:
        """The processes of one node: at most one, if all is well."""
        return [pid for pid, name in self.processes().items() if name == node_id]

    def send(self, pid: int, number: signal.Signals) -> None:
        """A signal to a process under the home."""
        if pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self, pid: int) -> None:
        self.frozen.add(pid)
        self.send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.frozen:
            self.send(pid, signal.SIGCONT)
        self.frozen.clear()

    def kill_everything(self) -> None:
        """The end of a run: no process of it stays."""
        for pid in self.processes(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait(condition: Callable[[], Any], seconds: float) -> Any:
    """What the condition gives once that is true; its last value where the time is over."""
    until = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < until:
        time.sleep(0.1)
    return value


def chance_of(seed: int, step: int) -> random.Random:
    """Chance for one step, whatever the steps before it did with theirs."""
    return random.Random(f"{seed}/{step}")
