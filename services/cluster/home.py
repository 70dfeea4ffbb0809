"""The folder of a cluster, and what it says about the cluster.

    MUFAKAT_HOME (default .mufakat)      mode 0700
        cluster.json                     the cluster: its id, its settings, how it runs or ran last; mode 0600
        up                               exists while its nodes shall run; so taking the cluster down needs no
                                         room on a full disk
        cluster_secret                   the secret by which the nodes know each other, mode 0600
        lock                             held while a command starts or ends processes
        separated/node1/                 one folder for each node, by topology: node1 is another node in each
            node.log                     what the process wrote
            data/                        its log and snapshots
                PROCESS                  its process holds it; it names the process (`services.node.process_file`)

The data stays when the cluster is taken down, as on a server that is switched off. The settings stay, too: they
belong to the cluster, not to the shell of a command. `down --wipe` ends the cluster: the next `up` begins another
one.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from common.config import CLUSTER_SECRET_LENGTH_MIN
from raft.storage.cluster import kept_cluster
from services.cluster.errors import ClusterError, InTheWay, NoCluster, UsageError
from services.cluster.topology import TOPOLOGIES, Node, Topology
from services.node.process_file import look

try:
    import fcntl
except ImportError:  # Windows: only containers are run from there, and the engine orders its own commands.
    fcntl = None  # type: ignore[assignment]  # the type of the name is the module

#: The folder of a cluster, unless MUFAKAT_HOME names another; below the folder in which the command is called.
HOME_DEFAULT = ".mufakat"

#: Format version of cluster.json.
FORMAT = 2

#: Whether nodes shall run: no; yes, but perhaps not all were started yet; yes, and all were started.
DOWN, STARTING, UP = "down", "starting", "up"


@dataclass(frozen=True, slots=True)
class Record:
    """How a cluster runs, or ran last."""

    #: "local" or "docker".
    mode: str
    #: Name of the topology.
    topology: str
    #: Added to every port of the topology.
    port_offset: int = 0

    def nodes(self) -> Topology:
        """The topology's table with the ports that this cluster uses."""
        return TOPOLOGIES[self.topology].shifted(self.port_offset)

    def __str__(self) -> str:
        offset = f", ports moved by {self.port_offset}" if self.port_offset else ""
        return f"{self.topology}, {self.mode} mode{offset}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What cluster.json tells."""

    #: Made once. Every node tells it, and no other cluster has it.
    id: str
    #: Variable to text, the same for every node; what is not here has its default.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: None if it never ran.
    record: Record | None = None
    state: str = DOWN
    #: Nodes on this machine that were added to a topology, by the topology's name. The ports of those that were
    #: started here are without the offset, like the topology's.
    added: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)

    def nodes(self) -> Topology:
        """The topology and the nodes that were added to it. Only for a cluster that has run.

        Raises:
            UsageError: a port lies outside of 1 to 65535.
        """
        assert self.record is not None
        return TOPOLOGIES[self.record.topology].with_added(self.added_here()).shifted(self.record.port_offset)

    def added_here(self) -> tuple[Node, ...]:
        """The nodes that were added to the topology in which the cluster runs."""
        return self.added.get(self.record.topology, ()) if self.record else ()

    def with_added_here(self, added: tuple[Node, ...]) -> "Cluster":
        """The same cluster with these nodes added to its topology."""
        assert self.record is not None
        return replace(self, added={**self.added, self.record.topology: added})


class _Content(msgspec.Struct):
    """cluster.json."""

    format: int
    id: str
    #: The home in which it was written.
    home: str
    settings: dict[str, str]
    record: Record | None
    added: dict[str, tuple[Node, ...]]


def new_cluster() -> Cluster:
    """A new cluster with a new id."""
    return Cluster(secrets.token_hex(8))


