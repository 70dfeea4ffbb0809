"""Structured logs on stderr: for people on a terminal, one JSON object a line everywhere else.

The rule of the file: an event is a short fixed text, what varies goes into fields
(`log.warning("peer unreachable", peer="node2")`). Lines of libraries that use the standard logging come out in the
same form. Nothing is logged per request. Secrets, tokens and clients' values are never logged.
"""

import logging
import sys
from typing import Any, TextIO

import structlog

#: What every line goes through, ours and other libraries'.
_SHARED = (
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logs(*, level: str = "info", format: str = "auto", stream: TextIO | None = None, **fields: Any) -> None:
    """Send all logs to `stream` (stderr) as `format` (auto, json or text) says; `fields` stand in every line.

    Call it once, when the process starts: it replaces what was configured before.
    """
    target = stream or sys.stderr
    as_text = format == "text" or (format == "auto" and target.isatty())
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

    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                add_fields,
                *_renderers(as_text=as_text, colors=as_text and target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line per request would cost more than the request.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def get_logger(name: str) -> Any:
    """The logger of a part of the program, named for it; it may be made before `configure_logs` was called."""
    return structlog.stdlib.get_logger(name)


def _renderers(*, as_text: bool, colors: bool) -> list[structlog.typing.Processor]:
    if as_text:
        return [structlog.dev.ConsoleRenderer(colors=colors)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
