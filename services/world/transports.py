"""asyncio's sockets in the world: what its loop's `create_connection` and `create_server` give.

This is the seam to the outside that a node's sockets have: the loop of asyncio or uvloop on one side, this on the
other. `tests/shell/test_sockets.py` runs both through the same cases.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from common.runtime import settle
from services.world.loop import Process
from services.world.network import Host, Listening, Network
from services.world.sockets import Socket, os_error

#: Bytes that a protocol is given at a time, and that wait in the process before it is told to write no more.
READ_BYTES_MAX = 256 << 10
HIGH_WATER_BYTES = 64 << 10
#: After a connection that could not be accepted for want of a descriptor.
ACCEPT_PAUSE_S = 1.0


class Sockets:
    """What the world's loop asks for connections and listeners."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._loop = network.loop
        #: Connected by `sock_connect`, not handed to a protocol yet.
        self._connected: dict[Any, Socket] = {}

    def addresses_of(self, host: Any, port: Any) -> list[tuple[Any, ...]]:
        address = self._network.host(str(host)).address
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, int(port or 0)))]

    async def connect_for(self, real: socket.socket, process: Process, address: tuple[str, int]) -> None:
        """Connect a socket of the system, which never leaves this process: it is the name of ours."""
        self._connected[real] = await self._connect(process, *address[:2])

    async def create_connection(
        self, process: Process, protocol_factory: Callable[[], Any], host: Any, port: Any, real: Any
    ) -> tuple[Transport, Any]:
        ours = self._connected.pop(real) if real is not None else await self._connect(process, host, port)
        protocol = protocol_factory()
        transport = Transport(ours, process, protocol, real)
        begun = self._loop.create_future()
        transport.begin()
        process.call_soon(settle, begun, None)
        try:
            await begun
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    def create_server(self, process: Process, protocol_factory: Callable[[], Any], host: Any, port: Any) -> Server:
        """Raises OSError, the port is taken."""
        here = self._network.host_of(process)
        port = int(port or here.new_port())
        if port in here.listening:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address ('{host}', {port}): in use")
        return Server(process, here, port, protocol_factory)

    async def _connect(self, process: Process, host: Any, port: Any) -> Socket:
        future: asyncio.Future[Socket] = self._loop.create_future()

        def tell(outcome: Socket | OSError) -> None:
            if future.done():
                return
            if isinstance(outcome, OSError):
                process.call_soon(settle, future, None, outcome)
            else:
                process.call_soon(settle, future, outcome)

        def on_done(outcome: Socket | OSError) -> None:
            process.when_running(partial(tell, outcome))

        give_up = self._network.connect(process, self._network.host(str(host)), int(port), on_done)
        try:
            return await future
        except asyncio.CancelledError:
            give_up()
            raise


class Server(asyncio.AbstractServer):
    """A listener of a process."""

    def __init__(self, process: Process, host: Host, port: int, protocol_factory: Callable[[], Any]) -> None:
        self._process = process
        self._host = host
        self._port = port
        self._protocol_factory = protocol_factory
        self._closed = process.loop.create_future()
        host.listening[port] = Listening(process, self._accept)
        self.sockets = [SocketOptions({}, (host.address, port))]

    def _accept(self, accepted: Socket) -> None:
        if accepted not in self._host.sockets:
            return
        if self._closed.done():
            accepted.close(reset=True)
            return
        if self._is_beyond(accepted):
            self._process.loop.call_exception_handler(
                {"message": "socket.accept() out of system resource", "exception": os_error(errno.EMFILE)}
            )
            self._process.loop.call_later(ACCEPT_PAUSE_S, self._accept, accepted)
            return
        for option, value in self.sockets[0].options.items():
            accepted.options.setdefault(option, value)
        Transport(accepted, self._process, self._protocol_factory(), None).begin()

    def _is_beyond(self, accepted: Socket) -> bool:
        """Whether the process may not have this one, which is among its sockets already."""
        own = [each for each in self._host.sockets if each.process is self._process]
        return own.index(accepted) >= self._host.descriptors_max

    def close(self) -> None:
        if self._host.listening.get(self._port) is not None and not self._closed.done():
            del self._host.listening[self._port]
        if not self._closed.done():
            self._closed.set_result(None)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    def is_serving(self) -> bool:
        return not self._closed.done()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._process.loop

    async def start_serving(self) -> None:
        pass

    async def serve_forever(self) -> None:
        await self.wait_closed()


