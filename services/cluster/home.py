"""The folder in which a local cluster lives, and the record of which cluster is up.

    MUFAKAT_HOME (default .mufakat)      mode 0700
        cluster.json                     mode, topology, port offset; there from `up` until `down`
        cluster_secret                   what the nodes know each other by, mode 0600
        lock                             held while a command starts or ends processes
        separated/node1/                 one folder a node, by topology: node1 is not the same node in each
            pid.json                     process id and start mark; there from `start` until `stop`
            node.log                     what the process wrote to its output
            data/                        its log and snapshots

The data stays when the cluster is taken down, as it would on a server that is switched off.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.config import CLUSTER_SECRET_LENGTH_MIN
from services.cluster.errors import ClusterError, InTheWay, NoCluster
from services.cluster.topology import TOPOLOGIES, Node, Topology

try:
    import fcntl
except ImportError:  # Windows: only containers are run from there, and the engine orders its own commands.
    fcntl = None

#: Where a cluster lives unless MUFAKAT_HOME says otherwise, from the folder that the command is called in.
HOME_DEFAULT = ".mufakat"


@dataclass(frozen=True, slots=True)
class Record:
    """Which cluster is up."""

    #: "local" or "docker".
    mode: str
    #: Name of the topology.
    topology: str
    #: Added to every port of the topology.
    port_offset: int = 0

    def nodes(self) -> Topology:
        """The topology's table with the ports that this cluster uses."""
        return TOPOLOGIES[self.topology].shifted(self.port_offset)


def write_file(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a small file in one step, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a file of ours holds; None where there is none.

    Raises:
        ClusterError: it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ClusterError(f"{path} cannot be read as JSON. Delete it if nobody needs it any more.")
    return value


class Home:
    """One cluster's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Home":
        """The folder that MUFAKAT_HOME names, else `.mufakat` in the current one."""
        return cls(Path(environ.get("MUFAKAT_HOME") or HOME_DEFAULT))

    def create(self) -> None:
        """Make the folder where it is missing; nobody but its owner may look into it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def node_folder(self, topology: Topology, node: Node) -> Path:
        """Where everything of one node lies."""
        return self.root / topology.name / node.id

    @property
    def _record_path(self) -> Path:
        return self.root / "cluster.json"

    def record(self) -> Record | None:
        """Which cluster is up; None where none is.

        Raises:
            ClusterError: the record cannot be read.
        """
        value = read_json(self._record_path)
        if value is None:
            return None
        try:
            record = Record(**value)
            record.nodes()
        except (TypeError, KeyError) as error:
            raise ClusterError(
                f"{self._record_path} was not written by this version of mufakat. End the cluster "
                "with the version that started it, or delete the file."
            ) from error
        return record

    def require_record(self) -> Record:
        """Which cluster is up.

        Raises:
            NoCluster: none is.
        """
        record = self.record()
        if record is None:
            raise NoCluster(
                f"No cluster is up (nothing is recorded in {self.root}). Start one with `mufakat up`; "
                "if yours lives elsewhere, set MUFAKAT_HOME to its folder."
            )
        return record

    def write_record(self, record: Record) -> None:
        """Note that this cluster is up."""
        self.create()
        write_file(self._record_path, json.dumps(asdict(record)) + "\n")

    def forget_record(self) -> None:
        """Note that no cluster is up."""
        self._record_path.unlink(missing_ok=True)

    def wipe(self, topology: Topology) -> None:
        """Delete all data and logs of a topology's nodes."""
        shutil.rmtree(self.root / topology.name, ignore_errors=True)

    def cluster_secret(self, environ: Mapping[str, str]) -> str:
        """What the nodes know each other by: made up once and kept, or taken from MUFAKAT_CLUSTER_SECRET.

        Raises:
            ClusterError: the one that is given is too short.
        """
        path = self.root / "cluster_secret"
        given = environ.get("MUFAKAT_CLUSTER_SECRET", "")
        if given and len(given) < CLUSTER_SECRET_LENGTH_MIN:
            raise ClusterError(
                f"MUFAKAT_CLUSTER_SECRET is {len(given)} characters long; at least "
                f"{CLUSTER_SECRET_LENGTH_MIN} are needed."
            )
        kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        secret = given or kept or secrets.token_urlsafe(32)
        if secret != kept:
            write_file(path, secret + "\n", mode=0o600)
        return secret

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder while nodes are started or ended, so that two commands never start a node twice.

        Raises:
            InTheWay: another command holds it.
        """
        self.create()
        if fcntl is None:
            yield
            return
        with open(self.root / "lock", "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InTheWay(
                    f"Another mufakat command is starting or stopping nodes in {self.root}. Try again "
                    "when it has finished."
                ) from None
            yield
