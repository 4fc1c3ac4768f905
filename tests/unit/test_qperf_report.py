"""Reports of runs that never were: plots, tables, claims, comparison, and what is in the files."""

import csv
import io
import json
import re
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest
import resvg_py

from qperf_suite.charts import Chart, Dot, Series, short, svg, y_ticks
from qperf_suite.cli import main
from qperf_suite.comparison import changes
from qperf_suite.costs import costs
from qperf_suite.errors import UsageError
from qperf_suite.goals import CAUSES, NO_CAUSE, NOT_MEASURED, Cause, read_causes, shortfalls
from qperf_suite.outcome import load
from qperf_suite.plans import PLANS, Part, Plan
from qperf_suite.plots import plots
from qperf_suite.published import published_ratio, published_value
from qperf_suite.raster import missing, png
from qperf_suite.report import write
from qperf_suite.statistics import Ratio, interval
from qperf_suite.store import Store
from qperf_suite.tables import not_ahead_table, summary_table
from qperf_suite.workloads import Case
from tests.fakes.suite_run import invented

SMALL = Plan("quick", [Part("pairs", [Case("same-host", "tcp_lat", size) for size in (1, 2, 4)])])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    invented(folder, PLANS["published"]())
    write(folder)
    return folder


def test_the_html_needs_nothing_else_and_is_small(published: Path) -> None:
    page = (published / "report.html").read_text()
    assert len(page) < 5_000_000
    foreign = re.findall(r'(?:src|href)="(?!data:)([^"]*)"|url\(', page)
    assert foreign == []
    assert "<script" not in page
    assert "Fast &amp; Co." in page
    assert "bridge: &lt;fast&gt; &amp; clear text" in page


def test_every_plot_is_a_file_and_in_the_page(published: Path) -> None:
    names = {path.stem for path in (published / "plots").iterdir()}
    wanted = {f"{where}-{test}" for where in ("same-host", "across-hosts") for test in TESTS}
    assert wanted <= names
    assert {"same-host-tcp_lat-ratio", "across-hosts-tcp_bw-per-cpu"} <= names
    page = (published / "report.html").read_text()
    assert page.count("<svg") == len(names) == 2 * (4 + 4 + 2 + 3)
    for path in (published / "plots").glob("*.svg"):
        ElementTree.parse(path)


def test_every_plot_is_a_picture_too_with_its_words(published: Path) -> None:
    drawn = {path.stem for path in (published / "plots").glob("*.svg")}
    pictures = list((published / "plots").glob("*.png"))
    assert {path.stem for path in pictures} == drawn
    for path in pictures:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", content[16:24]) == (920, 640)
    document = (published / "plots" / "same-host-mtr-crowd.svg").read_text()
    assert png(document) != png(re.sub(r">[^<>]+</text>", "></text>", document))


def test_without_a_font_there_are_no_pictures_and_the_report_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fontless = partial(resvg_py.svg_to_bytes, skip_system_fonts=True)
    monkeypatch.setattr(resvg_py, "svg_to_bytes", fontless)
    missing.cache_clear()
    invented(tmp_path, SMALL)
    try:
        assert main(["report", str(tmp_path)]) == 0
    finally:
        missing.cache_clear()
    assert "apt-get install fonts-dejavu-core" in capsys.readouterr().err
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".svg"}


TESTS = ("tcp_lat", "tcp_bw", "udp_lat", "udp_bw", "mtr-crowd", "iperf3-crowd")


def test_tables_have_every_row_of_the_published_layout(published: Path) -> None:
    page = (published / "report.html").read_text()
    for title in (
        "TCP with qperf, same host",
        "UDP with qperf, across hosts",
        "Guests that talk at the same time, same host",
        "Percentiles of round trips, across hosts",
        "Ratios of vhost-user, same host",
        "CPU time of guests and switches (of the machine), UDP with qperf, same host",
        "CPU time of guests and switches (of the machine), iperf3, across hosts",
        "What the published text claims",
        "What is not ahead, and why",
    ):
        assert f"<h2>{title}</h2>" in page, title
    text = (published / "report.md").read_text()
    assert "| 128 MiB |" in text
    assert "| 14 |" in text
    assert "plots/same-host-tcp_lat.svg" in text


