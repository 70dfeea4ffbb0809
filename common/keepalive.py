"""How the kernel finds out that the other side of a quiet connection is gone (TCP keepalive, RFC 9293 3.8.4)."""

import socket
from typing import Any


def set_tcp_options(connection: Any, options: dict[str, int]) -> None:
    """Set these options of TCP, by their names in `socket`; it skips options that this system does not have.

    Raises:
        OSError: the system does not take one of them.
    """
    for name, value in options.items():
        number = getattr(socket, name, None)
        if number is not None:
            connection.setsockopt(socket.IPPROTO_TCP, number, value)


def probing(*, after_s: int, every_s: int, lost_max: int) -> dict[str, int]:
    """Options with which the system probes a connection that was quiet for `after_s` every `every_s`, and breaks it
    once `lost_max` probes are lost."""
    return {
        # The name on macOS, and the name on all other systems.
        "TCP_KEEPALIVE": after_s,
        "TCP_KEEPIDLE": after_s,
        "TCP_KEEPINTVL": every_s,
        "TCP_KEEPCNT": lost_max,
    }
