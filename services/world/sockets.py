"""One end of a connection, as the kernel has it: what has come and was not read, what was not sent yet.

Bytes arrive in order, once, or not at all: what finds its link cut waits until it is sent again, and what is behind
it waits, too. See `services.world.network`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from services.world.loop import Process, State, WorldLoop

#: Bytes that a kernel takes from its process before they are on the way, and that it keeps until they are read.
SEND_BUFFER_BYTES = 64 << 10
RECEIVE_BUFFER_BYTES = 128 << 10
#: What is sent in one piece at most.
SEGMENT_BYTES_MAX = 32 << 10
#: What was lost is sent again after so long at first, and at last; it doubles in between.
RESEND_US_MIN, RESEND_US_MAX = 200_000, 120_000_000
#: Keepalive where nobody set it: seconds of quiet, between probes, and probes.
KEEPALIVE_S = (7200, 75, 9)


def os_error(number: int) -> OSError:
    """As the system says it."""
    return OSError(number, os.strerror(number))


class Ways(Protocol):
    """What a socket needs of the network (`services.world.network.Network`)."""

    loop: WorldLoop
    random: Random
    count: Callable[[str], None]

    def carries(self, sender: Any, to: Any) -> bool: ...

    def delay_us(self, sender: Any, to: Any) -> int: ...

    def splits(self, sender: Any, to: Any) -> bool: ...


class Place(Protocol):
    """The computer that a socket is on (`services.world.network.Host`)."""

    name: str
    address: str
    sockets: dict[Socket, None]

    @property
    def network(self) -> Ways: ...


class Socket:
    """One end of a connection."""

    def __init__(self, host: Place, process: Process, *, port: int) -> None:
        self.host = host
        self.process = process
        self.port = port
        self._network = host.network
        self._loop = host.network.loop
        self.peer: Socket | None = None
        self.peer_host: Place | None = None
        self.is_open = True
        #: Told that there is something to read, room to write, or an end. None before it was accepted.
        self.owner: Any = None
        self._unread: deque[bytes] = deque()
        self.unread_bytes = 0
        #: The peer sends no more.
        self.at_end = False
        #: Why nothing more can be done with it.
        self.error: OSError | None = None
        self._unsent: deque[bytes] = deque()
        self.unsent_bytes = 0
        #: Sent, and not known to have arrived.
        self._under_way = 0
        self._latest_us = 0
        self._ends = False
        #: Pieces that found the link cut, in their order, and since when.
        self._stalled: deque[bytes | None] = deque()
        self._stalled_since_us: int | None = None
        self._has_gap = False
        self.options: dict[tuple[int, int], int] = {}
        #: Told of all that its process writes as long as the other side is not known to have left.
        self.on_written: Callable[[bytes], None] | None = None
        host.sockets[self] = None

    def join(self, peer: Socket) -> None:
        for one, other in ((self, peer), (peer, self)):
            one.peer, one.peer_host = other, other.host

    # For its owner

    @property
    def is_left(self) -> bool:
        """The other side has closed it, as far as this kernel knows."""
        return self.at_end or self.error is not None

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return SEND_BUFFER_BYTES - self.unsent_bytes - self._under_way

    def send(self, data: bytes) -> None:
        """Take these bytes, which there is room for."""
        self._unsent.append(data)
        self.unsent_bytes += len(data)
        self._pump()

    def end(self) -> None:
        """Nothing will be sent behind what was."""
        if not self._ends:
            self._ends = True
            self._pump()

    def read(self, size_max: int) -> bytes:
        """What has come, at most so much; the sender may send more then."""
        parts, size = [], 0
        while self._unread and size < size_max:
            part = self._unread.popleft()
            if size + len(part) > size_max:
                self._unread.appendleft(part[size_max - size :])
                part = part[: size_max - size]
            parts.append(part)
            size += len(part)
        self.unread_bytes -= size
        peer = self.peer
        if peer is not None and peer.unsent_bytes and self._network.carries(self.host, peer.host):
            self._loop.after(self._network.delay_us(self.host, peer.host), peer._pump)
        return b"".join(parts)

    def close(self, *, reset: bool) -> None:
        """Let go of it. Without `reset` what was taken is still sent."""
        if not self.is_open:
            return
        if not reset and self.peer is not None:
            self.owner = None
            self._ends = True
            self.is_open = False
            self._pump()
            if not self.unsent_bytes:
                self._forget_once_sent()
            return
        peer = self.peer
        self.forget()
        if peer is not None:
            self._tell(peer, lambda: peer.fail(os_error(errno.ECONNRESET)))

    def forget(self) -> None:
        """It is gone, and nobody is told."""
        self.is_open = False
        self._unsent.clear()
        # Nobody sends again what was lost, so what is behind it will not arrive either.
        self._has_gap = self._has_gap or bool(self._stalled)
        self._stalled.clear()
        self.unsent_bytes = self._under_way = 0
        self.host.sockets.pop(self, None)

    def fail(self, error: OSError) -> None:
        """It broke; its owner hears of it."""
        if self.error is not None or self not in self.host.sockets:
            return
        self.error = error
        self.forget()
        self._notify()

    def reset_by_network(self) -> None:
        """Something between the two ends it with an error at both."""
        for each in (self, self.peer):
            if each is not None:
                each.fail(os_error(errno.ECONNRESET))

    # The way

    def _pump(self) -> None:
        """Send as far as the receiver takes it."""
        peer, network = self.peer, self._network
        if peer is None:
            return
        while self._unsent:
            free = RECEIVE_BUFFER_BYTES - peer.unread_bytes - self._under_way
            if free <= 0:
                return
            data = self._unsent.popleft()
            size = min(len(data), free, SEGMENT_BYTES_MAX)
            if size > 1 and network.splits(self.host, peer.host):
                size = network.random.randint(1, size - 1)
            if size < len(data):
                self._unsent.appendleft(data[size:])
                data = data[:size]
            self.unsent_bytes -= size
            self._under_way += size
            self._put_on_way(data)
        if self._ends and self._latest_us >= 0:
            self._put_on_way(None)
            self._latest_us = -1
            if not self.is_open:
                self._forget_once_sent()

    def _put_on_way(self, piece: bytes | None) -> None:
        assert self.peer is not None
        now_us = self._loop.now_us
        at_us = max(now_us + self._network.delay_us(self.host, self.peer.host), self._latest_us)
        self._latest_us = at_us
        self._loop.note(f"{self.host.name} {at_us} {0 if piece is None else len(piece)}")
        self._loop.at(at_us, self._arrive, piece)

    def _arrive(self, piece: bytes | None) -> None:
        """A piece, or the end, reaches the other side, unless the way is cut."""
        peer = self.peer
        assert peer is not None
        if self._has_gap:
            return
        if self._stalled or not self._network.carries(self.host, peer.host):
            self._stalled.append(piece)
            self._stall()
            return
        if peer not in peer.host.sockets:
            # A kernel that knows nothing of this connection says so.
            if piece is not None:
                self._tell(self, lambda: self.fail(os_error(errno.ECONNRESET)))
            return
        if piece is None:
            peer.at_end = True
        else:
            self._under_way -= len(piece)
            if not peer.is_open:
                # Its process has closed it and will not read this.
                peer.forget()
                self._tell(self, lambda: self.fail(os_error(errno.ECONNRESET)))
                return
            peer._unread.append(piece)
            peer.unread_bytes += len(piece)
            self._notify()
        peer._notify()

    def link_is_mended(self) -> None:
        """What found it cut goes on once it is sent again: each try comes later, the longer the tries before it have
        been in vain."""
        if self._stalled_since_us is not None:
            waited_us = min(self._loop.now_us - self._stalled_since_us, RESEND_US_MAX)
            self._loop.after(self._network.random.randint(1_000, max(waited_us, RESEND_US_MIN)), self._send_again)

    def _send_again(self) -> None:
        if self.peer is None or not self._stalled or not self._network.carries(self.host, self.peer.host):
            return
        self._stalled_since_us = None
        stalled, self._stalled = self._stalled, deque()
        for piece in stalled:
            self._arrive(piece)

    def _stall(self) -> None:
        if self._stalled_since_us is not None:
            return
        since_us = self._stalled_since_us = self._loop.now_us
        timeout_ms = self.options.get((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 0)
        if timeout_ms:
            self._loop.after(timeout_ms * 1000, self._give_up, since_us)

    def _give_up(self, since_us: int) -> None:
        """Nothing was acknowledged for as long as TCP_USER_TIMEOUT allows."""
        if self._stalled_since_us == since_us:
            self._network.count("fault: a connection broke in silence")
            self.fail(os_error(errno.ETIMEDOUT))

    def on_link_cut(self) -> None:
        """A link of this connection carries nothing: probes of a quiet connection will go unanswered."""
        if not self.options.get((socket.SOL_SOCKET, socket.SO_KEEPALIVE)):
            return
        idle_s, every_s, probes = (
            self.options.get((socket.IPPROTO_TCP, option), default)
            for option, default in zip(
                (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), KEEPALIVE_S, strict=True
            )
        )
        self._loop.after((idle_s + every_s * probes) * 1_000_000, self._probe)

    def _probe(self) -> None:
        peer_host = self.peer_host
        if peer_host is None or self not in self.host.sockets or not self.is_open:
            return
        network = self._network
        if not (network.carries(self.host, peer_host) and network.carries(peer_host, self.host)):
            network.count("fault: a quiet connection broke in silence")
            self.fail(os_error(errno.ETIMEDOUT))

    def _forget_once_sent(self) -> None:
        """Its process has closed it: the kernel keeps it until what was sent has arrived."""
        if not self._under_way and not self.unsent_bytes:
            self.host.sockets.pop(self, None)
        elif self.process.state is State.DEAD:
            self._loop.after(RESEND_US_MAX, self.forget)

    def _tell(self, whom: Socket, call: Callable[[], None]) -> None:
        """A word of the other kernel reaches `whom`."""
        network = self._network
        sender, to = (whom.peer_host or self.host), whom.host
        if network.carries(sender, to):
            self._loop.after(network.delay_us(sender, to), call)

    def _notify(self) -> None:
        owner, process = self.owner, self.process
        if owner is not None:
            process.when_running(owner.on_kernel)
        elif not self.is_open:
            self._forget_once_sent()
