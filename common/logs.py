"""Structured logs, on stderr or in a file: text for people on a terminal, one JSON object in each line everywhere
else.

The rule of the file: an event is a short fixed text; what varies goes into fields
(`log.warning("peer unreachable", peer="node2")`). Lines of libraries that use the standard logging have the same
form. Nothing is logged per request. Secrets, tokens and clients' values are never logged.
"""

import logging
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, TextIO

import structlog

from common.log_file import LogFile, LogStream

#: Of lines that others can cause, one of each kind is logged in this time.
SPARSE_SECONDS = 10.0
#: How many kinds of such lines are counted separately.
SPARSE_KINDS_MAX = 256

#: What processes every line, ours and those of other libraries.
_SHARED = (
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logs(
    *,
    level: str = "info",
    format: str = "auto",
    stream: TextIO | None = None,
    file: str = "",
    file_bytes_max: int = 0,
    **fields: Any,
) -> None:
    """Send all logs to `stream` (stderr), or to `file` if one is named, as `format` (auto, json or text) says; every
    line has `fields`. The file rolls over at `file_bytes_max`; 0: never.

    Call it once, when the process starts: it replaces what was configured before.

    Raises:
        OSError: the file cannot be written; the configuration is as before.
    """
    target = stream or sys.stderr
    on_terminal = not file and target.isatty()
    as_text = format == "text" or (format == "auto" and on_terminal)
    handler = LogFile(file, bytes_max=file_bytes_max) if file else LogStream(target)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

    def add_fields(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**fields, **event}

    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                add_fields,
                *_renderers(as_text=as_text, colors=as_text and on_terminal),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line per request would cost more than the request.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def get_logger(name: str) -> Any:
    """The logger of a part of the program, with its name; you may make it before you call `configure_logs`."""
    return structlog.stdlib.get_logger(name)


class SparseLog:
    """Lines that clients or peers can cause as often as they like: it logs one of each kind in `SPARSE_SECONDS`, with
    the number of those that it left out before."""

    def __init__(self, logger: Any, clock: Callable[[], float] = monotonic) -> None:
        self._logger = logger
        self._clock = clock
        #: By kind: when the next line may come, and how many were left out since the last one.
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def info(self, event: str, kind: str = "", **fields: Any) -> None:
        """As `warning`, for what is in order."""
        self._log(self._logger.info, event, kind, fields)

    def warning(self, event: str, kind: str = "", **fields: Any) -> None:
        """Log `event` unless one of the same `kind` came just before."""
        self._log(self._logger.warning, event, kind, fields)

    def error(self, event: str, kind: str = "", **fields: Any) -> None:
        """As `warning`, for what is this program's own fault; takes `exc_info`."""
        self._log(self._logger.error, event, kind, fields)

    def _log(self, write: Callable[..., None], event: str, kind: str, fields: dict[str, Any]) -> None:
        now = self._clock()
        due, left_out = self._kinds.get((event, kind), (now, 0))
        if now < due:
            self._kinds[event, kind] = (due, left_out + 1)
            return
        if len(self._kinds) >= SPARSE_KINDS_MAX:
            self._kinds.clear()
        self._kinds[event, kind] = (now + SPARSE_SECONDS, 0)
        write(event, **fields, **({"left_out": left_out} if left_out else {}))


def _renderers(*, as_text: bool, colors: bool) -> list[structlog.typing.Processor]:
    if as_text:
        return [structlog.dev.ConsoleRenderer(colors=colors)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
