"""Logs of every process: one line an event on standard error, as `key=value` or JSON.

structlog's lines and those of the standard library's loggers (uvicorn's, Optuna's, warnings) go the same way. Values
are written as Python or JSON literals: whatever a user's text holds, it stays on its line and in its quotes. Secrets of
API keys are left out of every line, whoever wrote it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.domain.keys import masked

if TYPE_CHECKING:
    from app.settings import Settings

QUIET = ("alembic", "asyncio", "httpcore", "httpx", "urllib3", "fsspec", "s3fs", "botocore")
"""Libraries whose own steps nobody asked for: their warnings are told."""
ADOPTED = ("optuna", "py.warnings")
"""Libraries that bring handlers of their own: their lines go our way instead."""

context: ContextVar[Callable[[], Mapping[str, Any]] | None] = ContextVar("fettle_log_context", default=None)
"""What is added to each line that is logged in this context, asked for at that moment; an API request sets it."""


class _Adopted(logging.Logger):
    """A logger that takes no handlers: what it is told goes to the root logger's."""

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - logging's name
        """Take none."""

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        pass


def configure(settings: Settings) -> None:
    """Send all logs of this process to standard error, in the form and from the level that the settings say."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_context,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _renderer(settings.log_format),
            ],
            use_get_message=True,
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ADOPTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.__class__ = _Adopted


def _renderer(form: str) -> Processor:
    render: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"])
    )

    def line(logger: WrappedLogger, method: str, event: EventDict) -> str:
        return masked(str(render(logger, method, event)))

    return line


def _add_context(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    source = context.get()
    if source is not None:
        for name, value in source().items():
            event.setdefault(name, value)
    return event
