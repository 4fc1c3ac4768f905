"""The plots of a report: what is drawn of an outcome."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median

from qperf_suite.charts import Chart, Dot, Series
from qperf_suite.costs import ns_per_byte
from qperf_suite.outcome import Outcome, Sample
from qperf_suite.statistics import interval
from qperf_suite.table import OURS, Compared
from qperf_suite.workloads import LOSSLESS, PLACEMENTS, TESTS, Case, Pace, size_text

SIZE_TICKS = 8
TITLES = {
    "tcp_lat": "TCP latency",
    "tcp_bw": "TCP bandwidth",
    "udp_lat": "UDP latency",
    "udp_bw": "UDP bandwidth",
    "iperf3": "Link total, TCP",
    "mtr": "ICMP round trip",
    LOSSLESS: "UDP without loss",
}


def plots(outcome: Outcome, compared: Compared) -> dict[str, Chart]:
    """Name for a file → chart; only what has at least two places on its axis."""
    found: dict[str, Chart] = {}
    for placement in PLACEMENTS:
        for test in ("tcp_lat", "tcp_bw", "udp_lat", "udp_bw", LOSSLESS):
            cases = _cases(outcome, placement, test, crowd=False)
            if len(cases) < 2:
                continue
            name, title = f"{placement}-{test}", f"{TITLES[test]}, {_words(placement)}"
            unit = TESTS[test].unit
            found[name] = _by_size(title, unit, cases, _systems(outcome, cases, _value))
            found[f"{name}-ratio"] = _by_size(title, "ratio", cases, _ratios(compared, cases), 1.0)
            if test.endswith("_bw"):
                per_cpu = _systems(outcome, cases, partial(_per_cpu, outcome.plan.pace))
                found[f"{name}-per-cpu"] = _by_size(title, "MB/s per busy CPU", cases, per_cpu)
        for test in ("mtr", "iperf3"):
            cases = _cases(outcome, placement, test, crowd=True)
            if len(cases) < 2:
                continue
            title, unit = f"{TITLES[test]}, {_words(placement)}", TESTS[test].unit
            name = f"{placement}-{test}-crowd"
            found[name] = _by_guests(title, unit, cases, _systems(outcome, cases, _value))
            if test == "iperf3":
                found[f"{name}-per-guest"] = _by_guests(
                    f"TCP per pair, {_words(placement)}",
                    unit,
                    cases,
                    _systems(outcome, cases, _per_pair),
                )
    return found


def _value(sample: Sample) -> float:
    return sample.value


def _per_cpu(pace: Pace, sample: Sample) -> float:
    """MB per second of CPU time of guests and switches; 0 when that is not known."""
    cost = ns_per_byte(sample, pace)
    return 1e3 / cost.used if cost else 0.0


def _per_pair(sample: Sample) -> float:
    return sample.value / len(sample.case.pairs)


def _cases(outcome: Outcome, placement: str, test: str, *, crowd: bool) -> list[Case]:
    return [
        case
        for case in outcome.plan.cases
        if (case.placement, case.test, case.size_bytes is None) == (placement, test, crowd)
    ]


def _place(case: Case) -> float:
    return case.size_bytes or case.guests


def _systems(
    outcome: Outcome, cases: Sequence[Case], value: Callable[[Sample], float]
) -> list[Series]:
    """Medians over the rounds, with their interval, and all that was seen."""
    found = []
    for system in outcome.plan.systems:
        dots = []
        for case in cases:
            values = [value(sample) for sample in outcome.of(system, case).values()]
            if values and min(values) > 0:
                low, high = interval(values) if len(values) > 1 else (values[0], values[0])
                dots.append(Dot(_place(case), median(values), low, high, tuple(values)))
        found.append(Series(system, dots))
    return found


def _ratios(compared: Compared, cases: Iterable[Case]) -> list[Series]:
    wanted = set(cases)
    return [
        Series(
            f"to {pair.removeprefix(f'{OURS}/')}",
            [
                Dot(_place(case), ratio.median, ratio.low, ratio.high)
                for case, ratio in row.items()
                if case in wanted
            ],
        )
        for pair, row in compared.items()
    ]


def _by_size(
    title: str,
    unit: str,
    cases: Sequence[Case],
    series: Sequence[Series],
    line: float | None = None,
) -> Chart:
    sizes = sorted(case.size_bytes or 1 for case in cases)
    every = -(-len(sizes) // SIZE_TICKS)
    ticks = {float(size): size_text(size) for size in sizes[::every]}
    # The scale reaches to the last size, also where it has no label.
    ticks.setdefault(float(sizes[-1]), "")
    x_title = "message size" if line is None else "message size; above 1 vhost-user is better"
    return Chart(title, unit, x_title, series, ticks, line)


def _by_guests(title: str, unit: str, cases: Sequence[Case], series: Sequence[Series]) -> Chart:
    ticks = {float(case.guests): str(case.guests) for case in cases}
    return Chart(title, unit, "guests that talk at the same time", series, ticks, steps=True)


def _words(placement: str) -> str:
    return placement.replace("-", " ")
