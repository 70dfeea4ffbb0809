"""What nodes say to each other about members, as msgpack lists of their fields. Malformed ones are a `WireError`."""

from collections.abc import Callable
from dataclasses import astuple, fields
from functools import partial
from typing import Any, TypeVar

from common.wire import WireError, pack, unpack
from raft.admission import AdmissionReply, AdmissionRequest
from raft.membership import MemberChange, MemberChangeReply

Said = TypeVar("Said", MemberChange, MemberChangeReply, AdmissionRequest, AdmissionReply)


def _encode(said: Any) -> bytes:
    return pack(list(astuple(said)))


def _decode(cls: type[Said], data: bytes) -> Said:
    """Raises WireError."""
    values = unpack(data)
    if not isinstance(values, list) or len(values) != len(fields(cls)):
        raise WireError(f"not a {cls.__name__}")
    # Each field is text or a number, and its default, or the lack of one, tells which.
    for value, field in zip(values, fields(cls), strict=True):
        expected = type(field.default) if isinstance(field.default, int) else str
        if type(value) is not expected:
            raise WireError(f"{cls.__name__}: {field.name} is no {expected.__name__}")
    return cls(*values)


encode_change = encode_change_reply = encode_admission_request = encode_admission_reply = _encode
decode_change: Callable[[bytes], MemberChange] = partial(_decode, MemberChange)
decode_change_reply: Callable[[bytes], MemberChangeReply] = partial(_decode, MemberChangeReply)
decode_admission_request: Callable[[bytes], AdmissionRequest] = partial(_decode, AdmissionRequest)
decode_admission_reply: Callable[[bytes], AdmissionReply] = partial(_decode, AdmissionReply)
