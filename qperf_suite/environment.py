"""What the machine is that measures, as far as it tells."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from qperf_suite.ovs import DAEMON

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = {
    "qperf": ["qperf", "--version"],
    "mtr": ["mtr", "--version"],
    "iperf3": ["iperf3", "--version"],
    "nft": ["nft", "--version"],
    "guest_kernel": ["linux.uml", "--version"],
    "commit": ["git", "-C", str(ROOT), "rev-parse", "HEAD"],
}
# Of what only these systems use.
VERSIONS_OF = {
    "ovs-dpdk": {"ovs": [DAEMON, "--version"], "qemu": ["qemu-system-x86_64", "--version"]},
}


def environment(systems: Sequence[str] = ()) -> dict[str, Any]:
    """By name; None for what it does not tell. systems: that run here."""
    versions = dict(VERSIONS)
    for system in systems:
        versions |= VERSIONS_OF.get(system, {})
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
        "python": platform.python_version(),
        **({"vsw": _package("meshswitch")} if "vhost-user" in systems else {}),
        **{name: _first_line(command) for name, command in versions.items()},
        "changed": _changed(),
    }


def commits(environments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each once, in their order, with what was not committed; "unknown" for none."""
    named = [
        (it.get("commit") or "unknown") + (" with changes" if it.get("changed") else "")
        for it in environments
    ]
    return list(dict.fromkeys(named))


def _changed() -> bool | None:
    """Whether files are not as in the commit; None outside a repository."""
    status = ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"]
    said = _output(status)
    return None if said is None else bool(said)


def _package(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


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
    return next(iter((_output(command) or "").splitlines()), None)


def _output(command: list[str]) -> str | None:
    """None when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
