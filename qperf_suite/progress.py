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
        self._moved_to = 0
        self._left_s = 0.0
        self._step_s = 0.0
        self._printed_s = float("-inf")

    def begin(self, total: int, expected_s: float) -> None:
        """total: number of steps to come; expected_s: how long they will take."""
        self._total, self._done = total, 0
        self._left_s, self._step_s = expected_s, 0.0

    def step(self, what: str, expected_s: float) -> None:
        """The previous step is done and this one begins."""
        now_s = time.monotonic()
        self._left_s -= self._step_s
        self._step_s = expected_s
        self._done += 1
        self._line(f"[{self._done}/{self._total}] {what}, {self._left()}", now_s)

    def note(self, what: str) -> None:
        """Something that is not counted goes on."""
        self._line(what, time.monotonic())

    def moved(self) -> bool:
        """Whether a step began since this was asked last."""
        before, self._moved_to = self._moved_to, self._done
        return before != self._done

    def say(self, message: str) -> None:
        """A line that stays."""
        self._clear()
        self._stream.write(f"{message}\n")
        self._stream.flush()

    def end(self) -> None:
        """No steps left."""
        self._clear()

    def _line(self, line: str, now_s: float) -> None:
        if self._rewrites or now_s - self._printed_s >= PLAIN_EVERY_S:
            self._printed_s = now_s
            self._write(line)

    def _left(self) -> str:
        left_s = round(max(0.0, self._left_s))
        return f"about {left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left"

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
