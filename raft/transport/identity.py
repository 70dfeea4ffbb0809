"""What nodes say of themselves in the headers of their requests and answers, and what of it is believed.

    Authorization             Bearer <cluster secret>: belongs to the cluster
    X-Mufakat-Node            who it is
    X-Mufakat-Address         host:port for clients; tells a node that does not know the sender yet where to answer
    X-Mufakat-Incarnations    lock=<incarnation>,...: the data directory of each of its groups
    X-Mufakat-Lives           lock=<life>,...: which life of the group its data is of (raft.life)
    X-Mufakat-Known           which version of the log it knows (raft.versions); of requests only
    X-Mufakat-Cluster         which cluster it is of, where it knows (raft.cluster_id); refusals say it, too

What may change while a stream stands, lives and cluster, is also a text frame there, sent before the first message
and whenever it has changed: lock=<life>,...,cluster=<id>.

Two questions are to be told apart (docs/membership.md):

- Does an *answer* count? Only where the group's configuration, as the one who counts has it, binds the answerer's id
  to the answerer's data directory, or to none yet.
- Is a *request* heard? A node whose log is behind may not know its leader yet (thesis 4.1), so a sender that is no
  member, or another one than is known, is refused only while another leader is heard.

Neither ever where its data is of another life of the group than the data here, or it is of another cluster.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from raft.cluster_id import ClusterId
from raft.core.types import NOBODY, NodeId
from raft.life import ANY_LIFE, UNKNOWN_LIFE, may_be_the_same
from raft.node import RaftNode
from raft.state_machine import FIRST_VERSION

AUTHORIZATION_HEADER = "Authorization"
NODE_HEADER = "X-Mufakat-Node"
ADDRESS_HEADER = "X-Mufakat-Address"
INCARNATIONS_HEADER = "X-Mufakat-Incarnations"
LIVES_HEADER = "X-Mufakat-Lives"
KNOWN_HEADER = "X-Mufakat-Known"
CLUSTER_HEADER = "X-Mufakat-Cluster"
#: More digits than a version has.
_KNOWN_LENGTH_MAX = 9
#: The cluster's place in a text frame; no group is called so.
_CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Identity:
    """This node, as it presents itself."""

    node: NodeId
    #: `host:port` for clients.
    address: str
    secret: str
    #: Group to incarnation of its data directory.
    incarnations: Mapping[str, str]
    #: Group to the life that its data is of, as of now.
    lives: Callable[[], Mapping[str, str]] = dict
    cluster: ClusterId = field(default_factory=ClusterId)
    #: Which version of the log this node knows.
    known: int = FIRST_VERSION

    def request_headers(self) -> dict[str, str]:
        return {
            AUTHORIZATION_HEADER: f"Bearer {self.secret}",
            NODE_HEADER: self.node,
            ADDRESS_HEADER: self.address,
            KNOWN_HEADER: str(self.known),
            **self.answer_headers(),
        }

    def answer_headers(self) -> dict[str, str]:
        return {INCARNATIONS_HEADER: encode_groups(self.incarnations), **said_now(self.lives(), self.cluster.id)}


class Stated:
    """What a peer says of its data directories, its cluster and itself."""

    __slots__ = ("_incarnations", "_judged", "_lives", "cluster", "known")

    def __init__(self, headers: Mapping[str, str]) -> None:
        #: Which cluster it is of; empty where it says none.
        self.cluster = headers.get(CLUSTER_HEADER, "")
        #: Which version of the log it knows.
        self.known = _decode_known(headers.get(KNOWN_HEADER, ""))
        self._incarnations = _decode(headers.get(INCARNATIONS_HEADER, ""))
        self._lives = _decode(headers.get(LIVES_HEADER, ""))
        #: By group what was judged last, behind what that followed from.
        self._judged: dict[str, tuple[object, NodeId, str, tuple[bool, bool]]] = {}

    def says(self, frame: str) -> None:
        """On a stream, this is what it says from now on."""
        self._lives = _decode(frame)
        self.cluster = self._lives.pop(_CLUSTER, self.cluster)
        self._judged.clear()

    def judged(self, node: RaftNode, peer: NodeId) -> tuple[bool, bool]:
        """Whether the requests of `peer`, who says this, are heard by this node, and whether its answers count. It is
        asked of each message, and seldom changes."""
        core = node.core
        configuration, leader, life = core.configuration, core.state.leader, node.life
        known = self._judged.get(node.group)
        if known is not None and known[0] is configuration and known[1] == leader and known[2] == life:
            return known[3]
        said = self.of(node.group)
        judged = (is_request_heard(node, peer, *said), does_answer_count(node, peer, *said))
        self._judged[node.group] = (configuration, leader, life, judged)
        return judged

    def of(self, group: str) -> tuple[str, str]:
        """Incarnation and life; each empty where nothing is said."""
        return self._incarnations.get(group, ""), self._lives.get(group, UNKNOWN_LIFE)


def encode_groups(by_group: Mapping[str, str]) -> str:
    """The value of one of the headers that say something of each group."""
    return ",".join(f"{group}={value}" for group, value in sorted(by_group.items()))


def said_now(lives: Mapping[str, str], cluster: str) -> dict[str, str]:
    """The headers of what may change while a node runs."""
    said = {LIVES_HEADER: encode_groups(lives)}
    return {**said, CLUSTER_HEADER: cluster} if cluster else said


def said_frame(lives: Mapping[str, str], cluster: str) -> str:
    """The same as a text frame of a stream."""
    return encode_groups({**lives, _CLUSTER: cluster} if cluster else lives)


def _decode(header: str) -> dict[str, str]:
    return {group: value for group, _, value in (part.partition("=") for part in header.split(","))}


def _decode_known(header: str) -> int:
    """Nodes of an earlier version say nothing."""
    is_number = header.isascii() and header.isdigit() and len(header) <= _KNOWN_LENGTH_MAX
    return int(header) if is_number else FIRST_VERSION


def does_answer_count(node: RaftNode, peer: NodeId, incarnation: str, life: str = ANY_LIFE) -> bool:
    """Whether `peer` with this data directory is whom the configuration knows under that id."""
    return node.core.configuration.incarnation_of(peer) in ("", incarnation) and may_be_the_same(node.life, life)


def is_request_heard(node: RaftNode, peer: NodeId, incarnation: str, life: str = ANY_LIFE) -> bool:
    """Whether a request of `peer` with this data directory is handled."""
    if not may_be_the_same(node.life, life):
        return False
    configuration = node.core.configuration
    is_member = peer in configuration.voters or peer in configuration.learners
    return (is_member and does_answer_count(node, peer, incarnation)) or node.core.state.leader in (NOBODY, peer)
