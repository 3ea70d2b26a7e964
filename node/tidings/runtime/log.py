"""A node's own log: JSON lines on standard error, with run and node bound."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(**bound: Any) -> None:
    """Set up logging for this process; every line carries ``bound``."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    structlog.contextvars.bind_contextvars(**bound)


def get_logger() -> Any:
    """The process's logger."""
    return structlog.get_logger()
