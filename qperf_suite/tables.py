"""The tables of a report, in the layout of the published comparison: rows of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from qperf_suite.claims import judge, steadiness
from qperf_suite.goals import Cause, Shortfall, measured, shortfalls, why
from qperf_suite.outcome import Outcome
from qperf_suite.parse import PINGPONG_TIMES
from qperf_suite.published import OURS, published_ratio
from qperf_suite.statistics import Ratio
from qperf_suite.table import Compared, significant
from qperf_suite.workloads import LOSSLESS, PLACEMENTS, Case, Kind, size_text


@dataclass(frozen=True)
class Table:
    """head and rows: the same number of cells each; the first column names the row.

    words: how many columns at the end hold sentences.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    words: int = 0


def tables(outcome: Outcome, compared: Compared) -> list[Table]:
    """Everything that was measured, by placement and protocol."""
    found = []
    for placement in PLACEMENTS:
        for protocol in ("tcp", "udp"):
            found.append(_messages(outcome, placement, protocol))
        found.append(_crowd(outcome, placement))
        found += [_percentiles(outcome, placement), _lossless(outcome, placement)]
    found += [_against(outcome, compared, placement) for placement in PLACEMENTS]
    return [table for table in found if table.rows]


def claims_table(outcome: Outcome, compared: Compared) -> Table:
    """What the published text says, and whether it is so here."""
    judged = judge(compared, steadiness(outcome))
    rows = [[found.claim.words, found.answer, found.details] for found in judged]
    return Table("What the published text claims", ["claim", "here", "cases"], rows)


def summary_table(compared: Compared, planned: Sequence[Case]) -> Table:
    """How many cases are decided, and how."""
    rows = []
    for pair, row in compared.items():
        for kind in Kind:
            verdicts = [ratio.verdict for case, ratio in row.items() if case.kind is kind]
            absent = sum(case.kind is kind and case not in row for case in planned)
            if not verdicts and not absent:
                continue
            counts = [
                str(verdicts.count(verdict)) for verdict in ("ahead", "tie", "undecided", "behind")
            ]
            name = f"{kind.value} against {pair.removeprefix(f'{OURS}/')}"
            rows.append([name, *counts, str(absent)])
    head = ["cases of vhost-user", "ahead", "tie (0.97–1.03)", "undecided", "behind"]
    return Table("In short", [*head, "not measured"], rows)


def not_ahead_table(
    compared: Compared, causes: Sequence[Cause], planned: Sequence[Case] = ()
) -> Table:
    """What was wanted and is not so, what else is behind, and what was not measured."""
    wanted = measured(compared)
    rows: list[list[str]] = []
    before = ""
    for found, label in _gathered(shortfalls(compared, planned)):
        cause = why(found, causes)
        rows.append(
            [
                f"{_words(found.case.placement)}, {label}",
                found.other,
                _text(found.ratio) if found.ratio else "–",
                found.ratio.verdict if found.ratio else "not measured",
                found.goal.words if found.goal else "–",
                "″" if cause == before else cause,
            ]
        )
        before = cause
    if wanted and not rows:
        rows = [["nothing", "–", "–", "–", f"in {wanted} cases, and is so", "–"]]
    head = ["case", "against", "ratio (95 %)", "verdict", "wanted", "cause"]
    return Table("What is not ahead, and why", head, rows, words=2)


def _gathered(found: Sequence[Shortfall]) -> list[tuple[Shortfall, str]]:
    """With labels; what was not measured of one test in one row."""

    def alike(one: Shortfall) -> tuple[object, ...]:
        case = one.case
        where = (case.placement, case.test, one.other, one.goal and one.goal.words)
        return (*where, case if one.ratio else None)

    rows = []
    for _, group in groupby(found, alike):
        first, *rest = group
        label = first.case.label
        if rest:
            label += f" … {rest[-1].case.label}: {len(rest) + 1} cases"
        rows.append((first, label))
    return rows


