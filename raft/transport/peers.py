"""This node's links to all others: made and closed as the configurations of its groups change.

A peer is linked while a group of this node names it a member; before a group has a configuration of its own, while
the settings name it; and while it sends on a stream of its own, since a node whose log is behind may not know its
leader yet. Where the settings name a peer, their address holds: they are what an operator can change when addresses
change; else the configuration's does.
"""

import asyncio
from collections.abc import Callable, Mapping

from common.config import PEER_PORT_OFFSET
from raft.core.types import Configuration, NodeId
from raft.node import RaftNode
from raft.transport.client import PeerLink
from raft.transport.identity import Identity, Stated, does_answer_count
from raft.transport.silence import SILENCE_MS


def peer_url(address: str) -> str:
    """Where the peer listener of the node with this client address is. Raises ValueError where it is no address."""
    host, _, port = address.rpartition(":")
    return f"http://{host}:{int(port) + PEER_PORT_OFFSET}"


class Peers:
    """The links by id, in `links`. `start` once the loop runs; `sync` whenever a configuration changed."""

    def __init__(
        self,
        identity: Identity,
        nodes: Mapping[str, RaftNode],
        known: Mapping[NodeId, str],
        *,
        observe_rpc: Callable[[str, float], None],
        on_failure: Callable[[BaseException], None],
        silence_ms: int = SILENCE_MS,
    ) -> None:
        """
        Args:
            nodes: the groups of this node; may be filled until `start`.
            known: addresses that the settings name, this node's included or not.
            on_failure: told of a bug in a link.
            silence_ms: for so long nothing may be acknowledged before a stream counts as broken.
        """
        self.identity = identity
        self.nodes = nodes
        self.silence_ms = silence_ms
        self.links: dict[NodeId, PeerLink] = {}
        self._known = known
        self._observe_rpc = observe_rpc
        self._on_failure = on_failure
        #: What is said on the streams that are open from a peer, and the address that it named.
        self._streams: dict[NodeId, list[Stated]] = {}
        self._named: dict[NodeId, str] = {}
        #: Peers whose version says of which life its data is.
        self._say_lives: set[NodeId] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._started = False

    def start(self) -> None:
        """Open the links, and keep up with the configurations from now on."""
        self._started = True
        for node in self.nodes.values():
            node.on_configuration = self.sync
        self.sync()

    def sync(self, _: Configuration | None = None) -> None:
        """Make and close links so that they are those that the configurations ask for."""
        if not self._started:
            return
        wanted = self._wanted()
        for peer, link in tuple(self.links.items()):
            if wanted.get(peer) != link.url:
                del self.links[peer]
                task = asyncio.create_task(link.close(), name=f"close the link to {peer}")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        for peer in sorted(wanted.keys() - self.links.keys()):
            link = self.links[peer] = PeerLink(
                peer=peer,
                url=wanted[peer],
                headers=self.identity.request_headers(),
                lives=self.identity.lives,
                cluster=self.identity.cluster,
                receivers=self.nodes,
                observe_rpc=self._observe_rpc,
                is_trusted=self._is_trusted,
                silence_ms=self.silence_ms,
            )
            link.start(self._on_failure)
            self._tell_link(peer)

    def stream_opened(self, peer: NodeId, stated: Stated, address: str, *, says_lives: bool) -> None:
        """`peer` sends on a stream, where it states this, and names its address."""
        self._streams.setdefault(peer, []).append(stated)
        self._named[peer] = address
        (self._say_lives.add if says_lives else self._say_lives.discard)(peer)
        if peer not in self.links:
            self.sync()
        self._tell_link(peer)

    def stream_closed(self, peer: NodeId, stated: Stated) -> None:
        left = self._streams[peer] = [each for each in self._streams[peer] if each is not stated]
        self._tell_link(peer)
        if not left:
            del self._streams[peer]
            self.sync()

    def knows_lives(self, peer: NodeId) -> bool:
        """Whether `peer` is there, in a version that knows what a group's life is."""
        return peer in self._streams and peer in self._say_lives

    def known_by(self, group: str, peer: NodeId) -> int | None:
        """Which version of the log `peer` says that it knows, on the disk that the group knows; None where it is not
        there. Of two processes that seem to be there, one of them gone, it may be the one that knows less."""
        node = self.nodes[group]
        streams = self._streams.get(peer, ())
        said = [each.known for each in streams if does_answer_count(node, peer, *each.of(group))]
        return min(said, default=None)

    def _tell_link(self, peer: NodeId) -> None:
        link = self.links.get(peer)
        if link is not None:
            link.on_peer_streams(len(self._streams.get(peer, ())))

    async def close(self) -> None:
        self._started = False
        await asyncio.gather(*(link.close() for link in self.links.values()), *self._closing)

    def _wanted(self) -> dict[NodeId, str]:
        """Id to URL."""
        addresses: dict[NodeId, str] = {peer: self._named[peer] for peer in self._streams}
        for node in self.nodes.values():
            configuration = node.core.configuration
            if configuration.addresses:
                addresses.update((peer, configuration.address_of(peer)) for peer in configuration.members)
            else:
                addresses.update(self._known)
        addresses.pop(self.identity.node, None)
        found = {}
        for peer, address in addresses.items():
            try:
                found[peer] = peer_url(self._known.get(peer) or address or self._named.get(peer, ""))
            except ValueError:
                # A member that has told nobody where it is; it will.
                continue
        return found

    def _is_trusted(self, group: str, peer: NodeId, headers: Mapping[str, str]) -> bool:
        node = self.nodes.get(group)
        return node is not None and does_answer_count(node, peer, *Stated(headers).of(group))