def test_rates_without_loss_have_a_table_and_plots(tmp_path: Path) -> None:
    invented(tmp_path, PLANS["lossless"]())
    write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "## UDP datagrams per second (MLRsearch), across hosts" in text
    assert "masquerade with half a percent lost |" in text
    assert "| packets without loss against bridge | 4 | 0 | 0 | 0 |" in text
    assert "| latency against" not in text
    names = {path.stem for path in (tmp_path / "plots").glob("*.svg")}
    assert names == {
        f"{where}-lossless{what}"
        for where in ("same-host", "across-hosts")
        for what in ("", "-ratio")
    }
    rows = list(csv.DictReader(io.StringIO((tmp_path / "samples.csv").read_text())))
    assert all(float(row["half_percent_lost_per_s"]) > float(row["value"]) for row in rows)


def test_figures_and_samples_are_beside_it(published: Path) -> None:
    made = json.loads((published / "figures.json").read_text())
    assert len(made["samples"]) == 1692
    assert set(made["costs"]) == {"vhost-user", "bridge", "masquerade"}
    assert len((published / "samples.csv").read_text().splitlines()) == 1693


def test_a_report_of_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    invented(tmp_path, SMALL)
    lines = (tmp_path / "points.jsonl").read_text().splitlines()
    (tmp_path / "points.jsonl").write_text("\n".join(lines[:20]) + "\n")
    write(tmp_path)
    assert "7 missing: not finished" in (tmp_path / "report.html").read_text()


