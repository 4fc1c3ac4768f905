"""Hosts that move while a TCP connection goes on: other addresses, other networks, NAT.

The drawing is in tests/fakes/meshlab.py.
"""

from pathlib import Path

import pytest

from tests.fakes.daemons import until
from tests.fakes.meshlab import V4, V6, Lab, both_families, laboratory, needs_root
from tests.fakes.netns import sh
from tests.fakes.talk import WAIT_S
from tests.fakes.wiretap import PORT

pytestmark = needs_root

MOVED = {"4": ("192.0.2.77", "198.51.100.77"), "6": ("2001:db8:1::77", "2001:db8:2::77")}


@both_families
def test_addresses_change(lab: Lab) -> None:
    """First A's, then B's; each is known by what it sends."""
    old = {"4": V4, "6": V6}[lab.families]
    length = {"4": 24, "6": 64}[lab.families]
    talk = lab.talk()
    talk.goes_on()
    for number, host in enumerate(lab.hosts):
        sh(f"ip -n {host.netns} address del {old[number]}/{length} dev wire")
        new = MOVED[lab.families][number]
        lab.give_address(host.netns, "wire", new)
        lab.wait_for(number, new)
        talk.goes_on()
    talk.finish()


@both_families
def test_roaming_into_another_network(lab: Lab) -> None:
    talk = lab.talk("4")
    talk.goes_on()
    a = lab.hosts[0].netns
    sh(f"ip -n {a} link set wire down")
    v4, v6 = "203.0.113.1", "2001:db8:3::1"
    lab.add_wire(a, "mobile", "tower", mtu=1280, v4=v4, v6=v6)
    lab.wait_for(0, {"4": v4, "6": v6}[lab.families])
    talk.goes_on()
    talk.finish()


def masquerade(lab: Lab) -> None:
    """A is behind the router from now on, at another port each time; the router forgets it after
    two seconds of silence."""
    for word in (
        "add table inet nat",
        "add chain inet nat out { type nat hook postrouting priority 100 ; }",
        "add rule inet nat out oifname right masquerade fully-random",
    ):
        sh(f"ip netns exec {lab.router} nft {word}")
    for key in ("udp_timeout", "udp_timeout_stream"):
        sh(f"ip netns exec {lab.router} sysctl -q -w net.netfilter.nf_conntrack_{key}=2")


def is_forgotten(lab: Lab) -> bool:
    """Whether the router knows no flow of the mesh."""
    flows = sh(f"ip netns exec {lab.router} cat /proc/net/nf_conntrack")
    return f"dport={PORT}" not in flows


@pytest.mark.parametrize(("families", "first"), [("4", "there"), ("6", "back")])
def test_a_router_that_forgets(families: str, first: str, tmp_path: Path) -> None:
    """B knows A by what it sends alone.  first: who speaks first after the silence; what B says
    then arrives when A has probed the way, which it does when it is quiet, too."""
    with laboratory(tmp_path, families, hidden=True, before=masquerade) as lab:
        talk = lab.talk()
        talk.goes_on()
        before = lab.peer(1)["endpoint"]
        talk.pause()
        until(lambda: is_forgotten(lab), "the router having forgotten", WAIT_S)
        getattr(talk, first).going.set()
        until(lambda: lab.peer(1)["endpoint"] != before, "another port", WAIT_S)
        talk.resume()
        talk.goes_on()
        talk.finish()
