"""Whether what all clients of the cache were told can be true at once.

Rules, each a function that yields what breaks it:

    register    reads, writes, swaps and removals of one key have an order (`tests.sim.check`)
    versions    a version stands for one value; whoever asks later is told no smaller one
    counter     increments are neither lost nor done twice
    leases      one lease to fill a key at a time; a fill is refused if, and only if, something happened meanwhile
    stale       what a read may show that says it is stale was once written
    watch       each watcher was told of each change once, or of a gap

A time to live is no matter of this judge's clock: the value may go at any time from then on, and not before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from tests.shell.cache_record import Deed, Lease, Notice, Record, Watch
from tests.sim.check import Operation, Undecided, check_history

if TYPE_CHECKING:
    from tests.shell.run import Run

#: A time to live, or a lease, counts so much less, for what cluster time may run fast.
TTL_SLACK = 0.97
#: Steps of the search for one key's order. More than a hundred times what most take.
STEPS_MAX = 60_000

#: What is told of numbers, and not of texts.
COUNTERS = "count"
#: Of all gaps, this one says that the group has forgotten what it told.
FORGOTTEN = "future"


def check_caches(run: Run) -> None:
    """To be called once, in the end."""
    for text in judge(run.caches, run.world.count):
        run.fail(text)


def judge(record: Record, count: Callable[[str], None] = lambda name: None) -> Iterator[str]:
    """What cannot be. `count` is told of keys whose order was not found in time."""
    deeds_of: dict[str, list[Deed]] = {}
    leases_of: dict[str, list[Running]] = {}
    for deed in record.deeds:
        if deed.fate != "not done":
            deeds_of.setdefault(deed.key, []).append(deed)
    runs_from = runs_from_us(record)
    for lease in record.leases:
        from_us = lease.asked_us if lease.is_own else runs_from(lease.token)
        until_us = from_us + round(lease.length_s * TTL_SLACK * 1_000_000)
        leases_of.setdefault(lease.key, []).append(Running(lease, from_us, until_us))
    for key, deeds in deeds_of.items():
        fresh = [deed for deed in deeds if not deed.is_stale]
        yield from check_versions(key, deeds)
        yield from check_stale(key, deeds)
        yield from check_leases(key, deeds, leases_of.get(key, []))
        if key.startswith(COUNTERS):
            yield from check_counter(key, fresh)
        else:
            try:
                yield from check_register(key, fresh)
            except Undecided:
                count("cache: order of a key not found in time")
    for watch in record.watches:
        yield from check_watch(watch)
        yield from check_nothing_missed(watch, record.deeds)


# One key


def check_versions(key: str, deeds: list[Deed]) -> Iterator[str]:
    """`deeds` are of one key, here and below."""
    value_of: dict[int, str | int | None] = {}
    version_of: dict[str | int | None, int] = {}
    told = [(deed.told_us, deed) for deed in deeds if deed.told_us is not None and deed.version]
    for _, deed in told:
        if deed.fate != "done" or deed.kind == "remove":
            continue
        if value_of.setdefault(deed.version, deed.value) != deed.value:
            yield f"version {deed.version} of {key} is both {value_of[deed.version]!r} and {deed.value!r}"
        if version_of.setdefault(deed.value, deed.version) != deed.version:
            yield f"{deed.value!r} of {key} has the versions {version_of[deed.value]} and {deed.version}"
    fresh = [each for each in told if not each[1].is_stale]
    by_end = sorted(fresh, key=lambda each: each[0])
    floor, ended = 0, 0
    for _, deed in sorted(fresh, key=lambda each: each[1].asked_us):
        while by_end[ended][0] < deed.asked_us:
            floor = max(floor, by_end[ended][1].version)
            ended += 1
        is_new = deed.fate == "done" and deed.writes
        if deed.version < floor or (is_new and deed.version == floor):
            yield f"{key} had version {floor} before {deed} asked"


def check_register(key: str, deeds: list[Deed]) -> Iterator[str]:
    """Raises: Undecided."""
    value_of = {deed.version: deed.value for deed in deeds if deed.fate == "done" and deed.version}
    operations = [operation for deed in deeds for operation in _operations(deed, value_of)]
    verdict = check_history(operations, "register", STEPS_MAX)
    if not verdict.linearizable:
        shown = "\n".join(map(_shown, [*verdict.offending, *verdict.sources]))
        yield f"{key} was never so that all of this is true:\n{shown}"


def _shown(operation: Operation) -> str:
    what = f"{operation.process} {operation.op} {operation.value!r}"
    return f"{what} from {operation.call} to {operation.return_}: {operation.ok} {operation.result!r}"


def _operations(deed: Deed, value_of: dict[int, str | int | None]) -> Iterator[Operation]:
    """The deed in the words of the checker."""

    def operation(op: str, value: object, ok: bool | None, result: object = None) -> Operation:
        return Operation(deed.client, op, deed.key, value, deed.asked_us, deed.told_us, ok, result)

    ok = True if deed.fate == "done" else None
    if deed.kind == "read":
        if ok:
            yield operation("read", None, True, deed.value)
    elif deed.fate == "refused":
        # It was told what is there instead.
        if not deed.version or deed.version in value_of:
            yield operation("read", None, True, value_of[deed.version] if deed.version else None)
        elif deed.kind == "swap":
            yield operation("cas", [deed.expects, deed.value], True, False)
    elif deed.kind == "remove" and deed.found is False:
        yield operation("read", None, True, None)
    elif deed.kind in ("swap", "fill"):
        yield operation("cas", [deed.expects, deed.value], ok, ok)
    else:
        yield operation("write", deed.value, ok)
    if deed.ttl_s is not None and deed.fate != "refused":
        from_us = deed.asked_us + round(deed.ttl_s * TTL_SLACK * 1_000_000)
        yield Operation("expiry", "cas", deed.key, [deed.value, None], from_us, None, None)


def check_stale(key: str, deeds: list[Deed]) -> Iterator[str]:
    """What is out of date was true once."""
    written_us = {deed.value: deed.asked_us for deed in deeds if deed.writes and deed.fate != "refused"}
    for deed in deeds:
        if deed.is_stale and deed.value is not None and not key.startswith(COUNTERS):
            asked_us = written_us.get(deed.value)
            if asked_us is None or asked_us >= (deed.told_us or 0):
                yield f"{key} never was {deed.value!r} before {deed} was told"


def check_counter(key: str, deeds: list[Deed]) -> Iterator[str]:
    """A number that is only ever counted up by one: each sum is told once, and lies between the increments that were
    told before and those that were asked for by then."""
    increments = [deed for deed in deeds if deed.kind == "incr"]
    by: dict[int, Deed] = {}
    for deed in increments:
        if deed.fate == "done":
            assert isinstance(deed.value, int)
            if by.setdefault(deed.value, deed) is not deed:
                yield f"{key} was counted to {deed.value} twice: {by[deed.value]} and {deed}"
    for deed in deeds:
        if deed.fate != "done":
            continue
        assert deed.told_us is not None
        shown = int(deed.value or 0)
        least = sum(not each.may_come_after(deed.asked_us) for each in increments) + (deed.kind == "incr")
        most = sum(each.may_come_before(deed.told_us) for each in increments)
        if not least <= shown <= most:
            yield f"{key} must have been counted to {least} at least and {most} at most: {deed}"


# Leases


class Running(NamedTuple):
    """A lease, and from when until when its time has not run out, whatever anybody's clock says."""

    lease: Lease
    from_us: int
    until_us: int


