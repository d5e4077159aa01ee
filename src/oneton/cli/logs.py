"""Structured logs on stderr, one JSON object a line."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

from oneton.settings import Settings


def configure_logs(settings: Settings, *, quiet: bool = False) -> None:
    """Set up the logs of this process; `quiet` is for commands, which show warnings only."""
    level = logging.WARNING if quiet else getattr(logging, settings.log_level.upper())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if settings.log_format == "json" and not quiet:
        structlog.configure(
            processors=[*shared, _as_json],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[*shared, structlog.dev.ConsoleRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)


def _as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


class _ToStructlog(logging.Handler):
    """What libraries log by `logging`, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        said = structlog.get_logger()
        said.log(record.levelno, record.getMessage(), logger=record.name)
