"""common/wire.py: what is packed comes back; what a disk or a peer hands us does no worse than `WireError`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.wire import ITEMS_MAX, MESSAGE_BYTES_MAX, WireError, pack, unpack

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.text() | st.binary() | st.integers(0, 99), inner, max_size=5),
    max_leaves=20,
)


@given(_VALUES)
def test_what_is_packed_comes_back_with_its_types(value):
    """Goal: bytes stay bytes, text stays text, whole numbers of 64 bits stay whole."""
    back = unpack(pack(value))

    assert value == back
    assert repr(value) == repr(back)


def test_tuples_come_back_as_lists():
    """Goal: commands may hold tuples; msgpack knows only one kind of list."""
    assert unpack(pack((1, (b"a", "b")))) == [1, [b"a", "b"]]


@pytest.mark.parametrize(
    "value",
    [1 << 64, -(1 << 63) - 1, "\ud800", object(), {1, 2}, bytes(MESSAGE_BYTES_MAX)],
    ids=["too large", "too small", "lone surrogate", "object", "set", "too long"],
)
def test_what_cannot_be_packed_is_refused(value):
    """Goal: one kind of error, whatever is wrong with the value."""
    with pytest.raises(WireError):
        pack(value)


def test_a_value_that_holds_itself_is_refused():
    """Goal: no endless recursion."""
    value: list = []
    value.append(value)

    with pytest.raises(WireError):
        pack(value)


def test_a_list_that_could_not_be_read_back_is_not_written():
    """Goal: what is on disk can be unpacked again; the limit of items holds on both sides."""
    with pytest.raises(WireError):
        pack([0] * (ITEMS_MAX + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\x01",
        b"\x01\x01",
        b"\xa2\xff\xfe",
        b"\x81\x90\x01",
        b"\x91" * 3000 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xd4\x05a",
        b"\xc7\x00\x05",
        b"\xd6\xff\x00\x00\x00\x01",
    ],
    ids=[
        "empty", "reserved", "truncated", "trailing", "not UTF-8", "list as a key", "too deep", "huge list",
        "huge map", "huge bytes", "extension", "empty extension", "timestamp",
    ],
)  # fmt: skip
def test_malformed_bytes_are_refused(data):
    """Goal: a broken record or a hostile peer gets `WireError`, with no room set aside for what it claims."""
    with pytest.raises(WireError):
        unpack(data)


def test_bytes_over_the_limit_are_refused_unread():
    """Goal: the limit holds on what arrives as well."""
    with pytest.raises(WireError, match="over the limit"):
        unpack(b"\xc0" * (MESSAGE_BYTES_MAX + 1))


@given(st.binary(max_size=200))
def test_random_bytes_give_a_value_or_a_wire_error(data):
    """Goal: never another exception, whatever comes in."""
    try:
        unpack(data)
    except WireError as error:
        assert str(error)


@given(_VALUES, st.data())
def test_every_cut_of_a_packed_value_is_refused(value, data):
    """Goal: a torn record is never taken for a shorter whole one."""
    packed = pack(value)
    length = data.draw(st.integers(0, len(packed) - 1))

    with pytest.raises(WireError):
        unpack(packed[:length])
