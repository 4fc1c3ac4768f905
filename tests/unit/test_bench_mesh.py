"""scripts/bench mesh: what its tools compute and say, not what they measure."""

import json
import os
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.bench import datagrams, iperf, mesh, overlay, vswmesh
from tests.bench.errors import BenchError
from tests.bench.ground import Ground, wire_address
from tests.bench.library import ffi
from tests.bench.overlay import Overlay, Raw
from tests.bench.peers import OpenVpn, WireguardGo, public_of
from tests.bench.results import Results
from tests.fakes.configs import public

IPERF = {
    "end": {
        "sum_sent": {"bytes": 1_300, "bits_per_second": 2.1e9, "retransmits": 7},
        "sum_received": {"bytes": 1_250, "bits_per_second": 2e9, "seconds": 2.0},
        "cpu_utilization_percent": {"host_total": 30.0, "remote_total": 45.0},
    }
}
PING = """\
PING 10.5.0.2 (10.5.0.2) 56(84) bytes of data.
64 bytes from 10.5.0.2: icmp_seq=1 ttl=64 time=0.120 ms
64 bytes from 10.5.0.2: icmp_seq=2 ttl=64 time=12.5 ms

--- 10.5.0.2 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 2ms
rtt min/avg/max/mdev = 0.120/6.310/12.500/6.190 ms
"""


def test_iperf_counts_what_arrived() -> None:
    assert iperf.parse(json.dumps(IPERF)) == iperf.Stream(gbits=2.0, moved=1250, again=7, cpu_s=1.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"error": "unable to connect to server"}', "unable to connect"),
        ("Segmentation fault", "no JSON"),
        ("", "no JSON"),
    ],
)
def test_iperf_that_fails_is_told(text: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        iperf.parse(text)


def test_round_trips_are_microseconds() -> None:
    assert iperf.parse_ping(PING) == [120.0, 12500.0]
    assert iperf.parse_ping("2 packets transmitted, 0 received") == []


def test_cpu_time_is_that_of_all_threads() -> None:
    before = overlay.cpu_s(os.getpid())
    worked, over = threading.Barrier(3), threading.Event()

    def work() -> None:
        sum(range(10**6))
        worked.wait()
        over.wait()  # a thread that has ended is no longer counted

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    worked.wait()
    assert overlay.cpu_s(os.getpid()) > before
    over.set()
    for thread in threads:
        thread.join()


class LimitedPath:
    """A path that takes limit packets per second, and of more than that half."""

    def __init__(self, limit: float, sender: float = 1e6) -> None:
        self.limit, self.sender = limit, sender
        self.trials = 0

    def __call__(self, rate: float) -> datagrams.Trial:
        self.trials += 1
        sent = min(rate, self.sender)
        if sent <= self.limit:
            return datagrams.Trial(sent, sent, 0.0)
        return datagrams.Trial(sent, self.limit / 2, 1 - self.limit / 2 / sent)


@pytest.mark.parametrize("limit", [1_000, 44_000, 300_000, 990_000])
def test_the_search_ends_near_the_highest_rate_without_loss(limit: float) -> None:
    path = LimitedPath(limit)
    assert 0.9 * limit <= datagrams.search(path) <= limit
    assert path.trials <= 1 + datagrams.AGAIN * datagrams.TRIALS


def test_what_a_path_takes_at_once_is_not_searched() -> None:
    path = LimitedPath(2e6, sender=250_000)
    assert datagrams.search(path) == 250_000
    assert path.trials == 1


def test_a_path_that_always_loses_has_no_rate() -> None:
    assert datagrams.search(lambda rate: datagrams.Trial(rate, rate * 0.9, 0.1)) == 0


def shot(sent: int, received: int, received_ns: int = 10**9) -> Any:
    result = ffi.new("struct datagrams *")
    result.sent, result.received = sent, received
    result.elapsed_ns, result.received_ns = 10**9, received_ns
    return result


@pytest.mark.parametrize(
    ("received", "lossless"), [(1000, True), (999, True), (998, False), (0, False)]
)
def test_one_packet_in_a_thousand_may_be_missing(received: int, lossless: bool) -> None:
    assert datagrams.trial_of(shot(1000, received)).lossless is lossless


def test_what_comes_late_takes_longer() -> None:
    trial = datagrams.trial_of(shot(1000, 1000, 2 * 10**9))
    assert (trial.sent, trial.received, trial.lossless) == (1000, 500, True)


def test_nothing_sent_proves_nothing() -> None:
    assert not datagrams.trial_of(shot(0, 0)).lossless


class Names(Ground):
    """Hosts that are not made."""

    def __init__(self, count: int) -> None:
        self.names = [f"host{number}" for number in range(count)]
        self.cpus, self.apart = [4, 5], count <= 2


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        (Raw, 1448 / 1514),
        (vswmesh.Vsw, 1368 / 1510),
        (WireguardGo, 1368 / 1494),
        (OpenVpn, 1368 / 1486),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_headers_leave(kind: type[Overlay], share: float, tmp_path: Path) -> None:
    assert kind(Names(2), tmp_path).payload_share == pytest.approx(share)


def test_hosts_in_a_row_know_who_is_in_between(tmp_path: Path) -> None:
    ours = vswmesh.Vsw(Names(3), tmp_path)
    first, middle, last = (tomllib.loads(ours.config(host))["mesh"]["peers"] for host in range(3))
    assert first[0]["endpoints"] == [f"{wire_address(0, 1)}:{vswmesh.PORT}"]
    assert first[1]["via"] == last[0]["via"] == public(vswmesh.seed(1))
    assert [peer["endpoints"] for peer in middle] == [
        [f"{wire_address(0, 0)}:{vswmesh.PORT}"],
        [f"{wire_address(1, 1)}:{vswmesh.PORT}"],
    ]
    assert (ours.there, ours.back) == (iperf.Way(0, 2, "10.5.0.3"), iperf.Way(2, 0, "10.5.0.1"))


def test_a_host_has_a_cpu_for_itself_when_there_are_enough() -> None:
    assert Names(2).command(1, "true") == [
        *("taskset", "-c", "5"),
        *("ip", "netns", "exec", "host1", "true"),
    ]
    assert Names(3).command(2, "true") == ["ip", "netns", "exec", "host2", "true"]
    assert [Names(3).cpu(host) for host in range(3)] == [4, 5, 4]


def test_the_wire_itself_has_its_own_addresses(tmp_path: Path) -> None:
    assert Raw(Names(2), tmp_path).there == iperf.Way(0, 1, wire_address(0, 1))
    assert Raw(Names(3), tmp_path).there == iperf.Way(0, 2, wire_address(1, 1))


def test_a_public_key_of_wireguard() -> None:
    # RFC 7748, 6.1: Alice's.
    secret = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
    assert public_of(secret) == "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


def test_costs_and_rates_have_ratios_and_retransmissions_none() -> None:
    results = Results(mesh.PAIRS)
    for system, rate, cost in (("vsw", 8.0, 1.0), ("raw", 16.0, 0.5), ("wireguard-go", 0.5, 20.0)):
        results.add(system, "tcp1", "Gbit/s", rate, 0)
        results.add(system, "tcp1/cpu", "s/GB", cost, 0)
        results.add(system, "tcp1/again", "segments", 3, 0)
    ratios = results.ratios()
    assert {case: ratio.median for case, ratio in ratios["vsw/raw"].items()} == {
        "tcp1": 0.5,
        "tcp1/cpu": 0.5,
    }
    assert ratios["vsw/wireguard-go"]["tcp1/cpu"].median == pytest.approx(20)
