"""What every route handler needs: reading a request into a struct, and answering with JSON.

The rule of the file: every request passes here, so the good case does nothing unnecessary; only a refused request
pays for a good sentence. Code refuses a request by raising `ApiError`, never by returning a response.
"""

import select
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import unquote_plus

import msgspec
from aiohttp import hdrs, web
from multidict import istr

from common.api_error import ApiError, bad_request
from common.json import encode
from common.unreadable import refusal_of

#: Most parameters of one query.
QUERY_PARAMETERS_MAX = 32

#: Windows PowerShell 5 reads JSON without a charset as Latin-1.
JSON_CONTENT_TYPE = "application/json; charset=utf-8"

#: What poll(2) says of a connection that the other side has closed; 0 if the system cannot tell.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)

_CONTENT_TYPE = istr(hdrs.CONTENT_TYPE)
_JSON_HEADERS: dict[str, str] = {_CONTENT_TYPE: JSON_CONTENT_TYPE}

#: What Windows puts before a text that it saves as UTF-8.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: Spellings of the JSON content type that were seen; a bound stops clients from growing it.
_json_spellings = {"application/json", JSON_CONTENT_TYPE}
_JSON_SPELLINGS_MAX = 64

_decoders: dict[type, msgspec.json.Decoder[Any]] = {}

Body = TypeVar("Body", bound=msgspec.Struct)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`value` as JSON. Values of `msgspec.Raw` are copied as they are, so they must be JSON already."""
    if headers:
        return web.Response(body=encode(value), status=status, headers={**_JSON_HEADERS, **headers})
    return web.Response(body=encode(value), status=status, headers=_JSON_HEADERS)


def error_response(error: ApiError) -> web.Response:
    """What a refused client gets."""
    return json_response(error.body, error.status, error.headers)


def encoded_response(body: bytes) -> web.Response:
    """200 with JSON that is encoded already."""
    return web.Response(body=body, headers=_JSON_HEADERS)


async def read_body(request: web.Request, kind: type[Body]) -> Body:
    """The request's JSON body as a `kind`; an empty body counts as an empty object, and a byte order mark before it
    is ignored.

    Everything in `msgspec.Raw` fields is valid JSON in valid UTF-8.

    Raises:
        ApiError: 400 naming the field, 413, 415.
    """
    body = await request.read()
    if not body:
        return _empty(kind)
    content_type = request.headers.get(_CONTENT_TYPE)
    if content_type not in _json_spellings:
        _check_content_type(content_type)
    try:
        if not body.isascii():
            # msgspec checks the text that it decodes, but not what it skips or hands out as Raw.
            body.decode()
        read: Body = (_decoders.get(kind) or _decoder(kind)).decode(body)
        return read
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if body.startswith(BYTE_ORDER_MARK):
            return _decoded(body.removeprefix(BYTE_ORDER_MARK), kind)
        raise bad_request(refusal_of(error, kind, text=body)) from error


def read_query(request: web.Request, kind: type[Body]) -> Body:
    """The request's query parameters as a `kind`, whose fields are text, numbers or booleans.

    Raises:
        ApiError: 400 naming the parameter: unknown, given twice, missing, not of its type, or not UTF-8.
    """
    values: dict[str, str] = {}
    query = request.rel_url.raw_query_string
    for name, value in _query_pairs(query) if query else ():
        if name in values:
            raise bad_request(f"The parameter `{name[:60]}` is given twice; give it once.")
        values[name] = value
    try:
        result = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise bad_request(refusal_of(error, kind, noun="parameter", whole="query")) from error
    for name in kind.__struct_fields__ if values else ():
        number = getattr(result, name)
        if type(number) is float and not isfinite(number):
            raise bad_request(f"The parameter `{name}` must be a finite number.")
    return result


def is_hung_up(connection: Any) -> bool:
    """Whether the kernel knows that the other side of this socket has closed it. It costs a system call or two; where
    the system cannot tell, this is False."""
    if not _HUNG_UP:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), _HUNG_UP)
    return bool(poll.poll(0))


def has_hung_up(request: web.Request, ask: Callable[[Any], bool] = is_hung_up) -> bool:
    """Whether the client has closed its connection, as far as this machine knows, even if the event loop has not
    heard of it yet. For answers that need a receiver. `ask` asks the kernel: `is_hung_up`."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return True
    connection = transport.get_extra_info("socket")
    return connection is not None and ask(connection)


def _decoder(kind: type[Body]) -> msgspec.json.Decoder[Body]:
    decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder


def _decoded(body: bytes, kind: type[Body]) -> Body:
    if not body.strip():
        return _empty(kind)
    try:
        body.decode()
        read: Body = (_decoders.get(kind) or _decoder(kind)).decode(body)
        return read
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(refusal_of(error, kind, text=body)) from error


def _empty(kind: type[Body]) -> Body:
    try:
        read: Body = (_decoders.get(kind) or _decoder(kind)).decode(b"{}")
        return read
    except msgspec.ValidationError as error:
        raise bad_request(f"The body is empty; send a JSON object. {refusal_of(error, kind)}") from error


def _check_content_type(content_type: str | None) -> None:
    if content_type is None or content_type.partition(";")[0].strip().lower() != "application/json":
        named = f"not {content_type[:60]}" if content_type else "and this request names none"
        raise ApiError(
            415,
            "unsupported_media_type",
            f"The body must be JSON, {named}; send the header `Content-Type: application/json`.",
        )
    if len(_json_spellings) < _JSON_SPELLINGS_MAX:
        _json_spellings.add(content_type)


def _query_pairs(query: str) -> list[tuple[str, str]]:
    """The decoded pairs of a query string that is not empty."""
    parts = query.split("&", QUERY_PARAMETERS_MAX)
    if len(parts) > QUERY_PARAMETERS_MAX:
        raise bad_request(f"The query has over {QUERY_PARAMETERS_MAX} parameters; give fewer.")
    pairs = []
    try:
        if not query.isascii():
            # Bytes that are not UTF-8 arrive as lone surrogates, which do not encode.
            query.encode()
        for part in parts:
            name, _, value = part.partition("=")
            if "%" in part or "+" in part:
                name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
            if part:
                pairs.append((name, value))
    except UnicodeError as error:
        raise bad_request("The query is not valid UTF-8; encode it as UTF-8 before %-escaping it.") from error
    return pairs
