"""Two workers on each host: their lanes send by UDP ports of their own where these pass.

The drawing is in tests/fakes/meshlab.py; each host has a second tap, vsw1 with 10.5.0.3 or
10.5.0.4, which the second worker serves.
"""

import os
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.daemons import until
from tests.fakes.flow import WAIT_S, Flow
from tests.fakes.meshlab import INNER, Lab, laboratory, needs_root
from tests.fakes.netns import sh
from tests.fakes.wiretap import PORT
from tests.netns.test_moving_netns import masquerade

CPUS = sorted(os.sched_getaffinity(0))[:2]
pytestmark = [
    needs_root,
    pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs for two workers"),
]
HARMLESS = {"send", "port_down", "no_session"}


def flows(lab: Lab, stack: ExitStack) -> list[Flow]:
    """To B's taps, and to A's; all were heard of before: one packet waits for a stranger."""
    a, _, b = lab.names
    for host, others in ((0, (2, 4)), (1, (1, 3))):
        for n in others:
            lab.hosts[host].run(f"ping -c 1 -W 5 {INNER['4'].format(n)}")
    there = [Flow(a, b, INNER["4"].format(n)) for n in (2, 4)]
    back = [Flow(b, a, INNER["4"].format(n)) for n in (1, 3)]
    return [stack.enter_context(flow) for flow in (*there, *back)]


def wait_for_lanes(lab: Lab, number: int, lanes: int) -> None:
    until(lambda: lab.peer(number)["lanes_used"] == lanes, f"{lanes} lanes", WAIT_S)


def ports_to(lab: Lab, source: int) -> set[int]:
    """The ports that the host sends from to the other's, in the next 400 datagrams or trains."""
    command = f"tcpdump -i wire -nn -l -c 400 -Q out udp dst port {PORT}"
    text = lab.hosts[source].run(command)
    return {int(port) for port in re.findall(rf"\.(\d+) > [\w.:]+\.{PORT}: UDP", text)}


def block_own_ports(lab: Lab) -> None:
    for word in (
        "add table inet strict",
        "add chain inet strict pass { type filter hook forward priority 0 ; }",
        f"add rule inet strict pass udp dport {PORT} udp sport != {PORT} drop",
    ):
        sh(f"ip netns exec {lab.router} nft {word}")


def check(lab: Lab, all_flows: list[Flow]) -> None:
    for flow in all_flows:
        assert flow.out_of_order == 0
    for host in lab.hosts:
        assert {reason for reason, n in host.drops().items() if n} <= HARMLESS


@pytest.mark.parametrize("families", ["4", "6"])
def test_two_workers_are_two_5_tuples(families: str, tmp_path: Path) -> None:
    with laboratory(tmp_path, families, cpus=CPUS) as lab, ExitStack() as stack:
        all_flows = flows(lab, stack)
        for number in (0, 1):
            wait_for_lanes(lab, number, 2)
            assert lab.peer(number)["lanes"] == 2
        for number in (0, 1):
            ports = ports_to(lab, number)
            assert len(ports) == 2
            assert PORT in ports
            # Records by another port do not move the peer.
            assert lab.peer(1 - number)["endpoint"].endswith(f":{PORT}")
        for flow in all_flows:
            flow.goes_on()
        check(lab, all_flows)


def test_a_port_that_is_blocked_under_way(tmp_path: Path) -> None:
    with laboratory(tmp_path, "4", cpus=CPUS) as lab, ExitStack() as stack:
        all_flows = flows(lab, stack)
        for number in (0, 1):
            wait_for_lanes(lab, number, 2)
        block_own_ports(lab)
        for number in (0, 1):
            wait_for_lanes(lab, number, 1)
            assert ports_to(lab, number) == {PORT}
        for flow in all_flows:
            flow.goes_on()
            print(f"longest gap: {flow.longest_gap_s:.2f} s")
        check(lab, all_flows)


def test_where_only_the_configured_port_passes(tmp_path: Path) -> None:
    """It is as with one worker: nothing is lost with looking for more."""
    with laboratory(tmp_path, "4", cpus=CPUS, before=block_own_ports) as lab, ExitStack() as stack:
        all_flows = flows(lab, stack)
        for flow in all_flows:
            flow.goes_on(2000)
        for number in (0, 1):
            assert lab.peer(number)["lanes_used"] == 1
            assert ports_to(lab, number) == {PORT}
        check(lab, all_flows)


def test_behind_a_router_that_translates_ports(tmp_path: Path) -> None:
    """A's ports pass, each by a port that the router made up; B's do not: the router knows no such
    flow.  B knows A by one of them, which stays."""
    with (
        laboratory(tmp_path, "4", hidden=True, cpus=CPUS, before=masquerade) as lab,
        ExitStack() as stack,
    ):
        all_flows = flows(lab, stack)
        wait_for_lanes(lab, 0, 2)
        before = lab.peer(1)["endpoint"]
        for flow in all_flows:
            flow.goes_on(2000)
        assert len(ports_to(lab, 0)) == 2
        assert lab.peer(0)["lanes_used"] == 2
        assert lab.peer(1)["lanes_used"] == 1
        assert lab.peer(1)["endpoint"] == before
        check(lab, all_flows)
