"""A load generator that costs little itself: raw HTTP/1.1 over keep-alive connections, one request in flight each.

Both sides of a comparison are loaded by this, so that its own cost is in both.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run saw."""

    requests: int
    failures: int
    seconds: float
    #: Seconds of each request, sorted.
    latencies: list[float]

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    def percentile(self, fraction: float) -> float:
        """Seconds within which this fraction of the requests was answered."""
        return self.latencies[min(len(self.latencies) - 1, int(fraction * len(self.latencies)))]


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the last one is answered."""

    def __init__(self, next_request: Callable[[], bytes | None], run: "_Run") -> None:
        self._next_request = next_request
        self._run = run
        self._buffer = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        start = head.index(b"content-length:") + 15
        end = head.find(b"\r\n", start)
        length = int(head[start : end if end >= 0 else None])
        if len(self._buffer) < head_end + 4 + length:
            return
        body = self._buffer[head_end + 4 :]
        self._buffer = b""
        now = time.perf_counter()
        self._run.latencies.append(now - self._sent_at)
        if b" 200 " not in head[:16] or b'"ok":false' in body:
            self._run.failures += 1
        if now >= self._run.until:
            self._finish()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._run.failures += 1
            self.done.set_result(None)

    def _send(self) -> None:
        request = self._next_request()
        if request is None:
            self._finish()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self._transport.close()


class _Run:
    def __init__(self, until: float) -> None:
        self.until = until
        self.latencies: list[float] = []
        self.failures = 0


def post(address: Address, path: str, body: bytes) -> bytes:
    """The bytes of one JSON POST."""
    host, port = address
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def load(
    addresses: Sequence[Address],
    request_to: Callable[[Address], bytes | None],
    *,
    connections: int,
    seconds: float,
) -> Result:
    """Keep `connections` spread over `addresses` busy for `seconds`. `request_to` makes each request's bytes; None
    ends that connection."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    run = _Run(started + seconds)
    made = []
    for number in range(connections):
        address = addresses[number % len(addresses)]
        _, connection = await loop.create_connection(
            lambda address=address: _Connection(lambda: request_to(address), run), *address
        )
        made.append(connection.done)
    await asyncio.gather(*made)
    elapsed = time.perf_counter() - started
    return Result(len(run.latencies), run.failures, elapsed, sorted(run.latencies) or [0.0])
