"""The search for the rate without loss, with iperf3 itself.

client ── lo: a thousand datagrams of 64 bytes per second ── server
"""

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from qperf_suite.lossless import search
from qperf_suite.workloads import LOSSLESS, Case
from tests.fakes.daemons import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
NAMESPACE = f"lossless{os.getpid()}"
INSIDE = ("ip", "netns", "exec", NAMESPACE)
RATE = 1000
# With UDP's, IP's and Ethernet's headers.
FRAME_BYTES = 64 + 8 + 20 + 14
# What the bucket lets through at once, and what may wait for it.
BUCKET_BYTES = BACKLOG_BYTES = 4096


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def wire() -> Iterator[None]:
    run("ip", "netns", "add", NAMESPACE)
    try:
        # No packet is larger than what may wait.
        run("ip", "-n", NAMESPACE, "link", "set", "lo", "up", "mtu", "1500")
        bucket = ("rate", f"{RATE * FRAME_BYTES * 8}bit", "burst", str(BUCKET_BYTES))
        backlog = ("limit", str(BACKLOG_BYTES))
        run("tc", "-n", NAMESPACE, "qdisc", "add", "dev", "lo", "root", "tbf", *bucket, *backlog)
        with subprocess.Popen([*INSIDE, "iperf3", "-s"], stdout=subprocess.DEVNULL) as server:
            try:
                until(lambda: ":5201" in run(*INSIDE, "ss", "-tnl"), "iperf3's server")
                yield
            finally:
                server.kill()
    finally:
        run("ip", "netns", "del", NAMESPACE)


@pytest.mark.usefixtures("wire")
def test_what_a_shaped_wire_carries_is_found() -> None:
    def ask(command: str) -> str:
        return run(*INSIDE, *shlex.split(command))

    reading = search(ask, Case("same-host", LOSSLESS, 64), "127.0.0.1")
    carried = RATE + (BUCKET_BYTES + BACKLOG_BYTES) / FRAME_BYTES
    assert 0.95 * RATE < reading.value <= 1.03 * carried
    assert reading.value <= 1.03 * reading.details["half_percent_lost_per_s"] < 1.1 * carried
