"""Order of measuring, the table, the JSON, and what the command line refuses: no privilege."""

import io
import json
from pathlib import Path

import pytest

from qperf_suite.cli import main, pinning
from qperf_suite.progress import Progress
from qperf_suite.report import report
from qperf_suite.runner import Failure, Outcome, Plan, Sample, order
from qperf_suite.table import claims, significant, table
from qperf_suite.workloads import Case, demo_cases

LATENCY = Case("same-host", "tcp_lat", 1)
BANDWIDTH = Case("across-hosts", "tcp_bw", 65536)


def outcome() -> Outcome:
    plan = Plan(cases=[LATENCY, BANDWIDTH], rounds=3)
    factor = {"vhost-user": 1.0, "bridge": 2.0, "masquerade": 3.0}
    samples = [
        Sample(number, system, case, 10.0 * factor[system] + number / 10)
        for number, system, case in order(plan)
        if not (system == "masquerade" and case == BANDWIDTH)
    ]
    failures = [Failure(0, "masquerade", BANDWIDTH, "10.6.1.3: failed to connect")]
    return Outcome(plan, samples, failures, ["bridge: fast"], 12.0)


def test_every_point_once_per_round_and_systems_take_turns_within_a_case() -> None:
    plan = Plan(cases=[LATENCY, BANDWIDTH], rounds=4)
    points = order(plan)
    assert len(points) == len(set(points)) == 4 * 2 * 3
    groups = [points[start : start + 3] for start in range(0, len(points), 3)]
    assert all(len({(number, case) for number, _, case in group}) == 1 for group in groups)
    assert {group[0][1] for group in groups} == set(plan.systems)


def test_names_of_cases() -> None:
    names = [case.name for case in demo_cases()]
    assert len(names) == len(set(names)) == 24
    assert {"same-host/tcp_lat/1", "across-hosts/tcp_bw/65536", "same-host/mtr"} <= set(names)


@pytest.mark.parametrize(
    ("case", "command"),
    [
        (BANDWIDTH, "qperf -t 2 -uu -e 7 -vu -m 65536 10.5.0.3 tcp_bw"),
        (Case("same-host", "mtr"), "mtr --json --no-dns -G 1 -i 0.1 -c 20 10.5.0.3"),
        (Case("same-host", "iperf3"), "iperf3 --json --time 2 --client 10.5.0.3"),
    ],
)
def test_commands(case: Case, command: str) -> None:
    assert case.command("10.5.0.3", 2) == command


def test_table_fits_the_terminal_and_shows_what_failed() -> None:
    text = table(outcome())
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "10.1 ±1%" in text
    assert "failed: across-hosts/tcp_bw/65536 on masquerade, round 1" in text
    assert "- bridge: fast" in text


def test_claims_say_who_is_ahead_and_by_how_much() -> None:
    sentences = claims(outcome())
    assert len(sentences) == 3
    assert any("TCP latency at 1 B: vhost-user is ahead of bridge, 1.99" in s for s in sentences)
    assert any("TCP bandwidth at 64 KiB: vhost-user is behind bridge" in s for s in sentences)


def test_json_has_the_promised_form() -> None:
    made = json.loads(json.dumps(report(outcome())))
    assert set(made) >= {"environment", "samples", "ratios"}
    assert set(made["samples"][0]) == {"system", "case", "unit", "value"}
    assert made["ratios"]["vhost-user/bridge"]["same-host/tcp_lat/1"] == pytest.approx(1.99, 0.01)
    assert "across-hosts/tcp_bw/65536" not in made["ratios"]["vhost-user/masquerade"]
    assert made["failures"][0]["words"] == "10.6.1.3: failed to connect"


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
    assert pinning(allowed) == places


def test_progress_off_a_terminal_prints_plain_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.begin(2)
    progress.step("first")
    progress.step("second, too soon to be printed")
    progress.say("a word")
    progress.end()
    assert stream.getvalue() == "[0/2] first, time left unknown\na word\n"
