"""Order of measuring, the table, the JSON, and what the command line refuses: no privilege."""

import csv
import io
import json
import os
from pathlib import Path
from typing import cast

import pytest

from qperf_suite.cli import main
from qperf_suite.figures import figures, samples_csv
from qperf_suite.outcome import Failure, Outcome, Sample
from qperf_suite.parse import Reading
from qperf_suite.plans import GUESTS, PLANS, Part, Plan, pinning
from qperf_suite.progress import Progress
from qperf_suite.system import Stage
from qperf_suite.table import claims, ratios, significant, table
from qperf_suite.topology import Topology
from qperf_suite.workloads import Case, Pace

LATENCY = Case("same-host", "tcp_lat", 1)
BANDWIDTH = Case("across-hosts", "tcp_bw", 65536)


PART = Part("pairs", [LATENCY, BANDWIDTH])


def outcome() -> Outcome:
    plan = Plan("quick", [PART])
    factor = {"vhost-user": 1.0, "bridge": 2.0, "masquerade": 3.0}
    samples = [
        Sample(
            point.round,
            point.system,
            point.case,
            10.0 * factor[point.system] + point.round / 10,
            {"loss_percent": 0.5},
            {"machine_s": 1.5},
        )
        for point in plan.points(PART)
        if not (point.system == "masquerade" and point.case == BANDWIDTH)
    ]
    failures = [Failure(0, "masquerade", BANDWIDTH, "10.6.1.3: failed to connect")]
    return Outcome(plan, samples, failures, ["bridge: fast"])


def test_every_point_once_per_round_and_systems_take_turns_within_a_case() -> None:
    plan = Plan("quick", [PART], rounds=8)
    points = plan.points(PART)
    assert len(points) == len({point.name for point in points}) == 8 * 2 * 3
    groups = [points[start : start + 3] for start in range(0, len(points), 3)]
    assert all(len({(point.round, point.case) for point in group}) == 1 for group in groups)
    assert {group[0].system for group in groups} == set(plan.systems)
    assert [point.round for point in points] == sorted(point.round for point in points)


