"""One line that says what is being measured and how long it will take, on stderr."""

import sys
import time
from typing import TextIO

WIDTH = 99
PLAIN_EVERY_S = 15.0


class Progress:
    """Rewrites one line on a terminal; elsewhere prints a plain line now and then."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._rewrites = stream.isatty()
        self._total = 0
        self._done = 0
        self._begun_s = 0.0
        self._printed_s = float("-inf")

    def begin(self, total: int) -> None:
        """total: number of steps to come."""
        self._total, self._done = total, -1
        self._begun_s = time.monotonic()

    def step(self, what: str) -> None:
        """The previous step is done and this one begins."""
        self._done += 1
        now_s = time.monotonic()
        if not self._rewrites and now_s - self._printed_s < PLAIN_EVERY_S:
            return
        self._printed_s = now_s
        line = f"[{self._done}/{self._total}] {what}, {self._left(now_s)}"
        self._write(line)

    def say(self, message: str) -> None:
        """A line that stays."""
        self._clear()
        self._stream.write(f"{message}\n")
        self._stream.flush()

    def end(self) -> None:
        """No steps left."""
        self._clear()

    def _left(self, now_s: float) -> str:
        if self._done < 3:
            return "time left unknown"
        left_s = (now_s - self._begun_s) / self._done * (self._total - self._done)
        return f"{int(left_s) // 60}:{int(left_s) % 60:02} left"

    def _write(self, line: str) -> None:
        if self._rewrites:
            self._stream.write(f"\r{line[:WIDTH]:<{WIDTH}}")
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._rewrites:
            self._stream.write("\r" + " " * WIDTH + "\r")
            self._stream.flush()
