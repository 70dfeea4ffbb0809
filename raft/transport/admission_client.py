"""Asks other nodes for admission, also those that this node has no link to."""

import aiohttp

from common.parsers import CLUSTER_ID_LENGTH_MAX
from common.wire import WireError
from raft.admission import OTHER_CLUSTER, AdmissionReply, AdmissionRequest
from raft.transport.identity import CLUSTER_HEADER, Identity, said_now
from raft.transport.member_codec import decode_admission_reply, encode_admission_request
from raft.transport.peers import peer_url

#: A leader may wait for a majority before it answers.
ASK_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 1.0


class AdmissionClient:
    """Questions of this node, on connections of their own. Close it in the end."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._session = aiohttp.ClientSession(
            headers=identity.request_headers(),
            timeout=aiohttp.ClientTimeout(total=ASK_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    async def ask(self, group: str, address: str, request: AdmissionRequest) -> AdmissionReply | None:
        """The answer of the node with this client address; None where there is none that could be read."""
        try:
            url = f"{peer_url(address)}/raft/{group}/admission"
            said = said_now(self._identity.lives(), self._identity.cluster.id)
            async with self._session.post(url, data=encode_admission_request(request), headers=said) as response:
                body = await response.read()
                if self._identity.cluster.is_other(response.headers.get(CLUSTER_HEADER, "")):
                    return AdmissionReply(OTHER_CLUSTER, reason=self._other_cluster(address, response))
                return decode_admission_reply(body) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, WireError):
            return None

    def _other_cluster(self, address: str, response: aiohttp.ClientResponse) -> str:
        said, ours = response.headers[CLUSTER_HEADER], self._identity.cluster
        ours.log_other("node is of another cluster; it is not asked for admission", address, said)
        return (
            f"the node at {address} is of the cluster {said[:CLUSTER_ID_LENGTH_MAX]} and this one of {ours.id}; two "
            "clusters never mix. Correct MUFAKAT_CLUSTER or MUFAKAT_CLUSTER_ID of the one that is wrong"
        )

    async def close(self) -> None:
        await self._session.close()