def runs_from_us(record: Record) -> Callable[[int], int]:
    """A function that says of an index of the log when its entry was made at the earliest: not before what is told to
    stand in front of it was asked for."""
    asked = sorted((deed.version, deed.asked_us) for deed in record.deeds if deed.fate == "done" and deed.writes)
    versions = [version for version, _ in asked]
    latest_us = [0, *accumulate((asked_us for _, asked_us in asked), max)]
    return lambda index: latest_us[bisect_left(versions, index)]


def check_leases(key: str, deeds: list[Deed], leases: list[Running]) -> Iterator[str]:
    """What anybody may have done to the key since it was taken ends a lease, and so does its time."""
    changes = [deed for deed in deeds if deed.kind != "read"]
    leases = sorted(leases, key=lambda each: each.lease.token)
    for position, each in enumerate(leases):
        for later in leases[position + 1 :]:
            yield from _check_pair(each, later.lease, changes)
    # One that was told again is as it was told first.
    by_token = {each.lease.token: each for each in sorted(leases, key=lambda each: -each.lease.told_us)}
    for fill in changes:
        each = by_token.get(fill.lease)
        if fill.kind == "fill" and each is not None and fill.told_us is not None:
            yield from _check_fill(fill, each, [deed for deed in changes if deed is not fill])