def write_file(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a small file in one step, so that no reader ever sees half of it and no power cut leaves half of it.

    Raises:
        OSError: with the file's name; the old file is still there.
    """
    draft = path.with_name(f"{path.name}.new")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


class Home:
    """One cluster's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Home":
        """The folder that MUFAKAT_HOME names, else `.mufakat` in the current one."""
        return cls(Path(environ.get("MUFAKAT_HOME") or HOME_DEFAULT))

    def create(self) -> None:
        """Make the folder if it is missing; only its owner may look into it.

        Raises:
            UsageError: something else is there.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is no folder. Set MUFAKAT_HOME to that in which the cluster shall live.")
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def node_folder(self, topology: Topology, node: Node) -> Path:
        """The folder with everything of one node."""
        return self.root / topology.name / node.id

    def data_folders(self) -> list[Path]:
        """Every node's data directory that exists, in every topology."""
        return sorted(path for name in TOPOLOGIES for path in self.root.glob(f"{name}/*/data"))

    def stored_topology(self) -> str:
        """The topology that has data, if it is exactly one; else empty."""
        stored = {folder.parents[1].name for folder in self.data_folders() if any(folder.glob("*/*"))}
        return stored.pop() if len(stored) == 1 else ""

    @property
    def cluster_path(self) -> Path:
        """The file that describes the cluster."""
        return self.root / "cluster.json"

    @property
    def _state_path(self) -> Path:
        return self.root / "up"

    @property
    def _secret_path(self) -> Path:
        return self.root / "cluster_secret"

    def cluster(self) -> Cluster | None:
        """The cluster of this home, up or down; None if none was begun.

        Raises:
            ClusterError: it cannot be read.
        """
        try:
            text = self.cluster_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return self._decode(text)
        except (ValueError, KeyError, RecursionError) as error:
            raise ClusterError(
                f"{self.cluster_path} cannot be read: it is damaged, or of another version of mufakat (end its nodes "
                "with that one). `mufakat down` ends what runs here. Then delete the file: the cluster's settings go "
                "with it, and what the nodes stored stays."
            ) from error

    def begin(self) -> Cluster:
        """A cluster for a home that describes none: the one whose data is here, else a new one."""
        ids = {id for folder in self.data_folders() if (id := kept_cluster(folder))}
        return Cluster(ids.pop()) if len(ids) == 1 else new_cluster()

    def keep(self, cluster: Cluster) -> None:
        """Write it down. Raises OSError."""
        self.create()
        content = _Content(
            FORMAT, cluster.id, str(self.root), dict(cluster.settings), cluster.record, dict(cluster.added)
        )
        text = msgspec.json.format(msgspec.json.encode(content)).decode() + "\n"
        if not self.cluster_path.exists() or self.cluster_path.read_text(encoding="utf-8", errors="replace") != text:
            write_file(self.cluster_path, text, mode=0o600)
        if cluster.state == DOWN:
            self.note_down()
        else:
            write_file(self._state_path, cluster.state + "\n")

    def note_down(self) -> None:
        """Write down that no node shall run. Needs no room on the disk. Raises OSError."""
        self._state_path.unlink(missing_ok=True)

    def _decode(self, text: bytes) -> Cluster:
        content = msgspec.json.decode(text, type=_Content)
        if content.format != FORMAT or not content.id:
            raise ValueError("another format")
        added = content.added
        if content.home != str(self.root):
            # The home was copied or moved: data elsewhere may belong to the original.
            added = {name: tuple(node for node in nodes if not node.data_dir) for name, nodes in added.items()}
        cluster = Cluster(content.id, content.settings, content.record, self._state(), added)
        if cluster.record is not None:
            cluster.nodes()
        return cluster

    def _state(self) -> str:
        try:
            text = self._state_path.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return DOWN
        # If it cannot be read, some nodes may run, perhaps not all.
        return text if text in (STARTING, UP) else STARTING

    def forget(self) -> None:
        """Remove the cluster's id, its settings and its secret."""
        self.note_down()
        self.cluster_path.unlink(missing_ok=True)
        self._secret_path.unlink(missing_ok=True)

    def record(self) -> Record | None:
        """How the cluster that is up runs; None if none is up. Raises as `cluster`."""
        cluster = self.cluster()
        return cluster.record if cluster is not None and cluster.state != DOWN else None

    def require_cluster(self) -> Cluster:
        """The cluster that is up.

        Raises:
            NoCluster: none is up.
        """
        cluster = self.cluster()
        if cluster is None or cluster.state == DOWN or cluster.record is None:
            raise NoCluster(self._why_none())
        return cluster

    def _why_none(self) -> str:
        running = [folder for folder in self.data_folders() if look(folder).is_held]
        if running:
            named = ", ".join(f"{folder.parent.parent.name}/{folder.parent.name}" for folder in running)
            return (
                f"No cluster is recorded as up in {self.root}, but nodes run there ({named}). `mufakat down` ends "
                "them, `mufakat up` starts them anew."
            )
        return (
            f"No cluster is up in {self.root}. Start one with `mufakat up`; if yours lives elsewhere, set "
            "MUFAKAT_HOME to its folder."
        )

    def kept_secret(self) -> str:
        """The secret by which the nodes know each other; empty if none is kept yet."""
        try:
            return self._secret_path.read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except UnicodeDecodeError as error:
            raise ClusterError(
                f"{self._secret_path} is damaged. If nodes run, bring it back; else delete it: another one is made."
            ) from error

    def cluster_secret(self, environ: Mapping[str, str]) -> str:
        """The secret by which the nodes know each other: the first time made or taken from MUFAKAT_CLUSTER_SECRET,
        then kept.

        Raises:
            UsageError: the given secret is too short.
            InTheWay: it differs from the kept one.
        """
        kept, given = self.kept_secret(), environ.get("MUFAKAT_CLUSTER_SECRET", "").strip()
        if not given or given == kept:
            return kept or self.keep_secret(secrets.token_urlsafe(32))
        if kept:
            raise InTheWay(
                f"MUFAKAT_CLUSTER_SECRET in this shell's environment is not the secret that this cluster uses (in "
                f"{self._secret_path}). Unset it; or, while the cluster is down, change the cluster's with "
                "`mufakat config set MUFAKAT_CLUSTER_SECRET`."
            )
        return self.keep_secret(given)

    def keep_secret(self, secret: str) -> str:
        """Write the secret down and return it. Raises UsageError if it is too short."""
        if len(secret) < CLUSTER_SECRET_LENGTH_MIN:
            raise UsageError(
                f"MUFAKAT_CLUSTER_SECRET is {len(secret)} characters long; at least {CLUSTER_SECRET_LENGTH_MIN} are "
                "needed."
            )
        write_file(self._secret_path, secret + "\n", mode=0o600)
        return secret

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the folder while nodes are started or ended, so that two commands never work against each other.

        Raises:
            InTheWay: another command holds it.
        """
        self.create()
        if fcntl is None:
            yield
            return
        with open(self.root / "lock", "a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InTheWay(
                    f"Another mufakat command is starting or stopping nodes in {self.root}. Try again "
                    "when it has finished."
                ) from None
            yield

