"""What a killed run left: namespaces with all that is in them, processes, and folders.

Guests and switches die with the run.  Taps, bridges, links and nftables are in namespaces, and
vanish with them.  Everything is named after the process that made it; what a living process
made is left alone.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from qperf_suite.errors import UsageError

PREFIX = "qs"
_OURS = re.compile(rf"{PREFIX}(\d+)-.+")
NAMESPACES = Path("/run/netns")
END_TIMEOUT_S = 20.0


def clean() -> list[str]:
    """Remove it all; returns one line for each thing removed."""
    removed = []
    namespaces = list(_abandoned(NAMESPACES))
    if namespaces and not shutil.which("ip"):
        raise UsageError("namespaces are removed with ip: apt-get install iproute2")
    folders = list(_abandoned(Path(tempfile.gettempdir())))
    pids = {pid for path in namespaces for pid in _inhabitants(path)} | _users(folders)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            removed.append(f"process {pid}")
    _await_end(pids)
    for path in namespaces:
        subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, check=False)
        if not path.exists():
            removed.append(f"namespace {path.name}")
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)
        removed.append(f"folder {path}")
    return removed


def _abandoned(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        found = _OURS.fullmatch(path.name)
        if found and not _lives(int(found[1]), path.lstat().st_ctime):
            yield path


def _lives(pid: int, made_at: float) -> bool:
    """Whether the process that made something lives: it is older than what it made."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime_s + started_s <= made_at + 1


def _inhabitants(namespace: Path) -> list[int]:
    """Processes in a network namespace (ip-netns(8), pids)."""
    done = subprocess.run(
        ["ip", "netns", "pids", namespace.name], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in done.stdout.split()]


def _users(folders: Sequence[Path]) -> set[int]:
    """Processes that were started with a path in one of these folders."""
    marks = [os.fsencode(folder) for folder in folders]
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline") if marks else ():
        with suppress(OSError):
            command = path.read_bytes()
            if any(mark in command for mark in marks):
                found.add(int(path.parent.name))
    return found - {os.getpid()}


def _await_end(pids: Collection[int]) -> None:
    """A guest's memory takes a while to be given back."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline and any(map(_runs, pids)):
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
