"""Ways that die, shrink and differ, while the hosts do not listen to what the router says by ICMP:
a link that shrinks behind it is a black hole.

The drawing is in tests/fakes/meshlab.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.daemons import until
from tests.fakes.meshlab import V4, V6, Lab, both_families, laboratory, needs_root
from tests.fakes.wiretap import PORT

pytestmark = needs_root

BRIDGE_MTU = 8900
V4_HEADERS = 20 + 8 + 48
V6_HEADERS = 40 + 8 + 48


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """With wires of 9000 bytes."""
    families = getattr(request, "param", "46")
    with laboratory(tmp_path, families, wire_mtu=9000, bridge_mtu=BRIDGE_MTU) as made:
        yield made


def wait_for_mtu(lab: Lab, mtu: int) -> None:
    # Traffic, as quiet ways are looked at seldom.
    def found() -> bool:
        lab.ping("-c 1 -W 1")
        return all(lab.peer(number)["mtu"] == mtu for number in (0, 1))

    until(found, f"an MTU of {mtu}")


@pytest.mark.parametrize(
    ("lab", "headers", "mtus"),
    [("4", V4_HEADERS, (1500, 1280)), ("6", V6_HEADERS, (4000, 1280))],
    indirect=["lab"],
)
def test_the_path_mtu_is_found_and_told(lab: Lab, headers: int, mtus: tuple[int, ...]) -> None:
    wait_for_mtu(lab, min(BRIDGE_MTU, 9000 - headers))
    for mtu in mtus:
        lab.shrink(mtu)
        wait_for_mtu(lab, mtu - headers)
        peer = lab.peer(0)
        assert (peer["path_mtu"], peer["state"]) == (mtu, "connected")
        assert lab.ping(f"-c 1 -W 5 -M do -s {mtu - headers - 28}").returncode == 0
        told = lab.ping(f"-c 2 -i 0.2 -W 2 -M do -s {mtu - headers - 27}").stdout
        assert f"mtu = {mtu - headers}" in told or f"mtu={mtu - headers}" in told


def test_another_family_when_one_dies(lab: Lab) -> None:
    lab.ping("-c 2 -i 0.2 -W 2")
    first = lab.peer(0)["endpoint"]
    family, other = ("6", V4[1]) if first.startswith("[") else ("4", f"[{V6[1]}]")
    assert [path["alive"] for path in lab.peer(0)["paths"]] == [True, True]
    lab.forward(family, on=False)
    until(lambda: lab.ping("-c 1 -W 1").returncode == 0, "an answer by the other family")
    until(lambda: lab.peer(0)["endpoint"] == f"{other}:{PORT}", "the other endpoint")


@both_families
def test_a_tcp_connection_survives_a_path_that_shrinks(lab: Lab) -> None:
    talk = lab.talk("4")
    for mtu in (9000, 1500, 1280):
        lab.shrink(mtu)
        talk.goes_on(2 << 20)
    talk.finish()
    for host in lab.hosts:
        (port,) = (row for row in host.daemon.ask("stats")["ports"] if row["name"] == "host")
        assert port["rx_gso_packets"] > 0, "whole frames from the host"
        assert port["tx_gso_packets"] > 0, "and to the other"
