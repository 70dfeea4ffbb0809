"""common/logs.py: one JSON object a line for machines, text for people, one form for all libraries."""

import io
import json
import logging
from types import SimpleNamespace

import pytest

from common.logs import SPARSE_KINDS_MAX, SparseLog, configure_logs, get_logger
from tests.helpers import ManualClock


@pytest.fixture(autouse=True)
def root_logger_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_are_json_where_nobody_watches():
    """Goal: a stream that is no terminal gets one object a line, with the node and the caller's fields."""
    stream = io.StringIO()
    configure_logs(stream=stream, node="node1")

    get_logger("raft.node").info("elected", term=7)

    line = json.loads(stream.getvalue())
    expected = {"node": "node1", "event": "elected", "term": 7, "level": "info", "logger": "raft.node"}
    assert expected.items() <= line.items()
    assert line["timestamp"].endswith("Z")


def test_a_logger_made_early_obeys_a_later_configuration():
    """Goal: modules make their logger at import."""
    early = get_logger("early")
    stream = io.StringIO()
    configure_logs(stream=stream, level="warning")

    early.info("unheard")
    early.warning("heard")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["heard"]


def test_libraries_log_in_the_same_form():
    """Goal: a line of aiohttp's can be searched like ours."""
    stream = io.StringIO()
    configure_logs(stream=stream, node="node1")

    logging.getLogger("aiohttp.server").warning("odd %s", "request")

    line = json.loads(stream.getvalue())
    assert {"node": "node1", "event": "odd request", "logger": "aiohttp.server"}.items() <= line.items()


def test_an_exception_stays_on_its_line():
    """Goal: one event is one line, its trace included."""
    stream = io.StringIO()
    configure_logs(stream=stream)

    get_logger("x").error("failed", exc_info=ZeroDivisionError("by zero"))

    line = json.loads(stream.getvalue())
    assert "ZeroDivisionError: by zero" in line["exception"]


def test_text_is_for_people():
    """Goal: `text` wins over what the stream is."""
    stream = io.StringIO()
    configure_logs(stream=stream, format="text")

    get_logger("x").info("elected", term=7)

    assert "elected" in stream.getvalue()
    assert "term=7" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_what_others_can_cause_is_logged_now_and_then():
    """Goal: a client that is refused a thousand times a second does not fill a disk; what was left out is counted."""
    lines: list[tuple[str, dict]] = []
    logger = SimpleNamespace(warning=lambda event, **fields: lines.append((event, fields)))
    clock = ManualClock(0)
    sparse = SparseLog(logger, lambda: clock.now_ms / 1000)

    for _ in range(100):
        sparse.warning("refused", "malformed", address="a")
    sparse.warning("refused", "slow", address="b")
    clock.advance(10_000)
    sparse.warning("refused", "malformed", address="c")

    assert lines == [
        ("refused", {"address": "a"}),
        ("refused", {"address": "b"}),
        ("refused", {"address": "c", "left_out": 99}),
    ]


def test_kinds_of_lines_are_bounded():
    logger = SimpleNamespace(warning=lambda event, **fields: None)
    sparse = SparseLog(logger)

    for number in range(10 * SPARSE_KINDS_MAX):
        sparse.warning("refused", str(number))

    assert len(sparse._kinds) <= SPARSE_KINDS_MAX