def _messages(outcome: Outcome, placement: str, protocol: str) -> Table:
    """Bandwidth, messages and latency by size, as published."""
    sizes = sorted(
        {
            case.size_bytes
            for case in outcome.plan.cases
            if (case.placement, case.test[:4]) == (placement, f"{protocol}_") and case.size_bytes
        }
    )
    systems = outcome.plan.systems
    head = ["message"]
    head += [f"{name} {what}" for what in ("MB/s", "messages/s", "µs") for name in systems]
    rows = []
    for size in sizes:
        rates = [
            _median(outcome, system, Case(placement, f"{protocol}_bw", size)) for system in systems
        ]
        times = [
            _median(outcome, system, Case(placement, f"{protocol}_lat", size)) for system in systems
        ]
        messages = [None if rate is None else rate * 1e6 / size for rate in rates]
        rows.append([size_text(size), *map(_number, [*rates, *messages, *times])])
    return Table(f"{protocol.upper()} with qperf, {_words(placement)}", head, rows)


def _crowd(outcome: Outcome, placement: str) -> Table:
    """Per guest, link total and latency by number of guests, as published."""
    counts = sorted(
        {
            case.guests
            for case in outcome.plan.cases
            if case.placement == placement and case.test in ("mtr", "iperf3")
        }
    )
    systems = outcome.plan.systems
    whats = ("Gbit/s per pair", "Gbit/s in all", "µs")
    rows = []
    for count in counts:
        link = [
            _median(outcome, system, Case(placement, "iperf3", guests=count)) for system in systems
        ]
        times = [
            _median(outcome, system, Case(placement, "mtr", guests=count)) for system in systems
        ]
        each = [None if total is None else total / (count // 2) for total in link]
        rows.append([str(count), *map(_number, [*each, *link, *times])])
    head = ["guests", *(f"{name} {what}" for what in whats for name in systems)]
    return Table(f"Guests that talk at the same time, {_words(placement)}", head, rows)


def _percentiles(outcome: Outcome, placement: str) -> Table:
    rows = []
    for case in outcome.plan.cases:
        if (case.placement, case.test) != (placement, "pingpong"):
            continue
        for system in outcome.plan.systems:
            samples = outcome.of(system, case).values()
            if samples:
                cells = [
                    _number(median(sample.details[name] for sample in samples))
                    for name in PINGPONG_TIMES
                ]
                rows.append([f"{case.label}, {system}", *cells])
    head = ["UDP round trip, µs", "least", "50 %", "90 %", "99 %", "99.9 %", "most"]
    return Table(f"Percentiles of round trips, {_words(placement)}", head, rows)


def _lossless(outcome: Outcome, placement: str) -> Table:
    rows = []
    for case in outcome.plan.cases:
        if (case.placement, case.test) != (placement, LOSSLESS):
            continue
        cells = [_number(_median(outcome, system, case)) for system in outcome.plan.systems]
        for system in outcome.plan.systems:
            samples = outcome.of(system, case).values()
            little = [sample.details["half_percent_lost_per_s"] for sample in samples]
            cells.append(_number(median(little) if little else None))
        rows.append([size_text(case.size_bytes or 0), *cells])
    whats = ("without loss", "with half a percent lost")
    head = ["datagram", *(f"{name} {what}" for what in whats for name in outcome.plan.systems)]
    return Table(f"UDP datagrams per second (MLRsearch), {_words(placement)}", head, rows)


def _against(outcome: Outcome, compared: Compared, placement: str) -> Table:
    """Our ratios beside the published ones."""
    others = [pair.removeprefix(f"{OURS}/") for pair in compared]
    rows = []
    for case in outcome.plan.cases:
        if case.placement != placement:
            continue
        cells = []
        for other in others:
            ratio = compared[f"{OURS}/{other}"].get(case)
            cells += ["–", "–"] if ratio is None else [_text(ratio), ratio.verdict]
            cells.append(_number(published_ratio(case, other)))
        rows.append([case.label, *cells])
    head = ["case"]
    head += [
        text for other in others for text in (f"to {other} (95 %)", "verdict", "published there")
    ]
    return Table(f"Ratios of vhost-user, {_words(placement)}", head, rows)


def _median(outcome: Outcome, system: str, case: Case) -> float | None:
    values = outcome.values(system, case).values()
    return median(values) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else significant(value)


def _text(ratio: Ratio) -> str:
    if ratio.high == float("inf"):
        return f"{ratio.median:.2f} (1 round)"
    return f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"


def _words(placement: str) -> str:
    return placement.replace("-", " ")
