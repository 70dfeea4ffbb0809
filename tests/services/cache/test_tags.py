"""Invalidation by tag: at once for everybody, swept in bounded steps."""

from typing import Any

import pytest

from services.cache.replicated import store
from services.cache.replicated.commands import Delete, Fill, FillMany, Incr, Invalidate, Put, PutMany
from services.cache.replicated.line import Invalidated
from services.cache.replicated.machine import CacheMachine
from services.cache.replicated.store import INVALIDATED_TOPIC
from tests.services.cache.tools import Log, copy, observable


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry sweeps two lines."""
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", 2)


def put(key: str, *tags: str, node: str = "node1", ttl_ms: int | None = None) -> Put:
    return Put(key, b"1", node, ttl_ms, tags=tags)


def invalidated(log: Log) -> list[Invalidated]:
    return [body for topic, body in log.events if topic == INVALIDATED_TOPIC]


def present(log: Log, *keys: str) -> list[str]:
    return [key for key in keys if log.machine.line(key) is not None]


def test_an_invalidation_removes_every_line_of_the_tag_and_no_other() -> None:
    log = Log()
    for command in (put("a", "t"), put("b", "s", "t"), put("c", "s"), put("d")):
        log.apply(command)

    answer = log.apply(Invalidate("t"))

    assert answer == {"ok": True, "invalidated": 2}
    assert present(log, *"abcd") == ["c", "d"]
    assert sorted((each.key, each.cause) for each in log.transitions) == [("a", "invalidate"), ("b", "invalidate")]
    assert log.machine.statistics().tags == 1


def test_an_unknown_tag_invalidates_nothing() -> None:
    log = Log()
    log.apply(put("a", "s"))

    assert log.apply(Invalidate("t")) == {"ok": True, "invalidated": 0}
    assert present(log, "a") == ["a"]


def test_a_put_replaces_the_tags_and_an_incr_keeps_them() -> None:
    log = Log()
    log.apply(put("a", "t"))
    log.apply(put("a", "s"))
    log.apply(put("n", "t"))
    log.apply(Incr("n", 1, "node2"))

    assert log.apply(Invalidate("t"))["invalidated"] == 1
    assert present(log, "a", "n") == ["a"]


def test_mput_takes_tags_for_each_item_or_none() -> None:
    log = Log()
    log.apply(PutMany((("b", b"1", None, None), ("a", b"1", None, None, ["t"])), "node1"))

    log.apply(Invalidate("t"))

    assert present(log, "a", "b") == ["b"]


def test_the_holders_of_any_line_of_the_tag_are_told() -> None:
    log = Log()
    log.apply(put("a", "t", node="node3"))
    log.apply(put("b", "t", node="node1"))
    log.apply(Fill("b", "node2"))
    log.apply(put("c", node="node4"))

    log.apply(Invalidate("t"))

    (told,) = invalidated(log)
    assert (told.holders, told.lines) == (("node1", "node2", "node3"), 2)


def test_nobody_meets_a_line_that_is_not_swept_yet(small_steps: None) -> None:
    """Goal: one place in the log at which all of them are gone, however many there are."""
    log = Log()
    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        log.apply(put(key, "t"))

    log.apply(Invalidate("t"))

    assert present(log, *keys) == []
    assert (log.machine.statistics().lines, log.machine.has("k0")) == (18, True)
    assert log.machine.next_due_ms() == log.time_ms
    assert log.apply(Fill("k0", "node2")) == {"hit": False, "val": None, "state": "I"}
    assert not log.apply(Delete("k1"))["deleted"]
    assert log.apply(Put("k2", b"2", "node1", if_version=0))["ok"]
    assert log.apply(Incr("k3", 1, "node1"))["value"] == 1
    answer = log.apply(FillMany(("k4", "k2"), "node2"))["items"]
    assert (answer["k4"]["hit"], answer["k2"]["hit"]) == (False, True)


def test_whoever_meets_an_unswept_line_removes_it_in_the_same_entry(small_steps: None) -> None:
    """Goal: the answer names the key, so the account waits for its holders."""
    log = Log()
    for number in range(20):
        log.apply(put(f"k{number}", "t"))
    log.apply(Invalidate("t"))

    log.apply(Fill("k0", "node2"))

    assert ("k0", "invalidate", "node1") in [
        (each.key, each.cause, each.before.holders[0][0]) for each in log.transitions
    ]


def test_the_sweep_goes_on_at_every_entry_until_it_is_done(small_steps: None) -> None:
    log = Log()
    for number in range(9):
        log.apply(put(f"k{number}", "t"))
    log.apply(Invalidate("t"))

    swept = []
    while log.machine.next_due_ms() is not None:
        log.advance(0)
        swept.append(len(log.transitions))

    assert swept == [2, 2, 2, 1]
    assert log.machine.statistics().lines == 0
    assert all(not count for state, count in log.machine.census("node1").items() if state != "I")


def test_what_is_written_after_an_invalidation_belongs_to_the_next_one(small_steps: None) -> None:
    """Goal: several generations of one tag may wait for the sweep at once."""
    log = Log()
    for round_ in range(4):
        for number in range(6):
            log.apply(put(f"{round_}-{number}", "t", "s" if number % 2 else "u"))
        assert log.apply(Invalidate("t"))["invalidated"] == 6
    log.apply(put("last", "t"))

    while log.machine.next_due_ms() is not None:
        log.advance(0)

    assert log.machine.page("", "", 10) == ["last"]
    assert log.machine.statistics().tags == 1


def test_an_expired_line_of_an_invalidated_tag_goes_once(small_steps: None) -> None:
    log = Log()
    for number in range(8):
        log.apply(put(f"k{number}", "t", "s", ttl_ms=100 if number % 2 else None))
    log.apply(Invalidate("t"))
    log.apply(Invalidate("s"))

    log.advance(5000)
    while log.machine.next_due_ms() is not None:
        log.advance(0)

    assert log.machine.statistics().lines == log.machine.statistics().tags == 0


def test_tags_count_for_the_bytes_of_the_store() -> None:
    log = Log(CacheMachine(bytes_max=20 + 2 * (350 + 64) + 640))
    log.apply(put("a", "x" * 9))

    log.apply(put("b", "y" * 9))

    assert log.machine.page("", "", 10) == ["b"]
    assert log.machine.statistics().bytes == 11 + 350 + 64 + 640


def _life() -> list[tuple[Any, int]]:
    commands: list[tuple[Any, int]] = []
    for step in range(240):
        tags = tuple(f"t{n}" for n in range(4) if (step >> n) % 3 == 0)
        node = f"node{1 + step % 3}"
        commands.append((Put(f"k{step * 7 % 50}", b"1", node, (step % 5) * 300 or None, tags=tags), 3))
        commands.append((Fill(f"k{step * 11 % 50}", f"node{1 + step // 3 % 3}"), 0))
        if step % 11 == 0:
            commands.append((Invalidate(f"t{step % 4}"), 0))
        if step % 13 == 0:
            commands.append((Delete(f"k{step % 50}"), 1))
    return commands


def test_a_restored_machine_is_equal_at_any_moment_of_a_sweep_and_goes_on_the_same(small_steps: None) -> None:
    """Goal: generations, their order and their holders come out of the lines again."""
    log, other = Log(CacheMachine(lines_max=30)), Log(CacheMachine(lines_max=30))
    for number, (command, after_ms) in enumerate(_life()):
        assert other.apply(command, after_ms) == log.apply(command, after_ms)
        if number % 7 == 0:
            other.machine = copy(other.machine, lines_max=30)
        assert observable(other.machine) == observable(log.machine)


def test_every_view_agrees_with_the_lines_after_every_command(small_steps: None) -> None:
    """Goal: the dumb twin of the table of tags: look at every line."""
    log = Log(CacheMachine(lines_max=30))
    last_invalidated: dict[str, int] = {}
    for command, after_ms in _life():
        log.apply(command, after_ms)
        if isinstance(command, Invalidate):
            last_invalidated[command.tag] = log.index

        tags = log.machine._tags
        generations = [*tags.live.values(), *tags._dead.values()]
        for key, line in log.machine._lines.items():
            dead = any(last_invalidated.get(tag, 0) > line.version for tag in line.tags)
            expired = line.expires_at is not None and line.expires_at <= log.time_ms
            assert (log.machine.line(key) is None) == (dead or expired)
        carried = sorted((tag, line.key) for line in log.machine._lines.values() for tag in line.tags)
        assert sorted((each.tag, key) for each in generations for key in each.keys) == carried
        for each in generations:
            lines = [log.machine._lines[key] for key in each.keys]
            assert each.holders() == tuple(sorted({node for line in lines for node, _ in line.directory.holders}))
            assert each.keys


def test_a_line_is_found_among_many_dead_generations_of_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag that is put and invalidated in turn while nothing is swept: no command looks at all that went before."""
    monkeypatch.setattr(store, "SWEPT_PER_ENTRY_MAX", 0)
    log = Log()
    for number in range(300):
        log.apply(Put(f"k{number}", b"1", "node1", tags=("t",)))
        log.apply(Invalidate("t"))
    generations = log.machine._tags._dead_of["t"] = CountedList(log.machine._tags._dead_of["t"])

    log.apply(Put("k150", b"2", "node1", tags=("t",)))
    log.apply(Delete("k200"))

    assert log.machine.line("k150").value == b"2"
    assert log.machine.line("k151") is None
    assert generations.looked_at < 100


class CountedList(list):
    """Counts how many of its items are looked at."""

    looked_at = 0

    def __getitem__(self, place):
        self.looked_at += 1
        return super().__getitem__(place)

    def __iter__(self):
        for each in super().__iter__():
            self.looked_at += 1
            yield each