def test_there_is_no_report_without_points(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.adopt(SMALL)
    with pytest.raises(UsageError, match="no measured point"):
        write(tmp_path)


# ---- what is not ahead

LATENCIES = Plan("quick", [Part("pairs", [Case("same-host", "tcp_lat", size) for size in (1, 2)])])


def test_where_all_is_ahead_the_page_says_so(published: Path) -> None:
    # 27 latencies in each placement, 7 and 4 bandwidths, a link in each placement; two systems.
    row = "<td class=words>–</td><td class=words>–</td><td class=words>in 134 cases, and is so</td>"
    assert row in (published / "report.html").read_text()


def test_what_is_not_ahead_stands_first_with_the_cause_of_a_file(tmp_path: Path) -> None:
    invented(tmp_path, LATENCIES, ours=0.5)
    write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count(f"<td class=words>{NO_CAUSE}</td>") == 1
    assert page.count("<td class=words>″</td>") == 1
    assert len(re.findall(r">1 B: 0\.[\d.–() ]+; 2 B: 0\.", page)) == 2
    (tmp_path / CAUSES).write_text(
        """
        [[cause]]
        cases = "same-host/tcp_lat/1"
        against = "bridge"
        text = "one <copy> more, 12 % of the profile"
        [[cause]]
        cases = "same-host/tcp_*"
        text = "all of them"
        """
    )
    write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    text = (tmp_path / "report.md").read_text()
    assert page.count("one &lt;copy&gt; more, 12 % of the profile") == 1
    assert page.count("all of them") == text.count("| all of them |") == 1
    assert page.count("<td class=words>″</td>") == text.count("| ″ |") == 1
    assert NO_CAUSE not in page
    assert page.index("What is not ahead") < page.index("What the published text claims")


@pytest.mark.parametrize(
    ("case", "ratio", "missed"),
    [
        (Case("same-host", "tcp_lat", 32 * 1024), Ratio(1.1, 0.99, 1.3), True),
        (Case("same-host", "tcp_lat", 32 * 1024), Ratio(1.01, 1.005, 1.02), False),
        (Case("across-hosts", "udp_lat", 1), Ratio(1, 0.98, 1.02), True),
        (Case("same-host", "tcp_lat", 64 * 1024), Ratio(1.1, 0.99, 1.3), False),
        (Case("same-host", "tcp_lat", 64 * 1024), Ratio(0.8, 0.7, 0.9), True),
        (Case("same-host", "tcp_bw", 128), Ratio(1, 0.98, 1.02), False),
        (Case("same-host", "tcp_bw", 8192), Ratio(1, 0.96, 1.02), True),
        (Case("same-host", "tcp_bw", 64), Ratio(1, 0.96, 1.02), False),
        (Case("across-hosts", "tcp_bw", 1024), Ratio(1, 0.96, 1.02), False),
        (Case("across-hosts", "iperf3", guests=14), Ratio(1, 0.98, 1.02), True),
        (Case("across-hosts", "iperf3", guests=12), Ratio(1, 0.98, 1.02), False),
    ],
)
def test_what_is_wanted(case: Case, ratio: Ratio, missed: bool) -> None:
    found = shortfalls({"vhost-user/masquerade": {case: ratio}})
    assert [shortfall.case for shortfall in found] == [case] * missed


def test_nothing_is_wanted_against_other_systems() -> None:
    row = {Case("same-host", "tcp_lat", 1): Ratio(1, 0.9, 1.1)}
    assert shortfalls({"vhost-user/another": row}, row) == []
    assert not_ahead_table({"vhost-user/another": row}, [], [*row]).rows == []


def test_what_was_planned_and_not_measured_is_listed_and_counted() -> None:
    ours, *absent = [Case("same-host", "tcp_lat", size) for size in (1, 2, 4, 128 * 1024)]
    compared = {"vhost-user/bridge": {ours: Ratio(2, 1.9, 2.1)}}
    planned = [ours, *absent]
    rows = not_ahead_table(compared, [Cause("*/131072", "too large")], planned).rows
    wanted = "latency below 64 KiB: ahead"
    assert rows == [
        [
            *("same host, tcp_lat", "bridge", "–"),
            *("not measured: 2 B, 4 B", wanted, NOT_MEASURED),
        ],
        ["same host, tcp_lat", "bridge", "–", "not measured: 128 KiB", "–", "too large"],
    ]
    assert summary_table(compared, planned).rows == [
        ["latency against bridge", "1", "0", "0", "0", "3"]
    ]


def test_a_case_that_failed_in_every_round_is_told(tmp_path: Path) -> None:
    invented(tmp_path, SMALL)
    lines = [json.loads(line) for line in (tmp_path / "points.jsonl").read_text().splitlines()]
    for line in lines:
        if (line["system"], line["case"]) == ("vhost-user", "same-host/tcp_lat/2"):
            del line["value"]
            line["failure"] = "no route"
    (tmp_path / "points.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    for other in ("bridge", "masquerade"):
        assert f"| same host, tcp_lat | {other} | – | not measured: 2 B |" in text
        assert f"| latency against {other} | 2 | 0 | 0 | 0 | 1 |" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[[cause]", "Expected"),
        ("[cause]\ncases = 1", "mapping"),
        ("[[cause]]\ncases = 'a'", "text"),
        ("[[cause]]\ncases = 'a'\ntext = 3", "are texts"),
        ("[[cause]]\ncases = 'a'\ntext = 'b'\nwhy = 'c'", "why"),
        ("[[causes]]\ncases = 'a'\ntext = 'b'", "all that may stand there"),
    ],
)
def test_a_wrong_file_of_causes_is_told(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / CAUSES).write_text(content)
    with pytest.raises(UsageError, match=rf"causes\.toml: .*{words}"):
        read_causes(tmp_path)


# ---- published figures


def test_published_figures_are_the_published_ones() -> None:
    assert published_value(Case("same-host", "tcp_lat", 1), "vhost-user") == 11.7
    assert published_value(Case("same-host", "udp_bw", 1024), "vhost-user") == 316
    assert published_value(Case("same-host", "iperf3", guests=14), "bridge") == 38.59
    assert published_value(Case("same-host", "pingpong", 64), "bridge") is None
    ratio = published_ratio(Case("same-host", "tcp_bw", 1024), "bridge")
    assert ratio == pytest.approx(274 / 731, abs=0.01)
    assert published_ratio(Case("same-host", "tcp_lat", 1), "bridge") == pytest.approx(42.6 / 11.7)


# ---- comparison of runs


def test_a_run_compared_with_itself_has_few_changes(tmp_path: Path) -> None:
    plan = replace(PLANS["published"]().filtered("same-host/tcp"), rounds=6)
    before, after = (load(invented(tmp_path / str(seed), plan, seed=seed)) for seed in (1, 2))
    table, words = changes(before, after)
    assert len(table.rows) <= 0.08 * 168
    assert "of 168 cases changed beyond noise; about 8 of so many" in words


def test_what_became_better_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, better in (("before", 1.0), ("after", 1.3)):
        invented(tmp_path / name, SMALL, better=better)
    assert main(["compare", str(tmp_path / "before"), str(tmp_path / "after")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("better\n") == 9
    assert "1.30 (" in printed
    assert "9 of 9 cases changed beyond noise" in printed


def test_runs_without_a_common_case_are_not_compared(tmp_path: Path) -> None:
    before = load(invented(tmp_path / "a", SMALL))
    after = load(invented(tmp_path / "b", PLANS["ci"]().filtered("mtr")))
    with pytest.raises(UsageError, match="in common"):
        changes(before, after)


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_folder_without_a_run_is_wrong_usage(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path)] * (2 if command == "compare" else 1)
    assert main([command, *folders]) == 2
    assert "holds no run" in capsys.readouterr().err


# ---- charts


def test_intervals_without_end_stay_in_the_picture() -> None:
    dots = [Dot(1, 10, 0, float("inf")), Dot(2, 20, 15, 25)]
    chart = Chart("t", "us", "x", [Series("s & t", dots)], {1.0: "1", 2.0: "2"}, line=1.0)
    root = ElementTree.fromstring(svg(chart))
    numbers = [float(text) for text in re.findall(r"(?<=[\s\dMHVL])-?\d+\.\d", svg(chart))]
    assert root.tag.endswith("svg")
    assert all(0 <= number <= 460 for number in numbers)


def test_the_interval_is_wide_and_what_was_seen_is_thin() -> None:
    dots = [Dot(1, 10, 8, 13, (5, 10, 40)), Dot(2, 20, 20, 20)]
    document = svg(Chart("t", "us", "x", [Series("s", dots)], {1.0: "1", 2.0: "2"}))
    wide = re.findall(r'd="M\S+ (\S+)V(\S+)" stroke="#0b62a4" stroke-width="4"', document)
    thin = re.findall(r'd="M\S+ (\S+)V(\S+)" stroke="#0b62a4"/', document)
    assert (len(wide), len(thin)) == (2, 1)
    (low, high), (least, most) = (map(float, marks[0]) for marks in (wide, thin))
    assert 44 <= most < high < low < least <= 280


def test_a_plot_shows_the_interval_of_the_median_and_the_rounds(published: Path) -> None:
    outcome = load(Store(published))
    case, chart = Case("same-host", "tcp_lat", 1), "same-host-tcp_lat"
    drawn = plots(outcome, {})[chart].series[0].dots[0]
    values = list(outcome.values("vhost-user", case).values())
    assert (drawn.low, drawn.high) == interval(values)
    assert drawn.seen == tuple(values)
    assert min(values) <= drawn.low < drawn.y < drawn.high <= max(values)


def test_busy_cpus_are_those_of_the_tables(published: Path) -> None:
    outcome = load(Store(published))
    dot = plots(outcome, {})["same-host-tcp_bw-per-cpu"].series[0].dots[0]
    cost = costs(outcome)["vhost-user"]["same-host/tcp_bw/1"]["ns_per_byte"]
    assert dot.y == pytest.approx(1e3 / cost)


def test_an_empty_chart_is_drawn() -> None:
    ElementTree.fromstring(svg(Chart("t", "us", "x", [Series("s", [])], {1.0: "1", 2.0: "2"})))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 10, [1, 2, 5, 10]),
        (0.3, 60, [0.5, 1, 2, 5, 10, 20, 50]),
        (0.9, 2.2, [1, 1.2, 1.4, 1.6, 1.8, 2, 2.2]),
        (0.98, 1.02, [0.98, 0.99, 1, 1.01, 1.02]),
        (110, 190, [120, 140, 160, 180]),
        (1, 1e5, [1, 10, 100, 1e3, 1e4, 1e5]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert y_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (1000, "1k"), (2e6, "2M"), (20, "20"), (5e9, "5G")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text
