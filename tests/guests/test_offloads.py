"""Real guests with and without offloads on one switch: TCP between all of them, by every way.

    echo server  <--- 1 MiB of random bytes --->  client that compares

Debian's kernels have no USO; tests/unit/test_offload_matrix.py has, with a driver of its own.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations

import pytest

from qperf_suite.guests import Guest, QemuGuest, UmlGuest, VhostUser
from tests.fakes.daemons import Daemon, running, until

TSO4 = ("host_tso4", "guest_tso4")
TSO6 = ("host_tso6", "guest_tso6")
ECN = ("host_ecn", "guest_ecn")
CSUM = ("csum", "guest_csum")
# What QEMU takes away, and over which versions of IP large frames are left.
KINDS: dict[str, tuple[tuple[str, ...], frozenset[int]]] = {
    "nothing": (CSUM + TSO4 + TSO6 + ECN, frozenset()),
    "csum": (TSO4 + TSO6 + ECN, frozenset()),
    "tso4": (TSO6, frozenset({4})),
    "tso6": ((), frozenset({4, 6})),
    "uml": ((), frozenset({4, 6})),
}
ADDRESSES = {
    "v4": "10.5.0.{}",
    "v6": "fd00:5::{}",
    "tagged v4": "10.5.5.{}",
    "tagged v6": "fd00:55::{}",
}
PORT = '[bridges.br0.ports.{name}]\ntype = "vhost-user"\npath = "{name}.sock"\nmode = "server"\n'
BYTES = 1 << 20


@dataclass
class Lab:
    daemon: Daemon
    guests: dict[str, Guest]

    def large(self, name: str) -> tuple[int, int]:
        """Large frames so far: (from, to) the guest."""
        (row,) = [row for row in self.daemon.ask("stats")["ports"] if row["name"] == name]
        return int(row["rx_gso_packets"]), int(row["tx_gso_packets"])


def prepare(guest: Guest, number: int) -> None:
    """Addresses of all kinds, usable at once, a server and something to send."""
    (nic,) = guest.interfaces
    guest.check(f"ip link add link {nic} name tagged type vlan id 5 && ip link set tagged up")
    guest.check("for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > $f; done")
    for way, address in ADDRESSES.items():
        device = "tagged" if "tagged" in way else nic
        length = 64 if "v6" in way else 24
        guest.check(f"ip addr add {address.format(number)}/{length} dev {device}")
    guest.spawn("nc -ll -p 99 -e /bin/cat")
    guest.check(f"dd if=/dev/urandom of=/tmp/data bs={BYTES} count=1")
    until(lambda: guest.run("netstat -ltn | grep -q :99").status == 0, "the echo server")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("offloads")
    file = folder / "vsw.toml"
    ports = "".join(PORT.format(name=name) for name in KINDS)
    file.write_text(f'control = "control.sock"\n[bridges.br0]\nmtu = 1500\n{ports}')
    with ExitStack() as stack:
        daemon = stack.enter_context(running(file))
        guests: dict[str, Guest] = {}
        for number, (name, (without, _)) in enumerate(KINDS.items(), 1):
            nic = VhostUser(
                str(folder / f"{name}.sock"),
                mac=f"52:54:00:00:05:0{number}",
                properties=tuple(f"{feature}=off" for feature in without),
            )
            kind = UmlGuest if name == "uml" else QemuGuest
            guests[name] = kind(f"off-{name}", nics=[nic], memory_mib=160)
            stack.callback(guests[name].stop)
            guests[name].start()
        for number, guest in enumerate(guests.values(), 1):
            guest.wait_ready()
            prepare(guest, number)
        yield Lab(daemon, guests)
        assert daemon.stop() == 0


@pytest.mark.parametrize("way", ADDRESSES)
@pytest.mark.parametrize(("one", "two"), list(combinations(KINDS, 2)))
def test_tcp_both_ways(lab: Lab, one: str, two: str, way: str) -> None:
    version = 6 if "v6" in way else 4
    both = [KINDS[name][1] for name in (one, two)]
    before = [lab.large(name) for name in (one, two)]
    to = ADDRESSES[way].format(list(KINDS).index(two) + 1)
    guest = lab.guests[one]
    guest.check(f"nc {to} 99 < /tmp/data > /tmp/echo", timeout_s=30)
    guest.check("cmp /tmp/data /tmp/echo")
    after = [lab.large(name) for name in (one, two)]
    sent = [now[0] - then[0] for then, now in zip(before, after, strict=True)]
    got = [now[1] - then[1] for then, now in zip(before, after, strict=True)]
    assert [count > 0 for count in sent] == [version in large for large in both]
    # A large frame arrives large when its receiver takes such frames too.
    passed = all(version in large for large in both)
    assert [count > 0 for count in got] == [passed, passed]
