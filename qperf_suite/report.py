"""A report: one HTML file that needs nothing else, Markdown, CSV, JSON, plots as SVG and PNG."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from qperf_suite.charts import Chart, svg
from qperf_suite.environment import commits
from qperf_suite.errors import UsageError
from qperf_suite.figures import figures, samples_csv
from qperf_suite.goals import read_causes
from qperf_suite.outcome import Outcome, load
from qperf_suite.plots import plots
from qperf_suite.raster import missing, png
from qperf_suite.store import Store
from qperf_suite.table import OURS, Compared, ratios
from qperf_suite.tables import Table, claims_table, not_ahead_table, summary_table, tables

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.45 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1360px;
       padding: 0 16px 32px; }
p, li { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin: 2em 0 .5em; }
.plots { display: grid; gap: 12px;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.plots svg { width: 100%; height: auto; display: block; border: 1px solid #ddd; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2em .6em; text-align: right; border-bottom: 1px solid #e4e4e4; }
th { vertical-align: bottom; background: #f4f4f4; }
th:first-child, td:first-child { text-align: left; min-width: 6em; }
td { white-space: nowrap; }
@media (max-width: 800px) { td:first-child { white-space: normal; } }
td.words { text-align: left; white-space: normal; min-width: 13em; }
th.words { text-align: left; } .ahead, .holds { color: #14692c; } .behind, .fails { color: #a11; }
@page { size: A4; margin: 12mm; }
@media print { body { font-size: 10pt; max-width: none; padding: 0; } .wide { overflow: visible; }
  table { font-size: 6pt; width: 100%; } th, td { padding: .15em .3em; }
  th, td, td.words { white-space: normal; overflow-wrap: break-word; min-width: 0; }
  td.words { overflow-wrap: anywhere; } tr { break-inside: avoid; }
  th:first-child, td:first-child { min-width: 0; }
  .plots { grid-template-columns: 1fr 1fr; }
  .plots svg { break-inside: avoid; } h2 { break-after: avoid; } }
"""
METHOD = (
    "Medians over the rounds. In plots of the systems the wide mark is a 95 % bootstrap interval "
    "of the median (of three rounds: their range), and the thin line reaches from the least to "
    "the most of the rounds. Ratios: median over the rounds with a 95 % interval, in plots the "
    "wide mark, which also covers Student's; turned so that above 1 vhost-user is better. A case "
    "is ahead or behind only when the whole interval is on that side of 1. qperf's latency is "
    "one way, those of mtr and pingpong are round trips; udp_bw counts what was received.",
    "CPU time is counted while the tool runs, connecting included (about 0.1 s of a point), and "
    "divided by what was moved in the seconds that the tool was told to measure: of bandwidths per "
    "byte and message that arrived, of latencies per message, of which a round trip has two. First "
    "that of all processes of the guests that talk and of the switches; what the kernel does for "
    "a bridge is in it where it happens in the time of a guest. In parentheses that of the whole "
    "machine, which has the kernel's threads and interrupts as well, and what other systems' "
    "guests, who sleep, the suite itself and whoever else is there need. It is counted by ticks, "
    "processes exactly: where guests sleep and wake often it may be the lesser. MB/s per busy CPU "
    "is from that of guests and switches.",
    "Losses are those of the datagrams of udp_bw and pingpong and of mtr's echoes, as the tools "
    "print them, and iperf3's retransmissions, of all pairs together. A rate without loss with "
    "≥ is the highest that the search tries, and a ratio with ≥ or ≤ comes of one; with ? of two.",
)


def write(folder: Path) -> list[Path]:
    """Everything into a run's folder; returns the files, the HTML first."""
    store = Store(folder)
    outcome = load(store)
    if not outcome.samples:
        raise UsageError(f"{folder} has no measured point yet")
    environment = _environment(store)
    compared = ratios(outcome)
    drawn = plots(outcome, compared)
    first = [
        summary_table(compared, outcome.plan.cases),
        not_ahead_table(compared, read_causes(folder), outcome.plan.cases),
        claims_table(outcome, compared),
    ]
    texts = {
        "report.html": html(outcome, environment, compared, first, drawn),
        "report.md": markdown(outcome, environment, compared, first, drawn),
        "samples.csv": samples_csv(outcome),
        "figures.json": json.dumps(figures(outcome, environment, compared), indent=1) + "\n",
        **{f"plots/{name}.svg": svg(chart) + "\n" for name, chart in drawn.items()},
    }
    pictures = {} if missing() else {f"plots/{name}.png": svg(drawn[name]) for name in drawn}
    try:
        (folder / "plots").mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
        for name, document in pictures.items():
            (folder / name).write_bytes(png(document))
    except OSError as error:
        raise UsageError(f"cannot write the report to {folder}: {error.strerror}") from error
    return [folder / name for name in (*texts, *pictures)]


