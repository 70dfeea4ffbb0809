"""The version of a group's log: what raises it, what it lets through, and what stops a node that knows less."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from common.wire import pack, unpack
from raft.core.ready import Persist
from raft.core.types import Configuration, Entry, EntryKind, HardState, SnapshotMeta
from raft.errors import NotKnownToAll
from raft.state_machine import FIRST_VERSION, ApplyContext
from raft.storage import UnknownFormat, open_storage
from raft.storage.backup import BackupEncoder, BackupHead
from services.catalogue import SERVICES
from services.cluster.backend import NodeProcess
from services.cluster.probe import GroupTold, Told
from services.cluster.roster import Roster, Seat
from services.cluster.status import version_remarks
from services.cluster.topology import Node as TopologyNode
from services.lock.replicated.commands import Acquire
from services.node.ended import advice_for, describe
from services.offline.disks import loaded_machine
from services.offline.restore import load_backup
from services.operations.refusals import from_raft
from services.replicated.envelope import encode_command, fingerprint
from services.replicated.limits import SetLimits
from services.replicated.machine import RAISED_TOPIC, ReplicatedMachine
from services.replicated.proposing import propose
from services.replicated.versions import (
    KNOWN,
    RaiseVersion,
    UnknownCommand,
    UnknownVersion,
    check_entries,
    since,
)
from tests.helpers import eventually, serving
from tests.services.releases import NEXT, EarlierNote, Note, Take, nexts, todays
from tests.services.test_maintenance import node_app, ready
from tests.services.test_replicated_snapshots import digest


def applied(machine: ReplicatedMachine, *commands: Any) -> list[tuple[dict, list]]:
    """Each answer, and what listeners hear with it."""
    told = []
    for index, command in enumerate(commands, 1):
        context = ApplyContext(index, 1_000)
        told.append((machine.apply(context, encode_command(command)), context.events))
    return told


class Node:
    """As much of a `RaftNode` as proposing needs: what was proposed."""

    def __init__(self, machine: ReplicatedMachine) -> None:
        self.machine = machine
        self.proposed: list[bytes] = []

    async def propose(self, command: bytes, *, parting: bool = False) -> dict[str, Any]:
        self.proposed.append(command)
        return {"ok": True}


# What the log says


def test_the_version_rises_and_never_falls() -> None:
    machine = ReplicatedMachine(SERVICES["lock"].machine, 9)

    told = applied(machine, *map(RaiseVersion, (3, 2, 3, 7, FIRST_VERSION)))

    assert [answer["version"] for answer, _ in told] == [3, 3, 3, 7, 7]
    assert [events for _, events in told] == [[(RAISED_TOPIC, 3)], [], [], [(RAISED_TOPIC, 7)], []]
    assert machine.version == 7


def test_time_reaches_the_machine_with_the_entry_as_with_any_other() -> None:
    machine = nexts()
    applied(machine, Acquire("k", "a", ttl_ms=10))

    machine.apply(ApplyContext(2, 2_000), encode_command(RaiseVersion(NEXT)))

    assert machine.next_due_ms() is None


def test_a_release_that_knows_less_stops_and_says_what_it_takes() -> None:
    machine = todays()

    with pytest.raises(UnknownVersion) as caught:
        applied(machine, RaiseVersion(NEXT))

    assert str(caught.value) == (
        f"entry 1 begins version {NEXT} of the group's log, and this release knows version {KNOWN}: it takes a newer "
        "release"
    )
    assert machine.version == FIRST_VERSION
    assert describe(caught.value) == str(caught.value)
    assert "Start a release that knows it" in advice_for(caught.value)
    assert isinstance(caught.value, UnknownCommand)


def test_a_log_that_raises_the_version_is_refused_before_it_is_carried_out() -> None:
    """Also where the entry may not be committed: then nothing else of the log is looked at."""
    commands = [Acquire("k", "a"), RaiseVersion(NEXT), RaiseVersion(NEXT + 1)]
    data = map(encode_command, commands)
    entries = [Entry(index, 1, 1_000, EntryKind.COMMAND, each) for index, each in enumerate(data, 5)]

    check_entries(entries, NEXT + 1)
    check_entries(entries[:1], KNOWN)
    with pytest.raises(UnknownVersion, match=f"entry 6 begins version {NEXT} "):
        check_entries(entries, KNOWN)
    with pytest.raises(UnknownVersion, match=f"entry 7 begins version {NEXT + 1} "):
        check_entries(entries, NEXT)


# Snapshots and backups


def test_a_snapshot_of_a_group_that_was_never_raised_is_as_before_there_were_versions() -> None:
    """Earlier releases read it: the number of kept answers, or the limits that were set, come first."""
    plain, limited = todays(), todays()
    applied(plain, Acquire("k", "a"))
    applied(limited, SetLimits((("idempotency_keys_max", 7),)))

    first = [[unpack(record) for record in unpack(next(machine.snapshot()))] for machine in (plain, limited)]

    assert first[0][0] == 0
    assert first[1][:2] == [[["idempotency_keys_max", 7]], 0]
    assert digest(nexts()) == digest(todays())


def test_a_snapshot_of_a_group_that_was_raised_carries_the_version_on() -> None:
    machine = nexts()
    applied(machine, SetLimits((("idempotency_keys_max", 7),)), Acquire("k", "a"), RaiseVersion(NEXT), Take("other"))

    copy = nexts()
    copy.restore(machine.snapshot())

    assert copy.version == NEXT
    assert copy.limits.in_force["idempotency_keys_max"] == 7
    assert digest(copy) == digest(machine)


def test_a_snapshot_of_a_later_version_is_refused_and_nothing_of_it_is_taken() -> None:
    machine, earlier = nexts(), todays()
    applied(machine, Acquire("k", "a"), RaiseVersion(NEXT))
    applied(earlier, Acquire("mine", "a"))
    before = digest(earlier)

    with pytest.raises(UnknownVersion, match=f"the snapshot has version {NEXT} of the group's log"):
        earlier.restore(machine.snapshot())

    assert digest(earlier) == before
    with pytest.raises(UnknownFormat, match="use the version that wrote it, or a newer one"):
        loaded_machine("lock", machine.snapshot(), "lock")


def test_a_backup_of_a_later_version_is_not_restored(tmp_path: Path) -> None:
    """It is sound: it takes a newer release."""
    machine = nexts()
    applied(machine, RaiseVersion(NEXT))
    encoder = BackupEncoder(BackupHead(1_700_000_000_000, "lock", "node1", "9.9.9"), SnapshotMeta(1, 1, 1_000))
    path = tmp_path / "lock.backup"
    path.write_bytes(b"".join([encoder.begin(), *map(encoder.chunk, machine.snapshot()), encoder.end()]))

    with pytest.raises(UnknownFormat, match=f"has version {NEXT} of the group's log"):
        load_backup(path)


# A node


def write_raised(directory: Path, *, snapshot: bool) -> None:
    """The data of a node of the next release, in a group of one that was raised: in its log, or in a snapshot."""
    machine = nexts()
    applied(machine, RaiseVersion(NEXT))
    entry = Entry(1, 1, 1_000, EntryKind.COMMAND, encode_command(RaiseVersion(NEXT)))
    storage, _ = open_storage(directory)
    storage.write([Persist(HardState(1), (entry,))])
    if snapshot:
        meta = SnapshotMeta(1, 1, 1_000, Configuration(("node1",)))
        storage.save_snapshot(meta, machine.snapshot())
        storage.mark_snapshot(meta)
    storage.close()


@pytest.mark.parametrize("snapshot", [False, True], ids=["log", "snapshot"])
async def test_a_node_does_not_start_a_group_on_the_data_of_a_later_version(tmp_path: Path, snapshot: bool) -> None:
    """It serves its other groups, says what to start, and leaves the data as it is."""
    write_raised(tmp_path / "data" / "lock", snapshot=snapshot)
    files = {path.name for path in (tmp_path / "data" / "lock").iterdir()}

    async with serving(node_app(tmp_path)) as client:

        async def reasons() -> dict[str, str]:
            found = (await (await client.get("/readyz")).json())["reasons"]
            return found if set(found) == {"lock"} else {}

        reason = (await eventually(reasons))["lock"]
        refused = await client.post("/lock/acquire", json={"key": "k", "client_id": "me"})
        served = await client.post("/queue/push", json={"queue": "q", "payload": 1})

    assert f"version {NEXT} of the group's log, and this release knows version {KNOWN}" in reason
    assert reason.endswith("start the version that wrote it, or a newer one")
    assert (refused.status, served.status) == (503, 200)
    assert {path.name for path in (tmp_path / "data" / "lock").iterdir()} >= files


async def test_status_and_metrics_tell_the_version_and_what_the_node_knows(tmp_path: Path) -> None:
    async with serving(node_app(tmp_path)) as client:
        await ready(client)

        async def versions() -> set[tuple[int, int]]:
            groups = (await (await client.get("/status")).json())["groups"]
            found = {(each["version"], each["known"]) for each in groups.values()}
            return found if found == {(KNOWN, KNOWN)} else set()

        await eventually(versions)
        metrics = await (await client.get("/metrics?format=text")).text()

    assert f'mufakat_log_version{{group="lock"}} {float(KNOWN)}' in metrics


def seat(id: str, known: int, version: int = FIRST_VERSION, membership: str = "voter") -> Seat:
    """A node of the group `lock`; one that does not answer where it knows nothing."""
    told = GroupTold("follower", 1, None, version=version, known=known)
    answer = Told(id, None, groups={"lock": told}) if known else "does not run"
    return Seat(TopologyNode(id, ("lock",), 8_000), NodeProcess(1, "running"), answer, {"lock": membership})


def test_mufakat_status_says_who_keeps_a_version_where_it_is() -> None:
    """And nothing of it where all know the same, or only a removed node knows less."""
    mixed = Roster((seat("node1", 2), seat("node2", 1), seat("node3", 0), seat("node4", 1, membership="none")))
    alike = Roster((seat("node1", 2), seat("node2", 2), seat("node3", 1, membership="none")))

    assert version_remarks(mixed) == [
        "lock: the log stays at version 1 until all members know version 2; node2, node3 do not say so."
    ]
    assert version_remarks(alike) == []
    assert version_remarks(Roster((seat("node1", 2, 2), seat("node2", 0)))) == []


# What may be proposed


async def test_what_not_all_members_know_is_not_proposed() -> None:
    node = Node(nexts())

    await propose(node, Acquire("k", "a"))
    with pytest.raises(NotKnownToAll) as caught:
        await propose(node, Take("k"))
    applied(node.machine, RaiseVersion(NEXT))
    await propose(node, Take("k"))

    assert [unpack(data)[0] for data in node.proposed] == ["acquire", "take"]
    refusal = from_raft(caught.value)
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (503, "not_ready")
    assert refusal.detail == "Not every node of the group knows this yet; upgrade all of them first."


async def test_a_field_that_came_later_is_written_only_where_it_says_something() -> None:
    """So an upgraded node goes on with a command of today's while others do not know its new field."""
    node = Node(nexts())

    await propose(node, Note("a"))
    with pytest.raises(NotKnownToAll):
        await propose(node, Note("b", more=1))
    applied(node.machine, RaiseVersion(NEXT))
    await propose(node, Note("b", more=1))
    with pytest.raises(NotKnownToAll):
        await propose(node, Note("c", most="x"))

    assert node.proposed == [encode_command(EarlierNote("a")), pack(["note", ["b", 1], None, None])]
    assert since(Note("c", most="x")) == NEXT + 1
    assert unpack(encode_command(Note("c", most="x")))[1] == ["c", 0, "x"]
    assert fingerprint(Note("a")) == fingerprint(EarlierNote("a"))


