"""A peer listener in front of a node that is played, and what peers say to it."""

from types import SimpleNamespace
from typing import Any

from raft.cluster_id import ClusterId
from raft.core.messages import RequestVoteReply
from raft.core.types import Configuration, Role
from raft.life import UNKNOWN_LIFE
from raft.transport.identity import Identity
from raft.transport.peers import Peers
from raft.transport.routes import PeerListener
from tests.helpers import serving

SECRET = "sixteen letters!"
#: b's disk is known, c's is not yet.
CONFIGURATION = Configuration(("a", "b", "c"), (), (("a", "h:1"), ("b", "h:2"), ("c", "h:3")), (("b", "b1"),))


class StubNode:
    """What the listener needs of a node: it votes for everybody."""

    def __init__(self, leader: str = "c", group: str = "lock") -> None:
        self.id, self.group = "a", group
        self.admitted = True
        self.life = UNKNOWN_LIFE
        self.received: list[Any] = []
        log = SimpleNamespace(last_index=9, commit_index=9)
        state = SimpleNamespace(leader=leader, role=Role.FOLLOWER, term=3)
        self.core = SimpleNamespace(configuration=CONFIGURATION, state=state, log=log)

    async def call(self, message: Any, timeout_s: float) -> RequestVoteReply:
        return RequestVoteReply("a", message.sender, message.term, message.sequence, True)

    def receive(self, message: Any) -> None:
        self.received.append(message)


def peers_of(*nodes: StubNode, cluster: ClusterId | None = None) -> Peers:
    """The peers of these nodes, which are of this cluster."""
    by_group = {node.group: node for node in nodes}
    identity = Identity(
        "a",
        "h:1",
        SECRET,
        dict.fromkeys(by_group, "a1"),
        lambda: {group: node.life for group, node in by_group.items()},
        cluster or ClusterId(),
    )
    return Peers(identity, by_group, {}, observe_rpc=lambda *_: None, on_failure=lambda _: None)


def listening(*nodes: StubNode, cluster: ClusterId | None = None, peers: Peers | None = None):
    """A client of the listener of these nodes, which are of this cluster."""
    peers = peers or peers_of(*nodes, cluster=cluster)
    return serving(PeerListener(peers.nodes, peers, SECRET).application())


def headers_of(peer: str, incarnation: str, life: str = UNKNOWN_LIFE, *, cluster: str = "") -> dict[str, str]:
    """What `peer` says with each request."""
    identity = Identity(
        peer, f"{peer}:1", SECRET, {"lock": incarnation}, lambda: {"lock": life}, ClusterId(cluster)
    )
    return identity.request_headers()
