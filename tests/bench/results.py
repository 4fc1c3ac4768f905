"""What was measured: samples, their medians, and ratios that are larger when we are better."""

import json
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from qperf_suite.errors import SuiteError
from qperf_suite.statistics import Cell, Ratio, compare, summarize
from tests.bench.errors import BenchError
from tests.bench.library import tsc_hz
from tests.fakes.daemons import ROOT

# Of these less is better.
COSTS = {"cycles", "us", "s", "s/GB", "ns/B"}
# Of these nothing is better.
CONDITIONS = {"percent", "segments"}
# Others' programs that are measured, and the packages that they are from.
PEERS = {
    "dpdk": "dpdk-dev",
    "ovs": "openvswitch-switch-dpdk",
    **{name: name for name in ("wireguard-go", "nebula", "fastd", "tinc", "openvpn")},
}


@dataclass(frozen=True)
class Sample:
    """One value of one system in one case and round."""

    system: str
    case: str
    unit: str
    value: float
    round: int


@dataclass
class Results:
    """pairs: (ours, theirs) to be compared."""

    pairs: Sequence[tuple[str, str]]
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, system: str, case: str, unit: str, value: float, number: int) -> None:
        self.samples.append(Sample(system, case, unit, value, number))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """What fails is told at the end, and the rest goes on."""
        try:
            yield
        except (BenchError, SuiteError, AssertionError) as error:
            self.failures.append(f"{what}: {error}")

    def systems(self) -> list[str]:
        return list(dict.fromkeys(sample.system for sample in self.samples))

    def cases(self) -> list[str]:
        return list(dict.fromkeys(sample.case for sample in self.samples))

    def unit(self, case: str) -> str:
        return next(sample.unit for sample in self.samples if sample.case == case)

    def values(self, system: str, case: str) -> dict[int, float]:
        """By round; of several in a round the last."""
        return {
            sample.round: sample.value
            for sample in self.samples
            if sample.system == system and sample.case == case
        }

    def cell(self, system: str, case: str) -> Cell | None:
        values = list(self.values(system, case).values())
        if not values:
            return None
        return summarize(values) if min(values) > 0 else Cell(median(values), 0.0, len(values))

    def ratio(self, ours: str, theirs: str, case: str) -> Ratio | None:
        """Over the rounds in which both were measured."""
        mine, other = self.values(ours, case), self.values(theirs, case)
        both = sorted(mine.keys() & other.keys())
        if not both or self.unit(case) in CONDITIONS or min(*mine.values(), *other.values()) <= 0:
            return None
        return compare(
            [mine[number] for number in both],
            [other[number] for number in both],
            smaller_is_better=self.unit(case) in COSTS,
        )

    def ratios(self) -> dict[str, dict[str, Ratio]]:
        table: dict[str, dict[str, Ratio]] = defaultdict(dict)
        for ours, theirs in self.pairs:
            for case in self.cases():
                if (ratio := self.ratio(ours, theirs, case)) is not None:
                    table[f"{ours}/{theirs}"][case] = ratio
        return dict(table)

    def report(self) -> dict[str, Any]:
        """As design.md has it; "intervals": 95 % of resampled medians of each ratio."""
        ratios = self.ratios()
        return {
            "environment": environment(),
            "samples": [vars(sample) for sample in self.samples],
            "ratios": {
                pair: {case: round(ratio.median, 4) for case, ratio in row.items()}
                for pair, row in ratios.items()
            },
            "intervals": {
                pair: {case: [round(r.low, 4), round(r.high, 4)] for case, r in row.items()}
                for pair, row in ratios.items()
            },
            "notes": self.notes,
            "failures": self.failures,
        }

    def text(self) -> str:
        """The table that is printed: medians, half the range, and ratios."""
        systems, pairs = self.systems(), [f"{a}/{b}" for a, b in self.pairs]
        ratios = self.ratios()
        pairs = [pair for pair in pairs if pair in ratios]
        rows = [["case", "unit", *systems, *pairs]]
        for case in self.cases():
            row = [case, self.unit(case)]
            for system in systems:
                cell = self.cell(system, case)
                row.append(f"{number(cell.median)} ±{cell.spread:.0%}" if cell else "-")
            for pair in pairs:
                ratio = ratios[pair].get(case)
                row.append(
                    f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})" if ratio else "-"
                )
            rows.append(row)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(f"{text:<{w}}" for text, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self.notes, *(f"failed: {text}" for text in self.failures)])

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.report(), indent=1) + "\n")


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def environment() -> dict[str, Any]:
    """The machine and the versions, as far as they decide figures."""
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "tsc_hz": tsc_hz(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "commit": output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        **{name: output("dpkg-query", "-W", "-f=${Version}", peer) for name, peer in PEERS.items()},
    }


def output(*command: str) -> str:
    """What a command prints; empty when it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