def _check_pair(running: Running, later: Lease, changes: list[Deed]) -> Iterator[str]:
    lease = running.lease
    if lease.token == later.token:
        if lease.client != later.client:
            yield f"two clients have one lease: {lease} and {later}"
    elif later.told_us < running.until_us and not _may_have_ended(running, later.told_us, changes):
        yield f"two leases of {lease.key} ran at once: {lease} and {later}"


def _check_fill(fill: Deed, running: Running, others: list[Deed]) -> Iterator[str]:
    """`others` are what else may have ended the lease."""
    assert fill.told_us is not None
    if fill.fate == "refused":
        if fill.told_us < running.until_us and not _may_have_ended(running, fill.told_us, others):
            yield f"{fill} was refused although nothing came after {running.lease}"
        return
    for deed in others:
        if deed.fate == "done" and deed.asked_us > running.lease.told_us and (deed.told_us or 0) < fill.asked_us:
            yield f"{fill} was done although {deed} came after {running.lease}"


def _may_have_ended(running: Running, by_us: int, changes: list[Deed]) -> bool:
    return any(deed.may_come_after(running.from_us) and deed.may_come_before(by_us) for deed in changes)


# Watchers


def check_watch(watch: Watch) -> Iterator[str]:
    """What one watcher was told, in its order."""
    last: tuple[int, int] | None = None
    known: dict[str, int] = {}
    for notice in watch.told:
        where = f"watcher {watch.name}: {notice}"
        if notice.name == "lost":
            last = None
            known.clear()
        elif notice.name == "ready":
            if last is not None and notice.position != last:
                yield f"{where}: it goes on from {last}"
            last = notice.position
        elif notice.name == "gap":
            if notice.reason == FORGOTTEN:
                yield f"{where}: the group has forgotten what it told"
            if last is None or notice.position < last:
                yield f"{where}: it has been told of {last} already"
            last = notice.position
            known.clear()
        elif notice.name != "end":
            if last is None or notice.position <= last:
                yield f"{where}: it has been told of {last} already"
            last = notice.position
            yield from _check_change(watch, notice, known)


def _check_change(watch: Watch, notice: Notice, known: dict[str, int]) -> Iterator[str]:
    where = f"watcher {watch.name}: {notice}"
    if not notice.key.startswith(watch.prefix):
        yield f"{where}: it watches {watch.prefix!r}"
    before = known.get(notice.key)
    if before is not None and before != notice.previous_version:
        yield f"{where}: it was told of version {before} last, and of no gap"
    index = notice.position[0]
    right = {"write": index, "fill": notice.previous_version}.get(notice.name, 0)
    if notice.version != right or notice.previous_version >= index:
        yield f"{where}: such a change has another version"
    known[notice.key] = notice.version


def check_nothing_missed(watch: Watch, deeds: list[Deed]) -> Iterator[str]:
    """Each write that any client was told of, and that lies in what this watcher was told, is among it."""
    spans, written = _spans(watch)
    for deed in deeds:
        is_told = deed.fate == "done" and deed.version and not deed.is_stale and deed.key.startswith(watch.prefix)
        if is_told and (deed.key, deed.version) not in written:
            for after, up_to in spans:
                if after < deed.version <= up_to:
                    yield f"watcher {watch.name} was told of what is behind {after} up to {up_to}, and not of {deed}"


def _spans(watch: Watch) -> tuple[list[tuple[int, int]], set[tuple[str, int]]]:
    """The stretches of the log, by index, all of whose changes the watcher was told; and the writes among these. A
    position in the middle of an entry leaves that entry out."""
    spans: list[tuple[int, int]] = []
    written = set()
    after: int | None = None
    last = 0
    for notice in watch.told:
        if notice.name in ("ready", "gap", "lost") and (after is None or notice.name != "ready"):
            if after is not None and last - 1 > after:
                spans.append((after, last - 1))
            after, last = (None, 0) if notice.name == "lost" else (notice.position[0], last)
        if notice.name == "write":
            written.add((notice.key, notice.version))
        last = max(last, notice.position[0])
    if after is not None and last - 1 > after:
        spans.append((after, last - 1))
    return spans, written
