"""The logs of several nodes as one, in the order of time, for people or as JSON.

    2026-11-27 23:11:02.123 node1  warning  peer unreachable  peer=node2
                            node1           Fatal Python error: Aborted

The rule of the file: a line that is not a JSON object (the interpreter's own words) is shown as it is, and stays
after the line that the same node wrote before it. Some lines have texts of clients, so characters that could control
a terminal are escaped.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

#: Earlier than any line.
_NEVER = datetime.min.replace(tzinfo=UTC)

#: Fields that have a column of their own, or that nobody needs.
_COLUMNS = frozenset({"timestamp", "level", "event", "node", "logger", "exception"})

_LEVEL_WIDTH = len("critical")
_TIME_WIDTH = len("2026-11-27 23:11:02.123")

_RESET, _DIM, _CYAN = "\033[0m", "\033[2m", "\033[36m"
_LEVEL_COLOURS = {
    "debug": _DIM,
    "info": "\033[32m",
    "warning": "\033[33m",
    "error": "\033[31m",
    "critical": "\033[1;31m",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one node."""

    node_id: str
    raw: str
    #: Its JSON object; None if it is not one.
    fields: dict[str, Any] | None
    #: When it was written; None if it does not say.
    written: datetime | None

    @classmethod
    def of(cls, node_id: str, raw: str) -> "Line":
        fields = _object(raw)
        stamp = fields.get("timestamp") if fields is not None else raw.partition(" ")[0]
        return cls(node_id, raw, fields, _time(stamp))


def by_time(logs: Mapping[str, Sequence[str]]) -> list[Line]:
    """The lines of all nodes (id to lines, in the order in which that node wrote them) as one log. A node's own lines
    never change their order, even if its clock was set back."""
    placed = []
    for node_id, raws in logs.items():
        latest = _NEVER
        for raw in raws:
            line = Line.of(node_id, raw)
            latest = max(latest, line.written or latest)
            placed.append((latest, line))
    placed.sort(key=lambda each: each[0])
    return [line for _, line in placed]


def wants_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to use colours: on a terminal that supports them, unless NO_COLOR is set."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class LogView:
    """How lines are shown.

    Args:
        node_ids: the nodes that may have lines, for the width of their column.
        as_json: one JSON object in each line, with the node in it.
        stream: where the lines go; by default standard output.
    """

    def __init__(
        self, node_ids: Iterable[str], *, as_json: bool = False, colours: bool = False, stream: TextIO | None = None
    ) -> None:
        self._node_width = max(map(len, node_ids), default=0)
        self._as_json = as_json
        self._colours = colours
        self._stream = stream or sys.stdout

    def show(self, lines: Iterable[Line]) -> None:
        """Print them.

        Raises:
            BrokenPipeError: nobody reads the output.
        """
        encoding = self._stream.encoding or "utf-8"
        for line in lines:
            text = self.render(line)
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=self._stream)
        self._stream.flush()

    def render(self, line: Line) -> str:
        """One line as text; it becomes several lines if it has a traceback."""
        if self._as_json:
            return _as_json(line)
        fields = line.fields
        node = self._painted(_CYAN, line.node_id.ljust(self._node_width))
        if fields is None:
            return f"{' ' * _TIME_WIDTH} {node}  {line.raw}"
        level = str(fields.get("level", ""))
        further = " ".join(
            f"{self._painted(_DIM, _shown(name) + '=')}{_shown(value)}"
            for name, value in fields.items()
            if name not in _COLUMNS
        )
        columns = (
            f"{self._painted(_DIM, _clock(line.written))} {node}",
            self._painted(_LEVEL_COLOURS.get(level, ""), _shown(level).ljust(_LEVEL_WIDTH)),
            _printable(str(fields.get("event", ""))),
            *((further,) if further else ()),
        )
        return "\n".join(("  ".join(columns), *_traceback(fields)))

    def _painted(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours and colour else text


def _object(raw: str) -> dict[str, Any] | None:
    if not raw.startswith("{"):
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _time(stamp: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _clock(time: datetime | None) -> str:
    if time is None:
        return " " * _TIME_WIDTH
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "milliseconds")


def _as_json(line: Line) -> str:
    if line.fields is None:
        return json.dumps({"node": line.node_id, "event": line.raw})
    if line.fields.get("node") == line.node_id:
        return line.raw
    return json.dumps({**line.fields, "node": line.node_id})


def _shown(value: Any) -> str:
    """A value as shown after its name: plain if it is one word, else as JSON."""
    if isinstance(value, str) and value and value.isprintable() and " " not in value and '"' not in value:
        return value
    return _printable(json.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """The text with everything escaped that could control a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _traceback(fields: Mapping[str, Any]) -> list[str]:
    return [f"    {_printable(line)}" for line in str(fields.get("exception", "")).splitlines()]