def test_a_release_that_forgot_to_raise_what_it_knows_does_not_start() -> None:
    with pytest.raises(AssertionError, match="newer than the version that is known"):
        ReplicatedMachine(nexts()._make_inner, KNOWN)


# What each version is


#: Of every group.
OF_EVERY_GROUP = {"set_limits": "limits", "raise_version": "version"}
#: Each kind of command with its fields, as the first version has it: what nodes of that version read. Never changed.
#: A command that is not here has a `SINCE`, and a field that is not here stands in `FIELDS_SINCE`, with a version
#: that `services.replicated.versions` tells.
FIRST_COMMANDS: dict[str, dict[str, str]] = {
    "lock": {
        "acquire": "key owner exclusive ttl_ms wait_ms waiter node boot",
        "release": "key owner token",
        "renew": "key owner ttl_ms token",
        "force_release": "key owner",
        "cancel_wait": "key owner waiter",
        "cancel_waits": "waits",
        "drop_waiters": "node boot_kept",
        **OF_EVERY_GROUP,
    },
    "queue": {
        "enq": "queue payload priority delay_ms ttl_ms",
        "enq_batch": "messages",
        "deq": "queue max visibility_ms waits",
        "pop": "queue waits",
        "ack": "msg_id receipt",
        "ack_batch": "messages",
        "nack": "msg_id receipt delay_ms unseen",
        "give_back": "deliveries",
        "extend": "msg_id receipt visibility_ms",
        "reject": "msg_id receipt",
        "config": "queue visibility_ms max_deliveries max_messages max_bytes "
        "message_ttl_ms paused max_dead max_dead_bytes dead_ttl_ms",
        "redrive": "queue before_id",
        "purge": "queue states before_id after_id",
        "delete": "queue force before_id after_id",
        **OF_EVERY_GROUP,
    },
    "cache": {
        "put": "key value node ttl_ms if_version tags lease",
        "mput": "items node",
        "fill": "key node lease_ms asker claim",
        "mfill": "keys node",
        "delete": "key if_version lease",
        "giveback": "leases",
        "incr": "key by node ttl_ms",
        "invalidate": "tag",
        **OF_EVERY_GROUP,
    },
}


@pytest.mark.parametrize("group", SERVICES)
def test_what_the_first_version_does_not_have_says_since_when_it_is(group: str) -> None:
    """Else a node of that version would be sent what stops it."""
    commands = (*SERVICES[group].machine.COMMANDS, SetLimits, RaiseVersion)
    later = {command.OP for command in commands if getattr(command, "SINCE", FIRST_VERSION) > FIRST_VERSION}

    found = {
        command.OP: " ".join(
            field.name for field in fields(command) if field.name not in getattr(command, "FIELDS_SINCE", {})
        )
        for command in commands
        if command.OP not in later
    }

    assert found == FIRST_COMMANDS[group]


@pytest.mark.parametrize("group", SERVICES)
def test_fields_that_came_later_stand_at_the_end_with_their_defaults(group: str) -> None:
    for command in SERVICES[group].machine.COMMANDS:
        later = getattr(command, "FIELDS_SINCE", {})
        names = [field.name for field in fields(command)]

        assert set(names[len(names) - len(later) :]) == set(later), command.OP
        assert {field.name: field.default for field in fields(command) if field.name in later} == {
            name: command.ADDED[name] for name in later
        }
