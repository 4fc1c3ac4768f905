"""The outcome of a run for people: a table 100 columns wide, and one sentence per claim."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from qperf_suite.outcome import Outcome
from qperf_suite.statistics import Cell, Ratio, compare, summarize
from qperf_suite.workloads import Case, Kind

Compared = Mapping[str, Mapping[Case, Ratio]]
OURS = "vhost-user"
TABLE_WIDTH = 100
LABEL_WIDTH, UNIT_WIDTH, CELL_WIDTH, RATIO_WIDTH = 15, 6, 15, 17
# (test, size, what people call it): claims are made for these, in every placement.
CLAIMS = (
    ("tcp_lat", 1, "TCP latency at 1 B"),
    ("udp_lat", 1, "UDP latency at 1 B"),
    ("tcp_bw", 65536, "TCP bandwidth at 64 KiB"),
)
LEGEND = (
    "Median of {rounds} rounds ± half the range. Ratios: median over the rounds with a 95 % "
    "interval, turned so that above 1 vhost-user is better. qperf's latency is one way, mtr's a "
    "round trip; udp_bw counts what was received."
)


def ratios(outcome: Outcome) -> dict[str, dict[Case, Ratio]]:
    """ "vhost-user/bridge" → case → ratio, for every case with a round that both finished."""
    found: dict[str, dict[Case, Ratio]] = {}
    if OURS not in outcome.plan.systems:
        return found
    for other in outcome.plan.systems:
        if other == OURS:
            continue
        row = found.setdefault(f"{OURS}/{other}", {})
        for case in outcome.plan.cases:
            ratio = paired(case, outcome.values(OURS, case), outcome.values(other, case))
            if ratio is not None:
                row[case] = ratio
    return found


def paired(case: Case, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Ratio | None:
    """Round by round, by their numbers; None when no round has both."""
    rounds = sorted(ours.keys() & theirs.keys())
    if not rounds:
        return None
    return compare(
        [ours[number] for number in rounds],
        [theirs[number] for number in rounds],
        smaller_is_better=case.kind is Kind.LATENCY,
    )


def table(outcome: Outcome, compared: Compared) -> str:
    """The table, with its legend and the options of the systems under it."""
    lines = []
    placement = None
    for case in outcome.plan.cases:
        if case.placement != placement:
            placement = case.placement
            lines += ["", _header(placement, outcome.plan.systems, compared)]
        cells = [_cell(outcome, system, case) for system in outcome.plan.systems]
        against = [_ratio(compared[pair].get(case)) for pair in compared]
        lines.append(
            f"{case.label:<{LABEL_WIDTH}}{case.unit:<{UNIT_WIDTH}}"
            + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)
            + "".join(f"{text:>{RATIO_WIDTH}}" for text in against)
        )
    lines += [
        "",
        *textwrap.wrap(LEGEND.format(rounds=outcome.plan.rounds), TABLE_WIDTH),
    ]
    for option in outcome.options:
        lines += _item(option)
    for failure in outcome.failures:
        lines += _item(
            f"failed: {failure.case.name} on {failure.system}, "
            f"round {failure.round + 1}: {failure.words}"
        )
    return "\n".join(line.rstrip() for line in lines[1:])


def claims(compared: Compared) -> list[str]:
    """One sentence per claim: is vhost-user ahead, and by how much."""
    sentences = []
    for pair, row in compared.items():
        other = pair.removeprefix(f"{OURS}/")
        for case, ratio in row.items():
            for test, size_bytes, words in CLAIMS:
                if (case.test, case.size_bytes) == (test, size_bytes):
                    where = case.placement.replace("-", " ")
                    sentences.append(_sentence(f"{where}, {words}", other, ratio))
    return sorted(sentences, reverse=True)


def _sentence(what: str, other: str, ratio: Ratio) -> str:
    interval = f"(95 %: {ratio.low:.2f}–{ratio.high:.2f})"
    if math.isinf(ratio.high):
        interval = "(a single round)"
    start = what[0].upper() + what[1:]
    if ratio.verdict == "ahead":
        return f"{start}: vhost-user is ahead of {other}, {ratio.median:.2f} times {interval}."
    if ratio.verdict == "behind":
        return f"{start}: vhost-user is behind {other}, {ratio.median:.2f} times {interval}."
    if ratio.verdict == "tie":
        return f"{start}: vhost-user ties with {other}, {ratio.median:.2f} times {interval}."
    return f"{start}: undecided against {other}, {ratio.median:.2f} times {interval}."


def _header(placement: str, systems: Sequence[str], compared: Compared) -> str:
    title = placement.replace("-", " ")
    pairs = [f"vs {pair.removeprefix(f'{OURS}/')}" for pair in compared]
    return (
        f"{title:<{LABEL_WIDTH + UNIT_WIDTH}}"
        + "".join(f"{name:>{CELL_WIDTH}}" for name in systems)
        + "".join(f"{pair:>{RATIO_WIDTH}}" for pair in pairs)
    )


def _cell(outcome: Outcome, system: str, case: Case) -> str:
    values = list(outcome.values(system, case).values())
    return _cell_text(summarize(values)) if values else "failed"


def _cell_text(cell: Cell) -> str:
    return f"{significant(cell.median)} ±{cell.spread * 100:.0f}%"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "–"
    if math.isinf(ratio.high):
        return f"{ratio.median:.2f} (1 round)"
    digits = 2 if ratio.high < 10 else 1 if ratio.high < 100 else 0
    return f"{ratio.median:.{digits}f} ({ratio.low:.{digits}f}–{ratio.high:.{digits}f})"


def _item(text: str) -> list[str]:
    return textwrap.wrap(text, TABLE_WIDTH, initial_indent="- ", subsequent_indent="  ")


def significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"