def html(
    outcome: Outcome,
    environment: Mapping[str, Any],
    compared: Compared,
    first: Iterable[Table],
    drawn: Mapping[str, Chart],
) -> str:
    """One page, without scripts, and with nothing from elsewhere. first: before the plots."""
    title = escape(_title(compared))
    body = [
        f"<h1>{title}</h1>",
        f"<p>{escape(_subtitle(outcome, environment))}</p>",
        *map(_html_table, first),
        "<h2>Plots</h2>" if drawn else "",
        f'<div class="plots">{"".join(map(svg, drawn.values()))}</div>',
        *map(_html_table, tables(outcome, compared)),
        "<h2>How it was measured</h2>",
        *(f"<p>{escape(words)}</p>" for words in METHOD),
        _html_list(outcome.options),
        _html_table(_failures(outcome)),
        _html_table(_machine(environment)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # A browser would ask for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def markdown(
    outcome: Outcome,
    environment: Mapping[str, Any],
    compared: Compared,
    first: Iterable[Table],
    drawn: Mapping[str, Chart],
) -> str:
    """The same, with the plots as files beside it."""
    rest = [*tables(outcome, compared), _failures(outcome), _machine(environment)]
    images = [
        f"![{chart.title}, {chart.y_title}](plots/{name}.svg)" for name, chart in drawn.items()
    ]
    parts = [f"# {_title(compared)}", _subtitle(outcome, environment)]
    parts += [_markdown_table(table) for table in first if table.rows]
    parts += ["## Plots", "\n".join(images)] if images else []
    parts += [_markdown_table(table) for table in rest if table.rows]
    parts += ["## How it was measured", *METHOD]
    parts.append("\n".join(f"- {option}" for option in outcome.options))
    return "\n\n".join(parts) + "\n"


def _title(compared: Compared) -> str:
    others = [pair.partition("/")[2] for pair in compared]
    return f"{OURS} against {' and '.join(others)}" if others else "qperf suite"


def _subtitle(outcome: Outcome, environment: Mapping[str, Any]) -> str:
    plan = outcome.plan
    words = f"Plan {plan.name}, {plan.rounds} rounds, {len(outcome.samples)} points measured"
    words += f", {len(outcome.failures)} failed" if outcome.failures else ""
    words += f", {outcome.missing} missing: not finished" if outcome.missing else ""
    where = [environment.get(name) for name in ("cpu", "kernel", "date")]
    return f"{words}. {environment.get('cpus')} CPUs, {', '.join(str(it) for it in where)}."


def _environment(store: Store) -> dict[str, Any]:
    """Of the start that came first, which the others go on with."""
    found = store.starts()
    if not found:
        return {}
    others = {"commits": ", ".join(commits(found))} if len(commits(found)) > 1 else {}
    return {**found[0], "starts": len(found), **others}


def _failures(outcome: Outcome) -> Table:
    rows = [
        [f"{failure.case.name}, round {failure.round + 1}", failure.system, failure.words]
        for failure in outcome.failures
    ]
    return Table("Points that failed", ["point", "system", "the tool's words"], rows)


def _machine(environment: Mapping[str, Any]) -> Table:
    rows = [
        [name.replace("_", " "), "unknown" if value is None else str(value) or "none"]
        for name, value in environment.items()
    ]
    return Table("The machine", ["", ""], rows)


def _html_table(table: Table) -> str:
    if not table.rows:
        return ""
    numbers = len(table.head) - table.words
    head = "".join(
        f"<th{'' if index < numbers else ' class=words'}>{escape(cell)}</th>"
        for index, cell in enumerate(table.head)
    )
    rows = "\n".join(
        f"<tr>{''.join(_html_cell(cell, index >= numbers) for index, cell in enumerate(row))}</tr>"
        for row in table.rows
    )
    return (
        f"<h2>{escape(table.title)}</h2>\n"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


_CLASSES = {
    "ahead": "ahead",
    "behind": "behind",
    "holds here": "holds",
    "does not hold": "fails",
}


def _html_cell(cell: str, sentence: bool) -> str:
    words = _CLASSES.get(cell) or ("words" if sentence or len(cell) > 30 else "")
    return f"<td class={words}>{escape(cell)}</td>" if words else f"<td>{escape(cell)}</td>"


def _html_list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _markdown_table(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    ruler = "|" + "|".join("---" for _ in table.head) + "|"
    return "\n".join([f"## {table.title}", "", line(table.head), ruler, *map(line, table.rows)])
