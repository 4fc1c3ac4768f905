"""Parsers against captured output, and against what is left of it when something breaks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qperf_suite import parse
from qperf_suite.errors import ToolError

GOLDEN = Path(__file__).parent.parent / "golden" / "qperf"
CAPTURED: list[tuple[str, Callable[[str], float], float]] = [
    ("tcp_lat_uu_vu.txt", parse.qperf_latency_us, 420.6984),
    ("tcp_lat_vvs.txt", parse.qperf_latency_us, 512.6),
    ("tcp_bw_uu.txt", parse.qperf_bandwidth_mbytes, 778.305536),
    ("udp_bw_uu_vu.txt", parse.qperf_received_mbytes, 16.475136),
    ("udp_bw_vvs.txt", parse.qperf_received_mbytes, 16.7),
    ("mtr.json", parse.mtr_average_us, 455.0),
    ("iperf3.json", parse.iperf3_gbits, 4.526845369394392),
]


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


@pytest.mark.parametrize(("name", "parser", "expected"), CAPTURED)
def test_captured_output_gives_its_value(
    name: str, parser: Callable[[str], float], expected: float
) -> None:
    assert parser(golden(name)) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "parser", "expected"), CAPTURED)
def test_truncated_output_gives_the_value_or_an_error(
    name: str, parser: Callable[[str], float], expected: float
) -> None:
    text = golden(name)
    errors = 0
    for length in range(0, len(text), 7):
        # A number cut in the middle cannot be told from a short one; whole lines can.
        whole_lines = text[:length].rpartition("\n")[0]
        try:
            assert parser(whole_lines) == pytest.approx(expected)
        except ToolError:
            errors += 1
    assert errors > 0


@pytest.mark.parametrize(
    ("parser", "text", "words"),
    [
        (parse.qperf_latency_us, golden("unreachable.txt"), "failed to connect"),
        (parse.qperf_latency_us, "tcp_lat:\n    latency  =  0 ns\n", "is 0"),
        (parse.qperf_latency_us, "tcp_lat:\n    latency  =  1.2.3 us\n", "1.2.3"),
        (parse.qperf_latency_us, "tcp_lat:\n    latency  =  3 fortnights\n", "fortnights"),
        (parse.qperf_bandwidth_mbytes, golden("tcp_lat_vvs.txt"), "no bw"),
        (parse.mtr_average_us, golden("mtr_unreachable.json"), "did not reach 10.5.1.77"),
        (parse.mtr_average_us, golden("mtr.json").replace("0.0,", "100.0,"), "loss 100"),
        (parse.mtr_average_us, '{"report": {"hubs": []}}', "no report"),
        (parse.mtr_average_us, "[]", "no report"),
        (parse.mtr_average_us, "mtr: unexpected mtr-packet error", "mtr-packet error"),
        (parse.iperf3_gbits, golden("iperf3_unreachable.json"), "No route to host"),
        (parse.iperf3_gbits, "[1]", "no result"),
        (parse.iperf3_gbits, '{"end": {"sum_received": {"bits_per_second": 0}}}', "rate is 0"),
    ],
)
def test_wrong_output_is_an_error_with_the_tools_words(
    parser: Callable[[str], float], text: str, words: str
) -> None:
    with pytest.raises(ToolError, match=words.replace(".", r"\.")):
        parser(text)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("21.5 us", 21.5), ("21500 ns", 21.5), ("1.25 ms", 1250.0), ("2 sec", 2e6)],
)
def test_units_of_latency(printed: str, expected: float) -> None:
    output = f"udp_lat:\n    latency  =  {printed}\n"
    assert parse.qperf_latency_us(output) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("1,250,000 bytes/sec", 1.25), ("803.7 MB/sec", 803.7), ("1.329 GB/sec", 1329.0)],
)
def test_units_of_bandwidth(printed: str, expected: float) -> None:
    output = f"tcp_bw:\n    bw  =  {printed}\n"
    assert parse.qperf_bandwidth_mbytes(output) == pytest.approx(expected)
