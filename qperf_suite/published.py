"""The published comparison: its figures, and what its text claims.

Virtink's test of vhost-user (its docs/vhost-user-net-test.md, on a branch, 2023): OVS-DPDK,
single runs, two hosts with 25 Gbit/s between them.
"""

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qperf_suite.statistics import Ratio
from qperf_suite.workloads import KIB, MIB, Case, Kind

FOLDER = Path(__file__).with_name("published")
OURS = "vhost-user"


@dataclass(frozen=True)
class Claim:
    """What the text says of vhost-user. verdict: ahead or behind, in every case that counts."""

    words: str
    other: str
    verdict: str
    counts: Callable[[Case], bool]


@dataclass(frozen=True)
class Judgement:
    """How a claim fares here. answer: holds here, does not hold, undecided, not measured."""

    claim: Claim
    answer: str
    details: str


def published_ratio(case: Case, other: str) -> float | None:
    """vhost-user against another there, above 1 when it is better; None if it was not measured."""
    ours, theirs = published_value(case, OURS), published_value(case, other)
    if ours is None or theirs is None:
        return None
    return theirs / ours if case.kind is Kind.LATENCY else ours / theirs


def published_value(case: Case, system: str) -> float | None:
    """In the case's unit."""
    return _values().get((system, case))


def judge(claims: Mapping[str, Mapping[Case, Ratio]]) -> list[Judgement]:
    """Every claim. claims: "vhost-user/bridge" → case → ratio."""
    found = []
    for claim in CLAIMS:
        row = claims.get(f"{OURS}/{claim.other}", {})
        verdicts = Counter(ratio.verdict for case, ratio in row.items() if claim.counts(case))
        found.append(Judgement(claim, _answer(claim, verdicts), _details(verdicts)))
    return found


def _answer(claim: Claim, verdicts: Counter[str]) -> str:
    total = verdicts.total()
    if total == 0:
        return "not measured"
    if verdicts[claim.verdict] == total:
        return "holds here"
    opposite = "behind" if claim.verdict == "ahead" else "ahead"
    return "does not hold" if verdicts[opposite] or verdicts["tie"] else "undecided"


def _details(verdicts: Counter[str]) -> str:
    total = verdicts.total()
    listed = [f"{count} {verdict}" for verdict, count in verdicts.most_common()]
    return f"of {total} cases: {', '.join(listed)}" if total else ""


def _is(placement: str, test: str, first: int = 1, last: int = 1 << 40) -> Callable[[Case], bool]:
    return lambda case: (
        (case.placement, case.test) == (placement, test) and first <= (case.size_bytes or 0) <= last
    )


def _crowd(placement: str, test: str, first: int, last: int = 99) -> Callable[[Case], bool]:
    return lambda case: (
        (case.placement, case.test) == (placement, test) and first <= case.guests <= last
    )


_LOWER = "TCP latency of vhost-user is lower at every size"
_UDP_LOWER = "UDP latency of vhost-user is lower at every size"
_EXCEEDS = "link bandwidth exceeds that of vhost-user from 8 VMs on"
CLAIMS = (
    *(
        Claim(
            f"{words}, {where.replace('-', ' ')}, than {other}'s", other, "ahead", _is(where, test)
        )
        for words, test in ((_LOWER, "tcp_lat"), (_UDP_LOWER, "udp_lat"))
        for where in ("same-host", "across-hosts")
        for other in ("bridge", "masquerade")
    ),
    Claim(
        "TCP bandwidth of vhost-user falls behind bridge from 128 B to 8 KiB, same host",
        "bridge",
        "behind",
        _is("same-host", "tcp_bw", 128, 8 * KIB),
    ),
    Claim(
        "TCP bandwidth of vhost-user is above bridge's from 16 KiB on, same host",
        "bridge",
        "ahead",
        _is("same-host", "tcp_bw", 16 * KIB),
    ),
    Claim(
        "TCP bandwidth of vhost-user falls behind bridge from 4 MiB on, across hosts",
        "bridge",
        "behind",
        _is("across-hosts", "tcp_bw", 4 * MIB),
    ),
    Claim(
        "UDP bandwidth of vhost-user is above bridge's at every size, same host",
        "bridge",
        "ahead",
        _is("same-host", "udp_bw"),
    ),
    Claim(
        "with 2 VMs the link bandwidth of vhost-user is above bridge's, same host",
        "bridge",
        "ahead",
        _crowd("same-host", "iperf3", 2, 2),
    ),
    *(
        Claim(f"{other}'s {_EXCEEDS}, {where.replace('-', ' ')}", other, "behind", crowded)
        for where, crowded in (
            ("same-host", _crowd("same-host", "iperf3", 8)),
            ("across-hosts", _crowd("across-hosts", "iperf3", 8)),
        )
        for other in ("bridge", "masquerade")
    ),
    Claim(
        "latency of vhost-user stays below bridge's from 6 VMs on, same host",
        "bridge",
        "ahead",
        _crowd("same-host", "mtr", 6),
    ),
)


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
