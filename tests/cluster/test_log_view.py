"""services/cluster/log_view.py and log_tail.py: the logs of several nodes as one that can be read."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from services.cluster.following import followed
from services.cluster.log_tail import TAIL_BYTES, LogTail
from services.cluster.log_view import Line, LogView, by_time, wants_colours


def raw(second: float, event: str, **fields: object) -> str:
    seconds = f"{second:09.6f}" if second % 1 else f"{int(second):02d}"
    shared = {"timestamp": f"2026-11-27T23:11:{seconds}Z", "level": "info", "logger": "raft.node"}
    return json.dumps({**shared, "event": event, **fields})


def rendered(line: str, node_id: str = "node1", **options: bool) -> str:
    return LogView(["node1", "queue2"], **options).render(Line.of(node_id, line))


def test_lines_of_all_nodes_stand_in_the_order_of_their_times() -> None:
    """Also where one has whole seconds: `02Z` is before `02.5Z`."""
    logs = {"a": [raw(2, "second"), raw(3, "fourth")], "b": [raw(1, "first"), raw(2.5, "third")]}

    found = [(line.node_id, line.fields and line.fields["event"]) for line in by_time(logs)]

    assert found == [("b", "first"), ("a", "second"), ("b", "third"), ("a", "fourth")]


def test_a_line_without_a_time_stays_behind_the_one_before_it() -> None:
    """A traceback of the interpreter belongs to what its node said last."""
    logs = {"a": [raw(1, "x"), "Fatal Python error", "Thread 1", raw(3, "y")], "b": ["begun", raw(2, "z")]}

    found = [line.fields["event"] if line.fields else line.raw for line in by_time(logs)]

    assert found == ["begun", "x", "Fatal Python error", "Thread 1", "z", "y"]


def test_a_node_whose_clock_was_set_back_keeps_the_order_of_its_lines() -> None:
    logs = {"a": [raw(9, "before"), raw(1, "after")], "b": [raw(5, "other")]}

    found = [line.fields and line.fields["event"] for line in by_time(logs)]

    assert found == ["other", "before", "after"]


def test_a_line_reads_as_time_node_level_event_and_facts() -> None:
    line = raw(2.123456, "peer unreachable", level="warning", peer="node2", node="node1", tries=3, why="no route")

    assert rendered(line) == (
        '2026-11-27 23:11:02.123 node1   warning   peer unreachable  peer=node2 tries=3 why="no route"'
    )


def test_a_line_that_is_no_json_is_shown_as_it_is() -> None:
    assert rendered("Fatal Python error: {x}") == f"{'':23} node1   Fatal Python error: {{x}}"
    assert rendered("{broken").endswith("  {broken")


def test_a_traceback_stands_below_its_line() -> None:
    text = rendered(raw(1, "failed", exception="Traceback (most recent call last):\n  line\nValueError: x"))

    assert text.splitlines()[1:] == ["    Traceback (most recent call last):", "      line", "    ValueError: x"]


def test_what_clients_choose_cannot_steer_the_terminal() -> None:
    """Names of queues stand in the log; an escape sequence in one must stay a text."""
    text = rendered(raw(1, "queue \x1b[2Jpurged", queue="\x1b]0;title\x07", odd="a\x9bb", **{"k\x1b": 1}))

    assert text.isprintable()
    assert "\\x1b[2J" in text


@pytest.mark.parametrize(("as_json", "colours"), [(True, True), (False, False)])
def test_colours_are_used_only_where_they_are_wanted(as_json: bool, colours: bool) -> None:
    assert "\033" not in rendered(raw(1, "x", a=1), as_json=as_json, colours=colours)


def test_with_colours_the_text_is_the_same() -> None:
    plain, painted = (rendered(raw(1, "x", level="error", a=1), colours=each) for each in (False, True))

    for code in ("\033[0m", "\033[2m", "\033[36m", "\033[31m"):
        painted = painted.replace(code, "")
    assert painted == plain


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_and_no_color_is_obeyed() -> None:
    assert wants_colours(Terminal(), {})
    assert not wants_colours(io.StringIO(), {})
    assert not wants_colours(Terminal(), {"NO_COLOR": "1"})
    assert not wants_colours(Terminal(), {"TERM": "dumb"})


def test_as_json_each_line_is_an_object_with_its_node() -> None:
    """And one that has the node already is not touched."""
    own = raw(1, "x", node="node1")

    assert rendered(own, as_json=True) == own
    assert json.loads(rendered(raw(1, "x"), as_json=True))["node"] == "node1"
    assert json.loads(rendered("Killed", as_json=True)) == {"node": "node1", "event": "Killed"}


def test_a_terminal_that_knows_few_letters_gets_the_rest_escaped() -> None:
    output = io.BytesIO()
    stream = io.TextIOWrapper(output, encoding="ascii")

    LogView(["a"], stream=stream).show([Line.of("a", raw(1, "x", who="Jürgen"))])

    assert b"who=J\\xfcrgen" in output.getvalue()


# The file


def test_the_last_lines_are_those_of_the_older_file_too(tmp_path: Path) -> None:
    """Right after a roll-over the new file has next to nothing."""
    path = tmp_path / "node.log"
    path.with_name("node.log.1").write_text("1\n2\n3\n")
    path.write_text("4\n")

    assert LogTail(path).last_lines(3) == ["2", "3", "4"]
    assert LogTail(path).last_lines(1) == ["4"]
    assert LogTail(path).last_lines(0) == []
    assert LogTail(tmp_path / "nowhere").last_lines(3) == []


def test_as_many_lines_are_found_as_were_asked_for_and_no_half_one(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    line = "x" * 1000
    path.write_text(f"{line}\n" * (6 * TAIL_BYTES // 1000))

    for count in (10, 1_000, 1_500):
        tail = LogTail(path)
        assert tail.last_lines(count) == [line] * count
        assert tail.new_lines() == []


def test_what_is_added_is_given_once_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    tail = LogTail(path)
    nothing = tail.last_lines(5) + tail.new_lines()
    found = []
    with open(path, "a", buffering=1) as log:
        for piece in ("a\nb", "c", "\nd\n"):
            log.write(piece)
            log.flush()
            found.append(tail.new_lines())

    assert nothing == []
    assert found == [["a"], [], ["bc", "d"]]


def test_a_roll_over_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("1\n")
    tail = LogTail(path)
    found = tail.last_lines(5)

    with open(path, "a") as log:
        log.write("2\nlast words")
    path.rename(path.with_name("node.log.1"))
    found += tail.new_lines()
    path.write_text("3\n")
    found += tail.new_lines()
    with open(path, "a") as log:
        log.write("4\n")
    found += tail.new_lines()

    assert found == ["1", "2", "last words", "3", "4"]


def test_a_file_that_was_emptied_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("1\n2\n")
    tail = LogTail(path)
    tail.last_lines(5)

    path.write_text("3\n")

    assert tail.new_lines() == ["3"]


# Commands


def test_what_commands_print_is_gathered_until_all_have_ended() -> None:
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True)"
    commands = {name: (sys.executable, "-c", program) for name in ("a", "b")}

    found: dict[str, list[str]] = {}
    with followed(commands) as batches:
        for batch in batches:
            for name, lines in batch.items():
                found.setdefault(name, []).extend(lines)

    assert found == {"a": ["out", "err"], "b": ["out", "err"]}


def test_leaving_ends_the_commands() -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with followed({"a": (sys.executable, "-c", program)}) as batches:
        pid = int(next(batches)["a"][0])

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
