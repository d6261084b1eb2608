"""The log of zseal's loggers on stderr; needs nothing but Python."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zseal.cli.program import one_line, tell

if TYPE_CHECKING:
    import logging  # costs time that only a user who asks for the log spends


class Level(enum.StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def level_of(verbose: int, chosen: Level | None) -> Level | None:
    """Return the level that ``verbose`` times ``-v`` and ``--log-level`` ask for; the latter counts more."""
    return chosen or (None, Level.INFO, Level.DEBUG)[min(verbose, 2)]


@contextlib.contextmanager
def log_on_stderr() -> Iterator[logging.Logger]:
    """Yield zseal's logger, which prints on stderr in the block."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(one_line(self.format(record)))

    logger, lines = logging.getLogger("zseal"), Lines()
    lines.setFormatter(logging.Formatter("{relativeCreated:.0f} ms {levelname} {name}: {message}", style="{"))
    logger.addHandler(lines)
    try:
        yield logger
    finally:
        logger.removeHandler(lines)
        logger.setLevel(logging.NOTSET)
