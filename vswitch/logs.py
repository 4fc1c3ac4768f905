"""Logging to stderr, so that a message that repeats does not bury the others."""

import logging
import os
import sys
import time

REPEATS = 10  # of one message per interval
INTERVAL_S = 10.0
MESSAGES_MAX = 1024  # that are told apart


class RateLimit(logging.Filter):
    """Lets a message (its format, not its values) through REPEATS times per interval."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        key = (record.name, str(record.msg))
        begun, count = self._since.get(key, (now, 0))
        if now - begun >= INTERVAL_S:
            if count > REPEATS:
                record.msg = f"{record.msg} ({count - REPEATS} more like this were left out)"
            begun, count = now, 0
        if len(self._since) >= MESSAGES_MAX:
            self._since.clear()
        self._since[key] = (begun, count + 1)
        return count < REPEATS


def set_up() -> None:
    """All of this program's loggers to stderr; the journal adds its own time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RateLimit())
    when = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    handler.setFormatter(logging.Formatter(when + "%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
