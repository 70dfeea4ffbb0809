"""How both ends notice that the packets of a stream vanish: a cable, a firewall, a machine that is gone in silence.

Without this a stream stays "connected" for minutes, and TCP, which waits twice as long after each try, may take up to
two minutes to go on after the network is whole again.

    the end that writes   what it sends is acknowledged within the silence allowed, or the kernel breaks the
                          connection (TCP_USER_TIMEOUT; a peer that is merely busy still acknowledges)
    the end that reads    the kernel probes a connection that is quiet (keepalive)
    where there is no such option, the writing end's pings are left unanswered (PING_SECONDS)
"""

import socket
from typing import Any

from common.keepalive import probing, set_tcp_options

#: For so long a stream may be silent, where the settings do not ask for more.
SILENCE_MS = 1_000
#: How often the writing end pings; one that is not answered within half of this ends the stream. Pings queue behind
#: large frames, so this is generous.
PING_SECONDS = 10.0
#: Probes of a quiet connection that may be lost.
PROBES_MAX = 2


def break_on_silence(connection: Any, silence_ms: int) -> None:
    """Let the kernel break this connection, a socket or None, once nothing is acknowledged for so long."""
    if connection is None:
        return
    seconds = -(-silence_ms // 1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    set_tcp_options(
        connection,
        {"TCP_USER_TIMEOUT": silence_ms, **probing(after_s=seconds, every_s=1, lost_max=PROBES_MAX)},
    )