class SocketOptions:
    """What code may want of a transport's socket."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(
        self, options: dict[tuple[int, int], int], name: tuple[str, int], peer: tuple[str, int] | None = None,
        kernel: Socket | None = None,
    ) -> None:  # fmt: skip
        self._kernel = kernel
        self.options = options
        self._name = name
        self._peer = peer

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self.options[level, option] = value

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        return self.options.get((level, option), 0)

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def getpeername(self) -> tuple[str, int]:
        if self._peer is None:
            raise os_error(errno.ENOTCONN)
        return self._peer

    def fileno(self) -> int:
        return -1

    def has_hung_up(self) -> bool:
        """What poll(2) would say of POLLRDHUP, POLLHUP and POLLERR."""
        return self._kernel is not None and self._kernel.is_left


class Transport(asyncio.Transport):
    """A connection as its process has it."""

    def __init__(self, ours: Socket, process: Process, protocol: Any, real: Any) -> None:
        assert ours.peer is not None
        name, peer = (ours.host.address, ours.port), (ours.peer.host.address, ours.peer.port)
        super().__init__(
            {"sockname": name, "peername": peer, "socket": SocketOptions(ours.options, name, peer, ours)}
        )
        self.kernel = ours
        self._process = process
        self._protocol = protocol
        self._real = real
        self._buffer = bytearray()
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self._is_paused = False
        self._protocol_paused = False
        self._closing = False
        self._ending = False
        self._lost = False
        self._eof_told = False
        self._read_scheduled = False

    def begin(self) -> None:
        """The protocol is told, then what has come already."""
        self.kernel.owner = self
        self._process.call_soon(self._protocol.connection_made, self)
        self._process.call_soon(self.on_kernel)

    # From the kernel

    def on_kernel(self) -> None:
        """Something came, there is room, or it broke."""
        if not self._read_scheduled and not self._lost:
            self._read_scheduled = True
            self._process.call_soon(self._look)

    def _look(self) -> None:
        self._read_scheduled = False
        kernel = self.kernel
        if self._lost:
            return
        self._drain()
        if kernel.unread_bytes and not self._is_paused and not self._closing:
            self._protocol.data_received(kernel.read(READ_BYTES_MAX))
            if kernel.unread_bytes:
                self.on_kernel()
                return
        if kernel.error is not None:
            self._lose(kernel.error)
        elif kernel.at_end and not kernel.unread_bytes and not self._eof_told and not self._is_paused:
            self._eof_told = True
            if not self._closing and not self._protocol.eof_received():
                self.close()

    def _drain(self) -> None:
        """Give the kernel what it takes."""
        kernel = self.kernel
        if self._buffer and kernel.error is None:
            size = min(len(self._buffer), kernel.room)
            if size > 0:
                kernel.send(bytes(self._buffer[:size]))
                del self._buffer[:size]
                self._maybe_resume_protocol()
        if not self._buffer:
            if self._closing:
                self._lose(None)
            elif self._ending:
                kernel.end()

    def _lose(self, error: BaseException | None) -> None:
        """The connection is over for its process."""
        if self._lost:
            return
        self._lost = self._closing = True
        self.kernel.owner = None
        self._buffer.clear()
        self.kernel.close(reset=error is not None or bool(self.kernel.unread_bytes))
        if self._real is not None:
            self._real.close()
        self._process.call_soon(self._protocol.connection_lost, error)

    # asyncio.Transport

    def write(self, data: Any) -> None:
        if self._lost or self._closing or not data:
            return
        data = bytes(data)
        if self.kernel.on_written is not None and not self.kernel.is_left:
            self.kernel.on_written(data)
        if not self._buffer and self.kernel.error is None:
            size = min(len(data), max(0, self.kernel.room))
            if size:
                self.kernel.send(data[:size])
                data = data[size:]
        if data:
            self._buffer += data
            if len(self._buffer) > self._high and not self._protocol_paused:
                self._protocol_paused = True
                self._protocol.pause_writing()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        self._ending = True
        if not self._buffer and not self._lost:
            self.kernel.end()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self._buffer:
            self._process.call_soon(self._lose, None)

    def abort(self) -> None:
        self._closing = True
        self._buffer.clear()
        if not self._lost:
            self._process.call_soon(self._abort)

    def _abort(self) -> None:
        if not self._lost:
            # As in a real kernel: the other side hears of an end, and of a reset only where something was not read.
            self._lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.on_kernel()

    def is_reading(self) -> bool:
        return not self._is_paused and not self._closing

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def _maybe_resume_protocol(self) -> None:
        if self._protocol_paused and len(self._buffer) <= self._low:
            self._protocol_paused = False
            self._protocol.resume_writing()


def close_real_sockets(sockets: Sockets) -> None:
    """Of connections that never came to a protocol."""
    for real in sockets._connected:
        with contextlib.suppress(OSError):
            real.close()


