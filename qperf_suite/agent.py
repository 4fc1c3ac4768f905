"""Runs commands in a guest over its serial line, beside the network under test.

The far end is guest_init.sh, which describes the lines that are exchanged.
"""

import base64
import math
import socket
import time
from dataclasses import dataclass

from qperf_suite.errors import GuestError

# A serial line swallows longer lines; four thirds of this is the encoded size.
REQUEST_TRIES = 5
AGAIN = b"again"  # a request that lost bytes on the line
COMMAND_LIMIT_BYTES = 2800
KILLED = 128 + 9
GRACE_S = 15.0


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. status: exit status, 137 when it ran into its time limit."""

    command: str
    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.status == 0

    @property
    def words(self) -> str:
        """What the command said, in one line, for messages about its failure."""
        said = " / ".join((self.stderr.strip() or self.stdout.strip()).splitlines())
        return said[-300:] or ("timed out" if self.status == KILLED else f"status {self.status}")


class Agent:
    """One serial line, owned by this object; commands run one at a time."""

    def __init__(self, name: str, line: socket.socket) -> None:
        self._name = name
        self._line = line
        self._buffer = b""

    def wait_ready(self, timeout_s: float) -> None:
        """Wait for the guest's greeting; raises GuestError."""
        if self._read_line(time.monotonic() + timeout_s).strip() != b"READY":
            raise GuestError(f"guest {self._name}: unexpected words instead of a greeting")

    def run(self, command: str, timeout_s: float = 10.0) -> CommandResult:
        """Run a shell command and wait for its end; raises GuestError when the guest is gone."""
        if len(command.encode()) > COMMAND_LIMIT_BYTES:
            raise GuestError(f"guest {self._name}: command over {COMMAND_LIMIT_BYTES} bytes")
        limit_s = max(1, math.ceil(timeout_s))
        encoded = base64.b64encode(command.encode()).decode()
        deadline = time.monotonic() + limit_s + GRACE_S
        request = f"run {limit_s} {len(encoded)} {encoded}\n".encode()
        header = AGAIN
        for _ in range(REQUEST_TRIES):
            try:
                self._line.sendall(request)
            except OSError as error:
                raise GuestError(f"guest {self._name} is gone: {error}") from error
            if (header := self._read_line(deadline)) != AGAIN:
                break
        try:
            status, out_bytes, err_bytes = (int(field) for field in header.split())
        except ValueError as error:
            raise GuestError(f"guest {self._name}: garbled answer {header!r}") from error
        stdout = self._read_bytes(out_bytes, deadline).decode(errors="replace")
        stderr = self._read_bytes(err_bytes, deadline).decode(errors="replace")
        return CommandResult(command, status, stdout, stderr)

    def close(self) -> None:
        """Close the line; a guest that is alive powers off."""
        self._line.close()

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            self._fill(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _read_bytes(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._fill(deadline)
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _fill(self, deadline: float) -> None:
        self._line.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self._line.recv(65536)
        except TimeoutError as error:
            raise GuestError(f"guest {self._name} does not answer") from error
        except OSError as error:
            raise GuestError(f"guest {self._name} is gone: {error}") from error
        if not data:
            raise GuestError(f"guest {self._name} is gone")
        self._buffer += data
