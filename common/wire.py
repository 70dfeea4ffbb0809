"""The only use of msgpack: everything for the disk and for other nodes is packed and unpacked here.

The rule of the file: `unpack` gives back what `pack` accepts. Its input may come from a broken disk or a hostile
peer, so it returns a value or raises `WireError`, and never does anything else. Bytes stay bytes and text stays text;
tuples come back as lists. Extension types, timestamps included, are refused.
"""

from typing import Any, NoReturn

import msgpack

#: Longest packed value, in bytes: room for a full AppendEntries or one command of the largest body.
MESSAGE_BYTES_MAX = 8 << 20

#: Most items of one array or map. A header of five bytes can claim four billion items, and the decoder allocates room
#: for all before it reads the first.
ITEMS_MAX = 1 << 20


class WireError(ValueError):
    """The value cannot be packed, or the bytes are not one whole packed value."""


def pack(value: Any) -> bytes:
    """`value` as msgpack: None, bool, int of 64 bits, float, str, bytes, list or tuple, dict.

    Raises:
        WireError: another type, a larger number, text that is not Unicode, or more than `MESSAGE_BYTES_MAX`
            or `ITEMS_MAX`.
    """
    try:
        data: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"cannot be packed: {error}") from error
    if len(data) > MESSAGE_BYTES_MAX:
        raise WireError(f"packed value has {len(data)} bytes, over the limit of {MESSAGE_BYTES_MAX}")
    if len(data) > ITEMS_MAX:
        # Only a value this long can hold a list that `unpack` would refuse: find that out before it is on disk.
        unpack(data)
    return data


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """The value that `data` holds. It must use all of `data`: bytes that are left over are an error.

    Raises:
        WireError: malformed, truncated, trailing bytes, text that is not UTF-8, or over a limit.
    """
    size = len(data)
    if size > MESSAGE_BYTES_MAX:
        raise WireError(f"packed value has {size} bytes, over the limit of {MESSAGE_BYTES_MAX}")
    items_max = min(size, ITEMS_MAX)
    try:
        return msgpack.unpackb(
            data,
            strict_map_key=False,
            max_array_len=items_max,
            max_map_len=items_max,
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
    except (ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise WireError(f"not a packed value: {str(error) or type(error).__name__}") from error


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise WireError(f"extension type {code}")