def test_the_order_is_random_and_the_same_for_the_same_seed() -> None:
    orders = [Plan("quick", [PART], rounds=8, seed=seed).points(PART) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_names_of_cases_are_unique() -> None:
    for make in PLANS.values():
        names = [case.name for case in make().cases]
        assert len(names) == len(set(names))
    names = [case.name for case in PLANS["published"]().cases]
    assert {"same-host/tcp_lat/134217728", "across-hosts/mtr/14-guests"} <= set(names)
    assert len([name for name in names if "tcp_bw" in name]) == 2 * 28
    assert len([name for name in names if "udp_lat" in name]) == 2 * 11
    assert len([name for name in names if "iperf3" in name or "mtr" in name]) == 4 * 7


def test_plans_keep_their_promises_of_time() -> None:
    assert PLANS["published"]().total_s() < 3 * 3600
    assert PLANS["quick"]().total_s() < 10 * 60


def test_a_filter_leaves_out_parts_without_cases() -> None:
    plan = PLANS["published"]().filtered("same-host/mtr")
    assert [part.name for part in plan.parts] == ["crowd-same-host"]
    assert len(plan.cases) == 7


@pytest.mark.parametrize(
    ("text", "count", "guests"),
    [
        ("same-host/tcp_lat/1", 9, ["a1", "a2"]),
        ("*/tcp_lat/1", 2, ["a1", "a2", "b1"]),
        ("across-hosts/*lat/1", 2, ["a1", "b1"]),
        ("same-host/???_lat/[16]4", 2, ["a1", "a2"]),
        ("tcp_lat/?", 0, []),
    ],
)
def test_a_filter_is_a_text_or_a_pattern_and_boots_whom_it_needs(
    text: str, count: int, guests: list[str]
) -> None:
    plan = PLANS["published"]().filtered(text)
    assert len(plan.cases) == count
    assert [guest for part in plan.parts for guest in part.guests] == guests
    assert PLANS["published"]().filtered("") == PLANS["published"]()


def test_who_talks_with_whom() -> None:
    assert Case("same-host", "mtr", guests=4).pairs == [("a1", "a2"), ("a3", "a4")]
    assert Case("across-hosts", "mtr", guests=4).pairs == [("a1", "b1"), ("a2", "b2")]
    for part in PLANS["published"]().parts:
        for case in part.cases:
            assert {guest for pair in case.pairs for guest in pair} <= set(part.guests)


@pytest.mark.parametrize("allowed", [range(2), range(3), range(8), range(64)])
def test_nobody_shares_a_cpu_with_whom_it_talks_to(allowed: range) -> None:
    for part in PLANS["published"]().parts:
        cpus = pinning(part.guests, allowed)
        assert cpus is not None
        for case in part.cases:
            assert all(cpus[client] != cpus[server] for client, server in case.pairs)


@pytest.mark.parametrize(
    ("case", "command"),
    [
        (BANDWIDTH, "qperf -t 2 -uu -e 7 -vu -m 65536 10.5.0.3 tcp_bw"),
        (Case("same-host", "mtr"), "mtr --json --no-dns -G 1 -i 0.1 -c 20 10.5.0.3"),
        (Case("same-host", "iperf3"), "iperf3 --json --time 2 --omit 1 --client 10.5.0.3"),
        (Case("same-host", "pingpong", 64), "pingpong 7402 10.5.0.3 2000 64"),
        (
            Case("same-host", "tcp_lat", 1 << 24),
            "qperf -t 6 -uu -e 7 -vu -m 16777216 10.5.0.3 tcp_lat",
        ),
    ],
)
def test_commands(case: Case, command: str) -> None:
    pace = Pace(qperf_s=2, large_s=6, mtr_cycles=20, iperf_s=2, iperf_omit_s=1)
    assert case.command("10.5.0.3", pace) == command


def test_readings_of_a_crowd_are_joined() -> None:
    readings = [
        Reading(2.0, {"retransmits": 3, "loss_percent": 1}),
        Reading(4.0, {"retransmits": 4, "loss_percent": 3}),
    ]
    total = Case("same-host", "iperf3", guests=4).join(readings)
    assert total.value == 6.0
    assert total.details == {
        "retransmits": 7,
        "loss_percent": 2,
        "per_guest": 3.0,
        "worst_guest": 2.0,
    }
    mean = Case("same-host", "mtr", guests=4).join(readings)
    assert (mean.value, mean.details["worst_guest"]) == (3.0, 4.0)
    assert Case("same-host", "mtr").join(readings[:1]) == readings[0]


def test_table_fits_the_terminal_and_shows_what_failed() -> None:
    text = table(outcome(), ratios(outcome()))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "10.1 ±1%" in text
    assert "failed: across-hosts/tcp_bw/65536 on masquerade, round 1" in text
    assert "- bridge: fast" in text


def test_claims_say_who_is_ahead_and_by_how_much() -> None:
    sentences = claims(ratios(outcome()))
    assert len(sentences) == 3
    assert any("TCP latency at 1 B: vhost-user is ahead of bridge, 1.99" in s for s in sentences)
    assert any("TCP bandwidth at 64 KiB: vhost-user is behind bridge" in s for s in sentences)


def test_json_has_the_promised_form() -> None:
    made = json.loads(json.dumps(figures(outcome(), {"cpu": "fast"}, ratios(outcome()))))
    assert set(made) >= {"environment", "samples", "ratios"}
    assert set(made["samples"][0]) >= {"system", "case", "unit", "value"}
    assert made["ratios"]["vhost-user/bridge"]["same-host/tcp_lat/1"] == pytest.approx(1.99, 0.01)
    assert "across-hosts/tcp_bw/65536" not in made["ratios"]["vhost-user/masquerade"]
    assert made["failures"][0]["words"] == "10.6.1.3: failed to connect"


def test_csv_has_a_row_for_each_sample() -> None:
    rows = list(csv.DictReader(io.StringIO(samples_csv(outcome()))))
    assert len(rows) == 15
    row = next(row for row in rows if row["system"] == "bridge" and row["test"] == "tcp_lat")
    assert (row["message_bytes"], row["guests"], row["unit"]) == ("1", "2", "us")
    assert (row["loss_percent"], row["cpu_machine_s"], row["p99_us"]) == ("0.5", "1.5", "")


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (45.67, "45.7"), (4.567, "4.57"), (0.0721, "0.072")]
)
def test_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["demo", "--rounds", "0"], "1 to 1000"),
        (["demo", "--seconds", "x"], "1 to 1000"),
        (["demo", "--systems", "bridge,ovs"], "choose each once"),
        (["demo", "--systems", "bridge,bridge"], "choose each once"),
        (["demo", "--systems", "bridge,ovs-dpdk"], "only vhost-user has"),
    ],
)
def test_wrong_arguments_end_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--filter", "sctp"], "no case is called so"),
        (["demo", "--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
    ],
)
def test_impossible_wishes_end_with_2_before_anything_starts(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("allowed", "places"),
    [
        ({3}, None),
        ({2, 5}, {"a1": [2], "a2": [5], "b1": [5], "b2": [2]}),
        (range(8), {"a1": [0], "a2": [1], "b1": [2], "b2": [3]}),
    ],
)
def test_guests_that_talk_are_not_on_one_cpu(
    allowed: set[int], places: dict[str, list[int]] | None
) -> None:
    assert pinning(GUESTS, allowed) == places


def test_progress_off_a_terminal_prints_plain_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.begin(2, 3700)
    assert not progress.moved()
    progress.step("first", 100)
    progress.step("second, too soon to be printed", 100)
    assert progress.moved()
    progress.say("a word")
    progress.end()
    assert stream.getvalue() == "[1/2] first, about 1:01:40 left\na word\n"


def test_time_left_follows_the_pace_and_what_is_repeated_is_not_counted_twice() -> None:
    stream, now_s = io.StringIO(), [0.0]
    progress = Progress(stream, lambda: now_s[0])
    progress.begin(2, 60 + 60 + 120)
    for what, took_s in (("booting", 180.0), ("first", 60.0), ("booting", 60.0), ("first", 60.0)):
        act = progress.note if what == "booting" else progress.step
        act(what, 60)
        now_s[0] += took_s
    progress.step("last", 120)
    assert stream.getvalue().splitlines() == [
        "booting",
        "[1/2] first, about 0:06:00 left",
        "booting",
        "[1/2] first, about 0:04:30 left",
        "[2/2] last, about 0:02:48 left",
    ]
    progress.skip(120)


def test_where_switches_work_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5})
    stage = Stage(cast(Topology, None), tmp_path)
    assert stage.workers_text() == "workers of switches: of host a on CPU 2, of host b on CPU 5"
