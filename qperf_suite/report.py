"""The outcome of a run for machines: JSON, with the environment that it was measured in."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qperf_suite.runner import Outcome
from qperf_suite.table import ratios

VERSIONS = {
    "qperf": ["qperf", "--version"],
    "mtr": ["mtr", "--version"],
    "iperf3": ["iperf3", "--version"],
    "nft": ["nft", "--version"],
    "guest_kernel": ["linux.uml", "--version"],
    "commit": ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
}


def report(outcome: Outcome) -> dict[str, Any]:
    """environment, samples (in order of measuring) and ratios; intervals and failures beside."""
    compared = ratios(outcome)
    return {
        "environment": {
            **environment(),
            "rounds": outcome.plan.rounds,
            "seconds_per_point": outcome.plan.seconds,
            "elapsed_s": round(outcome.elapsed_s, 1),
            "pinning": {name: list(cpus) for name, cpus in (outcome.plan.cpus or {}).items()},
            "options": outcome.options,
        },
        "samples": [
            {
                "system": sample.system,
                "case": sample.case.name,
                "unit": sample.case.unit,
                "value": sample.value,
            }
            for sample in outcome.samples
        ],
        "ratios": {
            pair: {case.name: round(ratio.median, 4) for case, ratio in row.items()}
            for pair, row in compared.items()
        },
        "intervals": {
            pair: {
                case.name: [round(ratio.low, 4), round(ratio.high, 4)]
                for case, ratio in row.items()
            }
            for pair, row in compared.items()
        },
        "failures": [
            {
                "system": failure.system,
                "case": failure.case.name,
                "round": failure.round,
                "words": failure.words,
            }
            for failure in outcome.failures
        ],
    }


def environment() -> dict[str, Any]:
    """What the machine is, as far as it tells."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name"),
        "cpus": os.cpu_count(),
        "memory": _field(Path("/proc/meminfo"), "MemTotal"),
        "hugepages": _field(Path("/proc/meminfo"), "HugePages_Total"),
        "governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load_before_report": os.getloadavg()[0],
        **{name: _first_line(command) for name, command in VERSIONS.items()},
    }


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
