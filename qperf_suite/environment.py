"""What the machine is that measures, as far as it tells."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

VERSIONS = {
    "qperf": ["qperf", "--version"],
    "mtr": ["mtr", "--version"],
    "iperf3": ["iperf3", "--version"],
    "nft": ["nft", "--version"],
    "guest_kernel": ["linux.uml", "--version"],
    "commit": ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
}


def environment() -> dict[str, Any]:
    """By name; None for what it does not tell."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name"),
        "cpus": os.cpu_count(),
        "memory": _field(Path("/proc/meminfo"), "MemTotal"),
        "hugepages": _field(Path("/proc/meminfo"), "HugePages_Total"),
        "governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load": os.getloadavg()[0],
        "steal_s": _steal_s(),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "smt": _text(Path("/sys/devices/system/cpu/smt/control")),
        "isolated": _text(Path("/sys/devices/system/cpu/isolated")),
        "command_line": _text(Path("/proc/cmdline")),
        **{name: _first_line(command) for name, command in VERSIONS.items()},
    }


def _steal_s() -> float:
    """What another machine has had of this one's CPUs since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def _field(path: Path, name: str) -> str | None:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None
