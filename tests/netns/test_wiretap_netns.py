"""The look at the underlay, which every test of tests/fakes/meshlab.py ends with, can fail.

  netns A                        netns B
wire 192.0.2.1 =============== wire 192.0.2.2
     2001:db8::1                    2001:db8::2
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mesh import wire
from tests.fakes.daemons import until
from tests.fakes.meshlab import needs_root
from tests.fakes.netns import add_netns, inside, sh
from tests.fakes.wiretap import MARKER, PORT, UNDERLAY, WireTap, pairs

pytestmark = needs_root

RECORD = bytes([wire.TYPE_RECORD]) + bytes(47)
TARGETS = ["192.0.2.2", "2001:db8::2"]


@pytest.fixture
def tap() -> Iterator[WireTap]:
    a, b = (f"vsw{letter}{os.getpid()}" for letter in "ab")
    with ExitStack() as stack:
        for netns in (a, b):
            add_netns(stack, netns)
        sh(f"ip link add wire netns {a} type veth peer name wire netns {b}")
        for number, netns in enumerate((a, b), 1):
            sh(f"ip -n {netns} address add 192.0.2.{number}/24 dev wire")
            sh(f"ip -n {netns} address add 2001:db8::{number}/64 dev wire")
            sh(f"ip -n {netns} link set wire up")
        yield stack.enter_context(WireTap(a, "wire", UNDERLAY))


def send(data: bytes, target: str, *, port: int = PORT, source: int = PORT) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    netns = f"vswa{os.getpid()}"
    with inside(netns, lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.bind(("", source))
        sock.sendto(data, (target, port))


def send_one(tap: WireTap, target: str) -> None:
    """What belongs there."""
    send(RECORD, target)
    until(lambda: tap.datagrams > 0, "the datagram on the wire")


@pytest.mark.parametrize("target", TARGETS)
def test_what_belongs_there(tap: WireTap, target: str) -> None:
    """Nobody listens in B, so that an ICMP error comes back, too."""
    send_one(tap, target)
    send(RECORD, target, port=1024)
    tap.check()
    assert tap.datagrams >= 2


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("data", "ports", "why"),
    [
        (RECORD + MARKER, {}, "in clear"),
        (RECORD + pairs(5)[0], {}, "inner addresses"),
        (RECORD + pairs(5)[-1], {}, "inner addresses"),
        (RECORD, {"port": 53, "source": 1024}, "between ports"),
        (b"\x45" + bytes(47), {}, "no message"),
        (RECORD + bytes(2000), {}, "fragment|protocol 44"),
    ],
    ids=["marker", "addresses 4", "addresses 6", "port", "type", "fragment"],
)
def test_a_datagram_that_does_not(
    tap: WireTap, target: str, data: bytes, ports: dict[str, int], why: str
) -> None:
    send_one(tap, target)
    send(data, target, **ports)
    with pytest.raises(AssertionError, match=why):
        tap.check()


@pytest.mark.parametrize("target", TARGETS)
def test_a_ping(tap: WireTap, target: str) -> None:
    send_one(tap, target)
    sh(f"ip netns exec vswa{os.getpid()} ping -c 1 -W 5 {target}")
    with pytest.raises(AssertionError, match="protocol"):
        tap.check()


def test_a_frame_that_is_no_ip(tap: WireTap) -> None:
    send_one(tap, TARGETS[0])
    frame = bytes(12) + b"\x88\xb5" + bytes(46)
    netns = f"vswa{os.getpid()}"
    with inside(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as sock:
        sock.bind(("wire", 0))
        sock.send(frame)
    with pytest.raises(AssertionError, match="0x88b5"):
        tap.check()


def test_silence_proves_nothing(tap: WireTap) -> None:
    with pytest.raises(AssertionError, match="nothing of the mesh"):
        tap.check()
