"""What is measured: cases, the commands that measure them, the unit of the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from statistics import fmean

from qperf_suite import parse
from qperf_suite.errors import GarbledOutputError
from qperf_suite.parse import Reading

KIB, MIB = 1024, 1024 * 1024
PINGPONG_PORT = 7402
PINGPONG, LOSSLESS = "pingpong", "lossless"
PLACEMENTS = ("same-host", "across-hosts")
SERVERS = ("qperf", "iperf3 -s", f"pingpong {PINGPONG_PORT}")
LARGE_BYTES = 16 * MIB
# Connecting, and the way of a command into a guest; 0.1 s was measured for a pair of guests.
OVERHEAD_S = 0.1
# A search takes about a dozen trials of a second, each with its own connection.
SEARCH_S = 14.0


class Kind(Enum):
    """What a case says about a network."""

    LATENCY = "latency"
    BANDWIDTH = "bandwidth"
    RATE = "packets without loss"


@dataclass(frozen=True)
class Test:
    """One way of measuring, with a tool in the guests."""

    name: str
    tool: str
    kind: Kind
    unit: str


TESTS = {
    test.name: test
    for test in (
        Test("tcp_lat", "qperf", Kind.LATENCY, "us"),
        Test("tcp_bw", "qperf", Kind.BANDWIDTH, "MB/s"),
        Test("udp_lat", "qperf", Kind.LATENCY, "us"),
        Test("udp_bw", "qperf", Kind.BANDWIDTH, "MB/s"),
        Test(PINGPONG, PINGPONG, Kind.LATENCY, "us"),
        Test("mtr", "mtr", Kind.LATENCY, "us"),
        Test("iperf3", "iperf3", Kind.BANDWIDTH, "Gbit/s"),
        Test(LOSSLESS, "iperf3", Kind.RATE, "pkt/s"),
    )
}
# Tool's output → reading in the test's unit, or ToolError.  A search is more than one output.
PARSERS: dict[str, Callable[[str], Reading]] = {
    PINGPONG: parse.pingpong,
    "mtr": parse.mtr,
    "iperf3": parse.iperf3,
    **{name: partial(parse.qperf, name) for name, test in TESTS.items() if test.tool == "qperf"},
}


@dataclass(frozen=True)
class Pace:
    """How long points take. large_s: with qperf, from 16 MiB a message on."""

    qperf_s: int = 1
    large_s: int = 1
    mtr_cycles: int = 10
    mtr_interval_s: float = 0.1
    iperf_s: int = 1
    iperf_omit_s: int = 0


@dataclass(frozen=True)
class Case:
    """One cell of the table: where, what, with which message size (None: the tool's own).

    guests: how many talk at the same time, in pairs.
    """

    placement: str
    test: str
    size_bytes: int | None = None
    guests: int = 2

    @property
    def name(self) -> str:
        """As in the JSON: "same-host/tcp_lat/1", "across-hosts/mtr", "same-host/mtr/14-guests"."""
        size = "" if self.size_bytes is None else f"/{self.size_bytes}"
        crowd = "" if self.guests == 2 else f"/{self.guests}-guests"
        return f"{self.placement}/{self.test}{size}{crowd}"

    @property
    def kind(self) -> Kind:
        """Latencies are better small, all else large."""
        return TESTS[self.test].kind

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return TESTS[self.test].unit

    @property
    def label(self) -> str:
        """For people, without the placement: "tcp_lat 64 KiB", "mtr 14 VMs"."""
        if self.size_bytes is not None:
            return f"{self.test} {size_text(self.size_bytes)}"
        return self.test if self.guests == 2 else f"{self.test} {self.guests} VMs"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(client, server) of everyone who talks."""
        numbers = range(1, self.guests // 2 + 1)
        if self.placement == "same-host":
            return [(f"a{2 * number - 1}", f"a{2 * number}") for number in numbers]
        return [(f"a{number}", f"b{number}") for number in numbers]

    def seconds(self, pace: Pace) -> float:
        """How long the tool measures."""
        if self.test == "mtr":
            # -G 1: a second for the last answer.
            return pace.mtr_cycles * pace.mtr_interval_s + 1
        if self.test == "iperf3":
            return pace.iperf_s + pace.iperf_omit_s
        if self.test == LOSSLESS:
            return SEARCH_S
        return pace.large_s if (self.size_bytes or 0) >= LARGE_BYTES else pace.qperf_s

    def expected_s(self, pace: Pace) -> float:
        """How long a point takes, with what is around it, where guests share few CPUs."""
        return self.seconds(pace) + OVERHEAD_S * self.guests

    def command(self, address: str, pace: Pace) -> str:
        """The shell command that measures this against the guest at an address; not of a search."""
        if self.test == "mtr":
            # -G: how long to wait for the last answer, five seconds unless told.
            times = f"-i {pace.mtr_interval_s} -c {pace.mtr_cycles}"
            return f"mtr --json --no-dns -G 1 {times} {address}"
        if self.test == "iperf3":
            omit = f" --omit {pace.iperf_omit_s}" if pace.iperf_omit_s else ""
            return f"iperf3 --json --time {pace.iperf_s}{omit} --client {address}"
        seconds = round(self.seconds(pace))
        if self.test == PINGPONG:
            return f"pingpong {PINGPONG_PORT} {address} {seconds * 1000} {self.size_bytes}"
        # -uu: units that do not change with the value; -e: digits; -vu: prints the message size.
        return f"qperf -t {seconds} -uu -e 7 -vu -m {self.size_bytes} {address} {self.test}"

    def parse(self, output: str) -> Reading:
        """What the tool measured; raises ToolError, also when it measured another size."""
        reading = PARSERS[self.test](output)
        printed = reading.details.get("msg_size_bytes", self.size_bytes)
        if printed != self.size_bytes:
            raise GarbledOutputError(f"qperf measured {printed} B a message, not {self.size_bytes}")
        return reading

    def join(self, readings: Sequence[Reading]) -> Reading:
        """One reading of all pairs: the link's total bandwidth, or the mean latency.

        details: per_guest, worst_guest of the pairs; retransmits as a sum, losses as a mean.
        """
        values = [reading.value for reading in readings]
        details: dict[str, float] = {}
        for name in readings[0].details:
            found = [reading.details[name] for reading in readings if name in reading.details]
            details[name] = sum(found) if name == "retransmits" else fmean(found)
        if len(readings) == 1:
            return Reading(values[0], details)
        mean = fmean(values)
        if self.kind is Kind.LATENCY:
            return Reading(mean, {**details, "worst_guest": max(values)})
        return Reading(sum(values), {**details, "per_guest": mean, "worst_guest": min(values)})


def size_text(size_bytes: int) -> str:
    """ "512 B", "64 KiB", "128 MiB"."""
    if size_bytes < KIB:
        return f"{size_bytes} B"
    if size_bytes < MIB:
        return f"{size_bytes // KIB} KiB"
    return f"{size_bytes // MIB} MiB"


def doubling(first: int, last: int) -> list[int]:
    """first, twice that, … up to and with last."""
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(sizes[-1] * 2)
    return sizes
