"""The figures of the published comparison; what its text claims is in claims.py.

Virtink's test of vhost-user (its docs/vhost-user-net-test.md, on a branch, 2023): OVS-DPDK,
single runs, two hosts with 25 Gbit/s between them.
"""

import csv
from functools import cache
from pathlib import Path

from qperf_suite.workloads import Case, Kind

FOLDER = Path(__file__).with_name("published")
OURS = "vhost-user"


def published_ratio(case: Case, other: str) -> float | None:
    """vhost-user against another there, above 1 when it is better; None if it was not measured."""
    ours, theirs = published_value(case, OURS), published_value(case, other)
    if ours is None or theirs is None:
        return None
    return theirs / ours if case.kind is Kind.LATENCY else ours / theirs


def published_value(case: Case, system: str) -> float | None:
    """In the case's unit."""
    return _values().get((system, case))


def published_cases() -> set[Case]:
    """What was measured of vhost-user there."""
    return {case for system, case in _values() if system == OURS}


@cache
def _values() -> dict[tuple[str, Case], float]:
    found: dict[tuple[str, Case], float] = {}
    for row in _rows("qperf.csv"):
        protocol, size = row["protocol"], int(row["message_bytes"])
        for test, column, factor in (
            ("lat", "latency_us", 1.0),
            ("bw", "bandwidth_bytes_per_s", 1e-6),
        ):
            if row[column]:
                case = Case(row["placement"], f"{protocol}_{test}", size)
                found[row["network"], case] = float(row[column]) * factor
    for row in _rows("simulation.csv"):
        where, guests = row["placement"], int(row["vms"])
        link = Case(where, "iperf3", guests=guests)
        found[row["network"], link] = float(row["link_tcp_gbit_per_s"])
        found[row["network"], Case(where, "mtr", guests=guests)] = float(row["mtr_latency_us"])
    return found


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file))
