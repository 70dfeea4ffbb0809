"""A client of HTTP/1.1 that can misbehave: it sends in pieces, pipelines, reads late, leaves at any moment.

One `Wire` is one connection. Answers come in the order of the requests; a stream of events is the last answer of its
connection.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Hung(Exception):
    """The connection ended before the answer was whole."""


class Wire(asyncio.Protocol):
    """See the module. Make one by `connect`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._stream: asyncio.Future[bytes] | None = None
        self._streaming = False
        self._chunks: deque[bytes] = deque()
        self.is_over = False

    @classmethod
    async def connect(cls, host: str, port: int) -> Wire:
        """Raises OSError."""
        _, wire = await asyncio.get_running_loop().create_connection(cls, host, port)
        return wire

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> asyncio.Future[Answer]:
        """Send a request; the answer comes behind those of the earlier ones."""
        head, body = message(method, path, body, headers)
        return self.expect(head + body)

    def expect(self, data: bytes) -> asyncio.Future[Answer]:
        """Send what holds, or begins, one request."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        if self.is_over or self.transport is None:
            self._fail()
        else:
            self.transport.write(data)
        return answer

    def send(self, data: bytes) -> None:
        """More of a request."""
        if self.transport is not None and not self.is_over:
            self.transport.write(data)

    async def events(self) -> AsyncIterator[tuple[str, str, Any]]:
        """The events of a stream whose answer has begun: `(id, name, data)`; ("", "", None) for a heartbeat."""
        buffer = b""
        while True:
            while b"\n\n" in buffer:
                block, _, buffer = buffer.partition(b"\n\n")
                yield _event(block)
            chunk = await self._next_chunk()
            if not chunk:
                return
            buffer += chunk

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    async def _next_chunk(self) -> bytes:
        """Empty at the end. Raises Hung where there is none."""
        if not self._chunks:
            if self.is_over:
                raise Hung
            self._stream = asyncio.get_running_loop().create_future()
            return await self._stream
        return self._chunks.popleft()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._read_one():
            pass

    def eof_received(self) -> bool:
        self._fail()
        return False

    def connection_lost(self, error: BaseException | None) -> None:
        self._fail()

    def _fail(self) -> None:
        self.is_over = True
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(Hung())
                # Whoever has gone does not ask.
                answer.exception()
        if self._stream is not None and not self._stream.done():
            self._stream.set_exception(Hung())
            self._stream.exception()

    def _read_one(self) -> bool:
        """Take one whole answer, or one piece of a stream, out of what has come."""
        if self._streaming:
            return self._read_chunk()
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        status = int(lines[0].split()[1])
        if headers.get("transfer-encoding") == "chunked":
            del self._buffer[: end + 4]
            self._streaming = True
            self._tell(Answer(status, headers, b""))
            return True
        whole = end + 4 + int(headers.get("content-length", 0))
        if len(self._buffer) < whole:
            return False
        body = bytes(self._buffer[end + 4 : whole])
        del self._buffer[:whole]
        if status >= 200:
            self._tell(Answer(status, headers, body))
        return True

    def _read_chunk(self) -> bool:
        line = self._buffer.find(b"\r\n")
        if line < 0:
            return False
        size = int(self._buffer[:line], 16)
        if len(self._buffer) < line + 2 + size + 2:
            return False
        chunk = bytes(self._buffer[line + 2 : line + 2 + size])
        del self._buffer[: line + 2 + size + 2]
        if not chunk:
            self._streaming = False
        if self._stream is not None and not self._stream.done():
            self._stream.set_result(chunk)
        else:
            self._chunks.append(chunk)
        return True

    def _tell(self, answer: Answer) -> None:
        if self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(answer)


def message(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    """A request's head and body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), body


def _event(block: bytes) -> tuple[str, str, Any]:
    fields = {}
    for line in block.decode().split("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    if "event" not in fields:
        return "", "", None
    return fields.get("id", ""), fields["event"], json.loads(fields["data"])
