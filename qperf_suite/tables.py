"""The tables of a report, in the layout of the published comparison: rows of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from qperf_suite.claims import judge, steadiness
from qperf_suite.costs import Cost, middle, ns_per_byte, us_per_message
from qperf_suite.goals import Cause, Shortfall, measured, shortfalls, why
from qperf_suite.lossless import LITTLE, at_limit
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
    for placement in PLACEMENTS:
        found += [_message_costs(outcome, placement, protocol) for protocol in ("tcp", "udp")]
        found += [_crowd_costs(outcome, placement), _losses(outcome, placement)]
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
    """What was wanted and is not so, what else is behind, and what was not measured: in one row
    what is of one test, and has one cause."""
    wanted = measured(compared)
    rows: list[list[str]] = []
    before = ""

    def alike(found: Shortfall) -> tuple[str, ...]:
        case, goal = found.case, found.goal.words if found.goal else "–"
        test = f"{_words(case.placement)}, {case.test}"
        return test, found.other, goal, why(found, causes)

    for (test, other, goal, cause), group in groupby(shortfalls(compared, planned), alike):
        behind, others = _by_verdict(list(group))
        rows.append([test, other, behind, others, goal, "″" if cause == before else cause])
        before = cause
    if wanted and not rows:
        rows = [["nothing", "–", "–", "–", f"in {wanted} cases, and is so", "–"]]
    head = ["cases", "against", "behind", "undecided, or a tie", "wanted", "cause"]
    return Table("What is not ahead, and why", head, rows, words=4)


def _by_verdict(found: Sequence[Shortfall]) -> tuple[str, str]:
    """Of one test: what is behind, and the rest, by size or guests, with ratios."""
    behind, others, missing = [], [], []
    for one in found:
        size = one.case.label.removeprefix(one.case.test).strip() or "2 VMs"
        if one.ratio is None:
            missing.append(size)
        elif one.ratio.verdict == "behind":
            behind.append(f"{size}: {_text(one.ratio)}")
        else:
            others.append(f"{size}: {_text(one.ratio)}")
    if missing:
        others.append(f"not measured: {', '.join(missing)}")
    return "; ".join(behind) or "–", "; ".join(others) or "–"


def _messages(outcome: Outcome, placement: str, protocol: str) -> Table:
    """Bandwidth, messages and latency by size, as published."""
    sizes = _sizes(outcome, placement, protocol)
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
        samples = [list(outcome.of(system, case).values()) for system in outcome.plan.systems]
        cells = [_rate([it.value for it in found], 0.0) for found in samples]
        cells += [
            _rate([it.details["half_percent_lost_per_s"] for it in found], LITTLE)
            for found in samples
        ]
        rows.append([size_text(case.size_bytes or 0), *cells])
    whats = ("without loss", "with half a percent lost")
    head = ["datagram", *(f"{name} {what}" for what in whats for name in outcome.plan.systems)]
    return Table(f"UDP datagrams per second (MLRsearch), {_words(placement)}", head, rows)


def _message_costs(outcome: Outcome, placement: str, protocol: str) -> Table:
    """CPU time by size, in the layout of what was measured."""
    systems, pace = outcome.plan.systems, outcome.plan.pace
    rows = []
    for size in _sizes(outcome, placement, protocol):
        cells = []
        for test, cost in (("bw", ns_per_byte), ("bw", us_per_message), ("lat", us_per_message)):
            case = Case(placement, f"{protocol}_{test}", size)
            for system in systems:
                samples = outcome.of(system, case).values()
                cells.append(_cost(middle([cost(sample, pace) for sample in samples])))
        if set(cells) != {"–"}:
            rows.append([size_text(size), *cells])
    whats = ("bw, ns/B", "bw, µs/message", "lat, µs/message")
    head = ["message", *(f"{name} {what}" for what in whats for name in systems)]
    title = f"CPU time of guests and switches (of the machine), {protocol.upper()}"
    return Table(f"{title} with qperf, {_words(placement)}", head, rows)


def _crowd_costs(outcome: Outcome, placement: str) -> Table:
    """CPU time of iperf3 by number of guests."""
    rows = []
    for case in outcome.plan.cases:
        if (case.placement, case.test) != (placement, "iperf3"):
            continue
        cells = []
        for system in outcome.plan.systems:
            samples = outcome.of(system, case).values()
            found = [ns_per_byte(sample, outcome.plan.pace) for sample in samples]
            cells.append(_cost(middle(found)))
        if set(cells) != {"–"}:
            rows.append([str(case.guests), *cells])
    head = ["guests", *(f"{name} s/GB" for name in outcome.plan.systems)]
    title = "CPU time of guests and switches (of the machine), iperf3"
    return Table(f"{title}, {_words(placement)}", head, rows)


def _losses(outcome: Outcome, placement: str) -> Table:
    """Lost in %, or sent once more, with the most of a round; what lost nothing is one row."""
    rows: list[list[str]] = []
    clean = 0
    systems = outcome.plan.systems
    for case in outcome.plan.cases:
        name = "retransmits" if case.test == "iperf3" else "loss_percent"
        if case.placement != placement or case.test == LOSSLESS:
            continue
        samples = [outcome.of(system, case).values() for system in systems]
        found = [
            [round(it.details[name], 3) for it in row if name in it.details] for row in samples
        ]
        if any(map(any, found)):
            what = "retransmissions" if name == "retransmits" else "% lost"
            rows.append([f"{case.label}, {what}", *map(_middle_and_most, found)])
        else:
            clean += any(found)
    if clean:
        words = f"{'other ' if rows else ''}cases in which nothing was lost, by any: {clean}"
        rows.append([words, *("0" for _ in systems)])
    title = "Losses and retransmissions, median (most of a round)"
    return Table(f"{title}, {_words(placement)}", ["case", *systems], rows)


def _middle_and_most(values: Sequence[float]) -> str:
    if not values:
        return "–"
    middle_text, most = (
        _number(value) if value else "0" for value in (median(values), max(values))
    )
    return middle_text if max(values) == median(values) else f"{middle_text} ({most})"


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
            if ratio is None:
                cells += ["–", "–"]
            else:
                cells += [_bound(outcome, case, other) + _text(ratio), ratio.verdict]
            cells.append(_number(published_ratio(case, other)))
        rows.append([case.label, *cells])
    head = ["case"]
    head += [
        text for other in others for text in (f"to {other} (95 %)", "verdict", "published there")
    ]
    return Table(f"Ratios of vhost-user, {_words(placement)}", head, rows)


def _bound(outcome: Outcome, case: Case, other: str) -> str:
    """Of a ratio of rates, one or both of which are at the search's limit."""
    if case.test != LOSSLESS:
        return ""
    ours, theirs = (at_limit(_median(outcome, name, case) or 0) for name in (OURS, other))
    return {(True, False): "≥ ", (False, True): "≤ ", (True, True): "? "}.get((ours, theirs), "")


def _sizes(outcome: Outcome, placement: str, protocol: str) -> list[int]:
    """Of qperf's messages, from small to large."""
    return sorted(
        {
            case.size_bytes
            for case in outcome.plan.cases
            if (case.placement, case.test[:4]) == (placement, f"{protocol}_") and case.size_bytes
        }
    )


def _cost(cost: Cost | None) -> str:
    return "–" if cost is None else f"{_number(cost.used)} ({_number(cost.machine)})"


def _median(outcome: Outcome, system: str, case: Case) -> float | None:
    values = outcome.values(system, case).values()
    return median(values) if values else None


def _rate(values: Sequence[float], lost: float) -> str:
    """The median; at the search's limit it is a lower bound."""
    if not values:
        return "–"
    return f"{'≥ ' * at_limit(median(values), lost)}{_number(median(values))}"


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
