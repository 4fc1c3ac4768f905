"""Real guests on a real switch: traffic, reload under traffic, what an idle switch costs."""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qperf_suite.guests import UmlGuest, VhostUser
from tests.fakes.daemons import Daemon, running, until

PORT = """
[bridges.br0.ports.{name}]
type = "vhost-user"
path = "{name}.sock"
mode = "server"
addresses = ["{address}/32"]
"""
TWO = "".join(
    ['control = "control.sock"\n[bridges.br0]\nsubnets = ["10.5.0.0/24"]\n']
    + [PORT.format(name=f"vm{i}", address=f"10.5.0.{i}") for i in (1, 2)]
)
THIRD = PORT.format(name="vm3", address="10.5.0.3")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "vsw.toml").write_text(TWO)
    with running(tmp_path / "vsw.toml") as daemon:
        yield daemon
        assert daemon.stop() == 0


@pytest.fixture
def guests(daemon: Daemon, tmp_path: Path) -> Iterator[list[UmlGuest]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                UmlGuest(
                    f"sw{i}",
                    nics=[VhostUser(str(tmp_path / f"vm{i}.sock"))],
                    addresses=[f"10.5.0.{i}/24"],
                )
            )
            for i in (1, 2)
        ]


def port(daemon: Daemon, name: str) -> dict[str, object]:
    (found,) = [row for row in daemon.ask("stats")["ports"] if row["name"] == name]
    return dict(found)


def test_guests_reach_each_other(daemon: Daemon, guests: list[UmlGuest]) -> None:
    out = guests[0].check("ping -c 20 -i 0.05 -s 1300 -W 5 10.5.0.2")
    assert "20 packets transmitted, 20 received" in out
    assert [row["state"] for row in daemon.ask("ports")] == ["connected"] * 2
    ports = {row["port"] for row in daemon.ask("fdb")}
    assert ports == {"vm1", "vm2"}
    mtu = guests[0].check(f"cat /sys/class/net/{guests[0].interfaces[0]}/mtu")
    assert mtu.strip() == "1400"


def test_large_frames_pass_whole(daemon: Daemon, guests: list[UmlGuest]) -> None:
    guests[1].spawn("iperf3 -s -1")
    until(lambda: guests[1].run("netstat -ltn | grep -q :5201").status == 0, "iperf3's server")
    out = guests[0].check("iperf3 -c 10.5.0.2 -n 200M", timeout_s=60)
    received = re.search(r"(\d+) MBytes .* receiver", out)
    assert received
    assert int(received[1]) > 190
    assert port(daemon, "vm1")["rx_gso_packets"] == port(daemon, "vm2")["tx_gso_packets"]
    assert int(str(port(daemon, "vm2")["tx_gso_packets"])) > 1000


def test_a_reload_loses_no_packet(daemon: Daemon, guests: list[UmlGuest]) -> None:
    result: list[str] = []
    pinging = threading.Thread(
        target=lambda: result.append(
            guests[0].check("ping -c 100 -i 0.02 -W 5 10.5.0.2", timeout_s=30)
        )
    )
    pinging.start()
    try:
        for text in (TWO + THIRD, TWO, TWO.replace("10.5.0.0/24", "10.5.0.0/16"), TWO):
            assert daemon.reload(text).startswith("running")
        assert daemon.reload(TWO.replace("mode", "mdoe")).startswith("not reloaded")
    finally:
        pinging.join()
    assert "100 packets transmitted, 100 received" in result[0]


def test_two_silent_guests_cost_less_than_one_percent(
    daemon: Daemon, guests: list[UmlGuest]
) -> None:
    guests[0].check("ping -c 3 -i 0.05 -W 5 10.5.0.2")
    seconds, tick_s = 5.0, 0.01
    before = daemon.cpu_s()
    threading.Event().wait(seconds)
    assert daemon.cpu_s() - before < 0.01 * seconds + tick_s
    assert "3 received" in guests[0].check("ping -c 3 -i 0.05 -W 5 10.5.0.2")


def test_a_guest_that_is_killed_can_come_again(
    daemon: Daemon, guests: list[UmlGuest], tmp_path: Path
) -> None:
    guests[1].stop()
    until(
        lambda: [row["state"] for row in daemon.ask("ports")] == ["connected", "listening"],
        "the port listening again",
    )
    with UmlGuest(
        "sw2b", nics=[VhostUser(str(tmp_path / "vm2.sock"))], addresses=["10.5.0.2/24"]
    ) as again:
        assert "5 received" in again.check("ping -c 5 -i 0.05 -W 5 10.5.0.1")
