"""One line that says what is being measured and how long it will take, on stderr."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 99
PLAIN_EVERY_S = 15.0
# The time left follows the pace of what is done, as if so much before had gone as expected.
TRUST_S = 60.0


class Progress:
    """Rewrites one line on a terminal; elsewhere prints a plain line now and then.

    A step or note of the same words is the same once more: it is not counted twice, and its time
    was not expected.  clock: in seconds.
    """

    def __init__(
        self, stream: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._rewrites = stream.isatty()
        self._total = 0
        self._steps = 0
        self._moved_to = 0
        self._seen: set[str] = set()
        self._counted: set[str] = set()
        self._left_s = self._done_s = self._took_s = 0.0
        self._step_s = 0.0
        self._step_at_s: float | None = None
        self._printed_s = float("-inf")

    def begin(self, total: int, expected_s: float) -> None:
        """total: number of steps to come; expected_s: how long they and notes will take."""
        self._total, self._left_s = total, expected_s

    def step(self, what: str, expected_s: float) -> None:
        """What went on is done and this step begins."""
        now_s = self._begin(what, expected_s)
        self._steps += 1
        self._counted.add(what)
        self._line(f"[{len(self._counted)}/{self._total}] {what}, {self._left()}", now_s)

    def note(self, what: str, expected_s: float) -> None:
        """Something that is not counted goes on."""
        self._line(what, self._begin(what, expected_s))

    def skip(self, expected_s: float) -> None:
        """So much will not be done."""
        self._left_s -= expected_s

    def moved(self) -> bool:
        """Whether a step began since this was asked last."""
        before, self._moved_to = self._moved_to, self._steps
        return before != self._steps

    def say(self, message: str) -> None:
        """A line that stays."""
        self._clear()
        self._stream.write(f"{message}\n")
        self._stream.flush()

    def end(self) -> None:
        """No steps left."""
        self._clear()

    def _begin(self, what: str, expected_s: float) -> float:
        now_s = self._clock()
        if self._step_at_s is not None:
            self._left_s -= self._step_s
            self._done_s += self._step_s
            self._took_s += now_s - self._step_at_s
        self._step_s, self._step_at_s = expected_s, now_s
        if what in self._seen:
            self._left_s += expected_s
        self._seen.add(what)
        return now_s

    def _line(self, line: str, now_s: float) -> None:
        if self._rewrites or now_s - self._printed_s >= PLAIN_EVERY_S:
            self._printed_s = now_s
            self._write(line)

    def _left(self) -> str:
        pace = (self._took_s + TRUST_S) / (self._done_s + TRUST_S)
        left_s = round(max(0.0, self._left_s * pace))
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
