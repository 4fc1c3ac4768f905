"""Parsers against captured output, and against what is left of it when something breaks."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from qperf_suite import parse
from qperf_suite.errors import GarbledOutputError, ToolError, ToolRefusedError, TruncatedOutputError
from qperf_suite.workloads import Case

Parser = Callable[[str], parse.Reading]
GOLDEN = Path(__file__).parent.parent / "golden" / "qperf"
TESTS = ("tcp_lat", "tcp_bw", "udp_lat", "udp_bw")
FORMS = ("plain", "uu", "ub", "v", "vv", "vs", "vvs", "vt", "vc", "all")
tcp_lat, tcp_bw, udp_lat, udp_bw = (partial(parse.qperf, test) for test in TESTS)


def datagrams(output: str) -> parse.Reading:
    """How many of 64 bytes were received."""
    return parse.Reading(parse.iperf3_udp(output, 64).received)


CAPTURED: list[tuple[str, Parser, float]] = [
    ("tcp_lat_uu_vu.txt", tcp_lat, 420.6984),
    ("tcp_lat_vvs.txt", tcp_lat, 10.8),
    ("tcp_lat_uu.txt", tcp_lat, 9.163),
    ("tcp_lat_3ms.txt", tcp_lat, 3300.0),
    ("tcp_lat_1200ms.txt", tcp_lat, 1330000.0),
    ("tcp_lat_all.txt", tcp_lat, 9.3),
    ("tcp_bw_ub.txt", tcp_bw, 190.0),
    ("tcp_bw_all.txt", tcp_bw, 92.6),
    ("tcp_bw_3ms.txt", tcp_bw, 0.568),
    ("tcp_bw_ub_3ms.txt", tcp_bw, 0.6275),
    ("udp_bw_all.txt", udp_bw, 121.0),
    ("udp_bw_uu_vu.txt", udp_bw, 16.475136),
    ("mtr.json", parse.mtr, 455.0),
    ("mtr_loss.json", parse.mtr, 221.0),
    ("mtr_report_3ms.txt", parse.mtr, 7300.0),
    ("mtr_report_wide.txt", parse.mtr, 100.0),
    ("iperf3.json", parse.iperf3, 4.526845369394392),
    ("iperf3_omit.json", parse.iperf3, 8.587627528194915),
    ("iperf3_udp.json", parse.iperf3, 0.05000092786638724),
    ("iperf3_udp_flood.json", datagrams, 92947),
]


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


FLOOD = golden("iperf3_udp_flood.json")


@pytest.mark.parametrize(("name", "parser", "expected"), CAPTURED)
def test_captured_output_gives_its_value(name: str, parser: Parser, expected: float) -> None:
    assert parser(golden(name)).value == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("test", TESTS)
def test_every_form_of_every_test_is_read(test: str, form: str) -> None:
    reading = parse.qperf(test, golden(f"{test}_{form}.txt"))
    if test.endswith("_lat"):
        assert 3 < reading.value < 100
    else:
        assert 50 < reading.value < 1000
    assert reading.details.get("msg_size_bytes", 1024) == 1024
    assert ("loss_percent" in reading.details) == (test == "udp_bw")


@pytest.mark.parametrize("test", TESTS)
def test_every_line_of_the_longest_form_is_read_and_they_agree(test: str) -> None:
    text = golden(f"{test}_all.txt")
    (block,) = parse.qperf_blocks(text)
    assert len(block.fields) == len(text.splitlines()) - 1
    reading = parse.qperf(test, text)
    rate, unit = block.fields["msg_rate"]
    assert unit == "K/sec"
    expected = 1e3 / rate if test.endswith("_lat") else rate * 1024 / 1e3
    assert reading.value == pytest.approx(expected, rel=0.01)


def test_a_loop_is_one_block_for_each_size() -> None:
    blocks = parse.qperf_blocks(golden("tcp_bw_loop.txt"))
    assert [block.test for block in blocks] == ["tcp_bw"] * 3 + ["tcp_lat"] * 3
    assert [block.fields["msg_size"] for block in blocks[:3]] == [
        (1.0, "bytes"),
        (8.0, "bytes"),
        (64.0, "bytes"),
    ]


def test_loss_and_retransmissions_are_told() -> None:
    assert parse.mtr(golden("mtr_loss.json")).details["loss_percent"] > 0
    assert parse.mtr(golden("mtr_report_loss.txt")).details["loss_percent"] > 0
    assert parse.iperf3(golden("iperf3_omit.json")).details["retransmits"] == 16006
    assert udp_bw(golden("udp_bw_all.txt")).details["loss_percent"] == pytest.approx(35.3, abs=0.1)


def test_datagrams_are_sent_received_unread_or_lost() -> None:
    trial = parse.iperf3_udp(FLOOD, 64)
    assert trial == parse.Trial(sent=93836, received=92947, unread=92, buffer_bytes=212992)
    assert trial.sent - trial.unread - trial.received == 797
    whole = parse.iperf3_udp(golden("iperf3_udp.json"), 1448)
    assert (whole.sent, whole.received, whole.unread) == (4317, 4317, 0)


@pytest.mark.parametrize(("name", "parser", "expected"), CAPTURED)
def test_truncated_output_gives_the_value_or_an_error(
    name: str, parser: Parser, expected: float
) -> None:
    text = golden(name)
    errors = 0
    for length in range(len(text)):
        try:
            assert parser(text[:length]).value == pytest.approx(expected)
        except ToolError:
            errors += 1
    assert errors > 0


@pytest.mark.parametrize(("name", "parser", "expected"), CAPTURED)
def test_garbled_output_gives_a_value_or_an_error(
    name: str, parser: Parser, expected: float
) -> None:
    """Bytes lost, doubled, replaced or in another order: never another exception, nor nonsense."""
    text = golden(name)
    rng = random.Random(name)
    for _ in range(300):
        at, length = rng.randrange(len(text)), rng.randrange(1, 12)
        noise = "".join(rng.choices('\0\n =:,.{}[]"e-9Ω%', k=length))
        broken = rng.choice(
            [
                text[:at] + text[at + length :],
                text[:at] + text[at : at + length] * 2 + text[at + length :],
                text[:at] + noise + text[at + length :],
                text[at:] + text[:at],
            ]
        )
        try:
            assert 0 < parser(broken).value < float("inf")
        except ToolError:
            continue


@pytest.mark.parametrize(
    ("parser", "text", "error", "words"),
    [
        (tcp_lat, "", TruncatedOutputError, "printed nothing"),
        (tcp_lat, "tcp_lat:\n", TruncatedOutputError, "no latency"),
        (tcp_lat, "tcp_lat:\n    latency  =  12", GarbledOutputError, "in ''"),
        (tcp_lat, "tcp_lat:\n    latency  =", TruncatedOutputError, "not whole"),
        (tcp_lat, golden("unreachable.txt"), ToolRefusedError, "failed to connect"),
        (tcp_lat, golden("refused.txt"), ToolRefusedError, "10.7.0.1: failed to connect"),
        (tcp_lat, golden("bad_option.txt"), ToolRefusedError, "bad option"),
        (tcp_lat, golden("unknown_test.txt"), ToolRefusedError, "tcp_latency: bad test"),
        (tcp_lat, "tcp_lat:\n    latency  =  0 ns\n", GarbledOutputError, "is 0"),
        (tcp_lat, "tcp_lat:\n    latency  =  1.2.3 us\n", GarbledOutputError, "1.2.3"),
        (tcp_lat, "tcp_lat:\n    latency  =  1,23 us\n", GarbledOutputError, "1,23"),
        (tcp_lat, "tcp_lat:\n    latency  =  3 fortnights\n", GarbledOutputError, "fortnights"),
        (tcp_lat, golden("tcp_lat_uu.txt") * 2, GarbledOutputError, "tcp_lat, tcp_lat"),
        (
            tcp_lat,
            "tcp_lat:\n    latency  =  3 us\n    latency  =  4 us\n",
            GarbledOutputError,
            "latency twice",
        ),
        (tcp_bw, golden("tcp_bw_1200ms.txt"), GarbledOutputError, "bw is 0"),
        (tcp_bw, golden("tcp_bw_ub_1200ms.txt"), GarbledOutputError, "bw is 0"),
        (tcp_bw, golden("tcp_lat_vvs.txt"), GarbledOutputError, "tcp_lat instead of tcp_bw"),
        (udp_lat, golden("udp_lat_uu_e7_vu.txt"), GarbledOutputError, "latency is 0"),
        (udp_bw, golden("udp_bw_uu_e7_vu.txt"), GarbledOutputError, "recv_bw is 0"),
        (parse.mtr, golden("mtr_unreachable.json"), ToolRefusedError, "did not reach 10.5.1.77"),
        (parse.mtr, golden("mtr_095_unreachable.json"), ToolRefusedError, "10.7.0.9: nobody"),
        (parse.mtr, golden("mtr_report_unreachable.txt"), ToolRefusedError, "nobody answered"),
        (parse.mtr, golden("mtr.json").replace("0.0,", "100.0,"), ToolRefusedError, "loss 100"),
        (
            parse.mtr,
            golden("mtr.json").replace('"Avg": ', '"Avg": 9'),
            GarbledOutputError,
            "extremes",
        ),
        (parse.mtr, golden("mtr_report.txt").replace(" 0.1 ", " 0.0 "), GarbledOutputError, "is 0"),
        (parse.mtr, golden("mtr.json")[:200], TruncatedOutputError, "no JSON"),
        (parse.mtr, '{"report": {"mtr": 1, "hubs": []}}', GarbledOutputError, "no result"),
        (parse.mtr, "mtr: unexpected mtr-packet error", ToolRefusedError, "mtr-packet error"),
        (parse.iperf3, golden("iperf3_unreachable.json"), ToolRefusedError, "No route to host"),
        (parse.iperf3, golden("iperf3_refused.json"), ToolRefusedError, "Connection refused"),
        (parse.iperf3, golden("iperf3_text.txt"), ToolRefusedError, "Connecting to host"),
        (parse.iperf3, "[1]", GarbledOutputError, "no result"),
        (datagrams, golden("iperf3_refused.json"), ToolRefusedError, "Connection refused"),
        (datagrams, golden("iperf3_lossy.json"), GarbledOutputError, "did not send 64 B"),
        (datagrams, golden("iperf3_udp.json"), GarbledOutputError, "did not send 64 B"),
        (datagrams, FLOOD.replace("5948608", "5948609"), GarbledOutputError, "received"),
        (datagrams, FLOOD.replace("93836", "90000"), GarbledOutputError, "sent 90000"),
        (datagrams, FLOOD.replace("rcvbuf_actual", "buffer"), GarbledOutputError, "no result"),
        (datagrams, FLOOD[:900], TruncatedOutputError, "no JSON"),
        (
            parse.iperf3,
            golden("iperf3.json").replace('"bits_per_second":\t', '"bits_per_second":\t"x",'),
            GarbledOutputError,
            "no JSON",
        ),
    ],
)
def test_wrong_output_is_a_named_error(
    parser: Parser, text: str, error: type[ToolError], words: str
) -> None:
    with pytest.raises(error, match=words.replace(".", r"\.")):
        parser(text)


def test_another_message_size_than_asked_for_is_an_error() -> None:
    case = Case("same-host", "tcp_bw", 1024)
    assert case.parse(golden("tcp_bw_all.txt")).value == pytest.approx(92.6)
    with pytest.raises(GarbledOutputError, match="65536"):
        case.parse(golden("tcp_bw_uu_e7_vu.txt"))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("21.5 us", 21.5), ("21500 ns", 21.5), ("1.25 ms", 1250.0), ("2 sec", 2e6)],
)
def test_units_of_latency(printed: str, expected: float) -> None:
    output = f"udp_lat:\n    latency  =  {printed}\n"
    assert udp_lat(output).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("1,250,000 bytes/sec", 1.25),
        ("12 bytes/sec", 12e-6),
        ("803.7 MB/sec", 803.7),
        ("1.329 GB/sec", 1329.0),
        ("10.6 Gb/sec", 1325.0),
        ("80 Kb/sec", 0.01),
        ("80 bits/sec", 1e-5),
    ],
)
def test_units_of_bandwidth(printed: str, expected: float) -> None:
    output = f"tcp_bw:\n    bw  =  {printed}\n"
    assert tcp_bw(output).value == pytest.approx(expected)
