"""A real "vsw run" in a process of its own, and the same command in a child without privileges."""

import io
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0


def environment() -> dict[str, str]:
    """Ours, with the build of the data plane that the tests run on (see conftest.py).

    The command must not run in the repository: Python would find the ordinary build there first.
    """
    paths = [os.environ.get("DATAPLANE_DIR", ""), str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class Daemon:
    """A running daemon, and what it tells the service manager."""

    def __init__(self, file: Path, before: Sequence[str] = ()) -> None:
        """before: a command that runs the command."""
        self.file = file
        self.control = file.parent / "control.sock"
        self.log = file.parent / "daemon.log"
        self._command = [*before, sys.executable, "-m", "vswitch.cli", "run", str(file)]
        self.start()

    def start(self) -> None:
        """Returns at once; wait() for what it says."""
        notify = self.file.parent / "notify.sock"
        notify.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(notify))
        self._notify.settimeout(WAIT_S)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.file.parent,
                stderr=log,
                env={**environment(), "NOTIFY_SOCKET": str(notify)},
            )

    def wait(self, word: str) -> str:
        """The next message to the service manager that has this word."""
        while word not in (message := self._notify.recv(4096).decode()):
            pass
        return message

    def reload(self, text: str | None = None) -> str:
        """SIGHUP with a new text in the file; returns the status it reports."""
        if text is not None:
            self.file.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        return self.wait("READY=1").split("STATUS=")[1]

    def words(self, *command: str) -> list[str]:
        """vsw COMMAND, asked of this daemon."""
        control = ["--control", str(self.control)]
        return [sys.executable, "-m", "vswitch.cli", *command, *control]

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """vsw COMMAND to its end, whatever its status."""
        return subprocess.run(
            self.words(*command),
            cwd=self.file.parent,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            env=environment(),
        )

    def ask(self, *command: str) -> Any:
        done = self.call(*command, "--json")
        assert done.returncode == 0, f"vsw {' '.join(command)}: {done.stderr}"
        return json.loads(done.stdout)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """Killed, if it still runs; start() makes it run again."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._notify.close()

    def cpu_s(self) -> float:
        """CPU time of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(file: Path) -> Iterator[Daemon]:
    """A daemon that is ready."""
    daemon = Daemon(file)
    try:
        daemon.wait("READY=1")
        yield daemon
    finally:
        daemon.close()


def fork_as_nobody(arguments: list[str], stderr: int) -> int:
    """The pid of a child that gave up root, when we are root, and is vsw.  Forked, so that it needs
    no permission to read the program's files."""
    # While we still may; F401: for what they load.
    from vswitch import cli, config, control, daemon, logs, views  # noqa: F401, PLC0415 - see above

    pid = os.fork()
    if pid > 0:
        return pid
    status = 70
    try:
        os.dup2(stderr, 2)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", buffering=0), write_through=True)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
        status = cli.main(arguments)
    finally:
        os._exit(status)


def as_nobody(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """vsw to its end, without privileges."""
    with tempfile.TemporaryFile() as log:
        _, code = os.waitpid(fork_as_nobody(arguments, log.fileno()), 0)
        log.seek(0)
        stderr = log.read().decode()
    return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(code), "", stderr)


def until(condition: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    """Wait until condition() holds; an error names what."""
    deadline = time.monotonic() + wait_s
    never = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {wait_s} s: {what}"
        never.wait(0.01)
