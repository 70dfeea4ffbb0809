"""Commands as they lie in logs that were written before a field came: they are read, and mean what they meant."""

from typing import Any

import pytest

from common.wire import pack
from raft.state_machine import ApplyContext
from services.cache.replicated.commands import Delete, Fill, FillMany, Incr, Put, PutMany
from services.cache.replicated.machine import CacheMachine
from services.replicated.envelope import encode_command, fingerprint
from services.replicated.machine import ReplicatedMachine

#: Bytes of a log entry, and the fingerprint of its request, of the version before tags and leases; today's command.
OLD = [
    (
        b"\x94\xa3put\x95\xa1k\xc4\x011\xa5node1\xcd\x03\xe8\x00\xc0\xc0",
        "baaf713db668f4fee53f43ec71092d04",
        Put("k", b"1", "node1", 1000, 0),
    ),
    (
        b"\x94\xa4mput\x92\x92\x94\xa1b\xc4\x012\xc0\xc0\x94\xa1a\xc4\x0112\x00\xa5node2\xc0\xc0",
        "020c539454c843cac8b3f9aaa136b18b",
        PutMany((("b", b"2", None, None), ("a", b"1", 50, 0)), "node2"),
    ),
    (b"\x94\xa4fill\x92\xa1k\xa5node1\xc0\xc0", "777f48dc401cd53c7d3fcb150a57239a", Fill("k", "node1")),
    (
        b"\x94\xa5mfill\x92\x92\xa1k\xa1a\xa5node2\xc0\xc0",
        "eb8edb61605c56830e3d144e837c98ad",
        FillMany(("k", "a"), "node2"),
    ),
    (b"\x94\xa6delete\x92\xa1k\x03\xc0\xc0", "9fd6eaaad679305010cb5a0e85a39815", Delete("k", 3)),
    (b"\x94\xa4incr\x94\xa1n\x02\xa5node1\xc0\xc0\xc0", "924fb99ecd0fdc2b337cc6ee817e59f3", Incr("n", 2, "node1")),
]
NAMES = [command.OP for _, _, command in OLD]


def life(commands: list[bytes]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The answers to the commands in turn, and the snapshot after them."""
    machine = ReplicatedMachine(CacheMachine)
    answers = [machine.apply(ApplyContext(index, 1000), data) for index, data in enumerate(commands, 1)]
    return answers, list(machine.snapshot())


def test_an_old_log_means_what_it_meant() -> None:
    old, today = [data for data, _, _ in OLD], [encode_command(command) for _, _, command in OLD]

    assert life(old) == life(today)
    assert [answer.get("ok", answer.get("hit")) for answer in life(old)[0]] == [True, True, True, True, False, True]


@pytest.mark.parametrize(("_", "kept", "command"), OLD, ids=NAMES)
def test_an_idempotency_key_from_before_fits_its_request(_: bytes, kept: str, command: Any) -> None:
    """Goal: a client that sends its request again after the upgrade gets the first answer, not 422."""
    assert fingerprint(command).hex() == kept


def test_what_came_later_tells_requests_apart() -> None:
    plain = Put("k", b"1", "node1")

    said = {fingerprint(Put("k", b"1", "node1", tags=("t",))), fingerprint(Put("k", b"1", "node1", lease=1))}

    assert len({fingerprint(plain), *said}) == 3


def test_an_entry_from_before_claims_means_what_it_meant() -> None:
    """Goal: the fields that a command was given later are read as not said."""
    asked = ["k", "node1", 1000, "node1:boot"]
    old = [pack(["fill", asked, None, None])] * 2

    answers, snapshot = life(old)

    assert [answer["lease"] for answer in answers] == [1, 1]
    assert (answers, snapshot) == life([encode_command(Fill(*asked))] * 2)
    assert fingerprint(Fill(*asked)).hex() == "a3471a5e9ddbd36569b50ffc0e2e2382"
