"""What moving data costs: CPU time over what was moved. Pure functions.

CPU time is counted from just before the tool starts in the guests until it has ended, in all that
talk, and what was moved is the tool's rate over the seconds that it was told to measure (iperf3's
first second, too, which its rate leaves out).  Connecting, about 0.1 s, is in the CPU time alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from qperf_suite.outcome import Outcome, Sample
from qperf_suite.workloads import Case, Pace


@dataclass(frozen=True)
class Cost:
    """CPU time. used: of guests and switches; machine: of everything that ran meanwhile."""

    used: float
    machine: float

    def times(self, factor: float) -> "Cost":
        """In another unit."""
        return Cost(self.used * factor, self.machine * factor)


def ns_per_byte(sample: Sample, pace: Pace) -> Cost | None:
    """Of a bandwidth: the same as seconds per 10^9 bytes. None where it is not known."""
    per_s = {"MB/s": 1e6, "Gbit/s": 1e9 / 8}.get(sample.case.unit)
    return None if per_s is None else _cost(sample, sample.value * per_s, pace, 1e9)


def us_per_message(sample: Sample, pace: Pace) -> Cost | None:
    """Of qperf, each way a message: what was received of udp_bw. None where it is not known."""
    if sample.case.size_bytes is None:
        return None
    if sample.case.test in ("tcp_lat", "udp_lat"):
        return _cost(sample, 1e6 / sample.value, pace, 1e6)
    found = ns_per_byte(sample, pace)
    return None if found is None else found.times(sample.case.size_bytes / 1e3)


def middle(costs: list[Cost | None]) -> Cost | None:
    """The medians of what is known."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return None
    return Cost(median(cost.used for cost in known), median(cost.machine for cost in known))


def costs(outcome: Outcome) -> dict[str, dict[str, Mapping[str, Any]]]:
    """System → case's name → medians over the rounds, by name with their units."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for system in outcome.plan.systems:
        row = found.setdefault(system, {})
        for case in outcome.plan.cases:
            numbers = _numbers(outcome, system, case)
            if numbers:
                row[case.name] = numbers
    return found


def _numbers(outcome: Outcome, system: str, case: Case) -> dict[str, float]:
    samples, pace = outcome.of(system, case).values(), outcome.plan.pace
    numbers = {}
    for name, cost in (
        ("ns_per_byte", middle([ns_per_byte(sample, pace) for sample in samples])),
        ("us_per_message", middle([us_per_message(sample, pace) for sample in samples])),
    ):
        if cost is not None:
            numbers[name] = round(cost.used, 5)
            numbers[f"machine_{name}"] = round(cost.machine, 5)
    return numbers


def _cost(sample: Sample, moved_per_s: float, pace: Pace, scale: float) -> Cost | None:
    """scale: units of the result in a second. Guests elsewhere have no CPU time that is known."""
    used_s = sample.cpu.get("guests_s", 0.0) + sample.cpu.get("switch_s", 0.0)
    if not sample.cpu.get("guests_s"):
        return None
    moved = moved_per_s * sample.case.seconds(pace)
    return Cost(used_s * scale / moved, sample.cpu.get("machine_s", 0.0) * scale / moved)
