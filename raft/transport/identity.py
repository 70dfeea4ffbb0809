"""What nodes say of themselves in the headers of their requests and answers, and what of it is believed.

    Authorization             Bearer <cluster secret>: belongs to the cluster
    X-Mufakat-Node            who it is
    X-Mufakat-Address         host:port for clients; tells a node that does not know the sender yet where to answer
    X-Mufakat-Incarnations    lock=<incarnation>,...: the data directory of each of its groups

Two questions are to be told apart (docs/membership.md):

- Does an *answer* count? Only where the group's configuration, as the one who counts has it, binds the answerer's id
  to the answerer's data directory, or to none yet.
- Is a *request* heard? A node whose log is behind may not know its leader yet (thesis 4.1), so a sender that is no
  member, or another one than is known, is refused only while another leader is heard.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from raft.core.types import NOBODY, NodeId
from raft.node import RaftNode

AUTHORIZATION_HEADER = "Authorization"
NODE_HEADER = "X-Mufakat-Node"
ADDRESS_HEADER = "X-Mufakat-Address"
INCARNATIONS_HEADER = "X-Mufakat-Incarnations"


@dataclass(frozen=True, slots=True)
class Identity:
    """This node, as it presents itself."""

    node: NodeId
    #: `host:port` for clients.
    address: str
    secret: str
    #: Group to incarnation of its data directory.
    incarnations: Mapping[str, str]

    def request_headers(self) -> dict[str, str]:
        return {
            AUTHORIZATION_HEADER: f"Bearer {self.secret}",
            NODE_HEADER: self.node,
            ADDRESS_HEADER: self.address,
            **self.answer_headers(),
        }

    def answer_headers(self) -> dict[str, str]:
        stated = ",".join(f"{group}={incarnation}" for group, incarnation in sorted(self.incarnations.items()))
        return {INCARNATIONS_HEADER: stated}


def incarnations_in(header: str) -> dict[str, str]:
    """What the header says of each group."""
    return {group: incarnation for group, _, incarnation in (part.partition("=") for part in header.split(","))}


def incarnation_in(header: str, group: str) -> str:
    """What the header says of this group; empty where it says nothing."""
    return incarnations_in(header).get(group, "")


def does_answer_count(node: RaftNode, peer: NodeId, incarnation: str) -> bool:
    """Whether `peer` with this data directory is whom the configuration knows under that id."""
    return node.core.configuration.incarnation_of(peer) in ("", incarnation)


def is_request_heard(node: RaftNode, peer: NodeId, incarnation: str) -> bool:
    """Whether a request of `peer` with this data directory is handled."""
    configuration = node.core.configuration
    is_member = peer in configuration.voters or peer in configuration.learners
    return (is_member and does_answer_count(node, peer, incarnation)) or node.core.state.leader in (NOBODY, peer)
