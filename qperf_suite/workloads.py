"""What is measured: cases, the commands that measure them, the unit of the answer."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from qperf_suite import parse

PLACEMENTS = {"same-host": ("a1", "a2"), "across-hosts": ("a1", "b1")}
TCP_SIZES_BYTES = (1, 1024, 65536)
UDP_SIZES_BYTES = (1, 1024)
SERVERS = ("qperf", "iperf3 -s")
MTR_INTERVAL_S = 0.1


class Kind(Enum):
    """What a case says about a network."""

    LATENCY = "latency"
    BANDWIDTH = "bandwidth"


@dataclass(frozen=True)
class Test:
    """One way of measuring. parser: tool's output → value in unit, or ToolError."""

    name: str
    kind: Kind
    unit: str
    parser: Callable[[str], float]


TESTS = {
    test.name: test
    for test in (
        Test("tcp_lat", Kind.LATENCY, "us", parse.qperf_latency_us),
        Test("tcp_bw", Kind.BANDWIDTH, "MB/s", parse.qperf_bandwidth_mbytes),
        Test("udp_lat", Kind.LATENCY, "us", parse.qperf_latency_us),
        Test("udp_bw", Kind.BANDWIDTH, "MB/s", parse.qperf_received_mbytes),
        Test("mtr", Kind.LATENCY, "us", parse.mtr_average_us),
        Test("iperf3", Kind.BANDWIDTH, "Gbit/s", parse.iperf3_gbits),
    )
}


@dataclass(frozen=True)
class Case:
    """One cell of the table: where, what, and with which message size (None: the tool's own)."""

    placement: str
    test: str
    size_bytes: int | None = None

    @property
    def name(self) -> str:
        """As in the JSON: "same-host/tcp_lat/1", "across-hosts/mtr"."""
        size = "" if self.size_bytes is None else f"/{self.size_bytes}"
        return f"{self.placement}/{self.test}{size}"

    @property
    def kind(self) -> Kind:
        """Latencies are better small, bandwidths large."""
        return TESTS[self.test].kind

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return TESTS[self.test].unit

    @property
    def label(self) -> str:
        """For people, without the placement: "tcp_lat 64 KiB"."""
        if self.size_bytes is None:
            return self.test
        if self.size_bytes < 1024:
            return f"{self.test} {self.size_bytes} B"
        return f"{self.test} {self.size_bytes // 1024} KiB"

    def command(self, address: str, seconds: int) -> str:
        """The shell command that measures this against the guest at an address."""
        if self.test == "mtr":
            count = round(seconds / MTR_INTERVAL_S)
            # -G: how long to wait for the last answer, five seconds unless told.
            return f"mtr --json --no-dns -G 1 -i {MTR_INTERVAL_S} -c {count} {address}"
        if self.test == "iperf3":
            return f"iperf3 --json --time {seconds} --client {address}"
        # -uu: units that do not change with the value; -e: digits; -vu: prints the message size.
        return f"qperf -t {seconds} -uu -e 7 -vu -m {self.size_bytes} {address} {self.test}"

    def parse(self, output: str) -> float:
        """The value in what the tool printed; raises ToolError."""
        return TESTS[self.test].parser(output)


def demo_cases() -> list[Case]:
    """The cases of the demonstration, in the order of the table."""
    cases = []
    for placement in PLACEMENTS:
        cases += [Case(placement, "tcp_lat", size) for size in TCP_SIZES_BYTES]
        cases += [Case(placement, "udp_lat", size) for size in UDP_SIZES_BYTES]
        cases += [Case(placement, "tcp_bw", size) for size in TCP_SIZES_BYTES]
        cases += [Case(placement, "udp_bw", size) for size in UDP_SIZES_BYTES]
        cases += [Case(placement, "mtr"), Case(placement, "iperf3")]
    return cases
