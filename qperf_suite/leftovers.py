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
from collections.abc import Iterator
from pathlib import Path

PREFIX = "qs"
_OURS = re.compile(rf"{PREFIX}(\d+)-.+")
NAMESPACES = Path("/run/netns")


def clean() -> list[str]:
    """Remove it all; returns one line for each thing removed."""
    removed = []
    for path in _abandoned(NAMESPACES):
        for pid in _inhabitants(path):
            os.kill(pid, signal.SIGKILL)
            removed.append(f"process {pid} in namespace {path.name}")
        subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, check=False)
        if not path.exists():
            removed.append(f"namespace {path.name}")
    for path in _abandoned(Path(tempfile.gettempdir())):
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
