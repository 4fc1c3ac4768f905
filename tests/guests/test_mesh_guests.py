"""Guests on two hosts, joined by the mesh over a veth pair that a capture looks at.

guest a1 ─ switch a ═══ wire 192.0.2.1 ── veth ── 192.0.2.2 wire ═══ switch b ─ guest b1
10.5.0.1   namespace a                                  namespace b       10.5.0.2
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet
from scapy.utils import rdpcap

from qperf_suite.guests import QemuGuest, UmlGuest, VhostUser
from qperf_suite.topology import Topology
from tests.fakes.daemons import Daemon, until

MARKER = b"meshswitch-marker-string"
PORT = 7400
CONFIG = """
control = "control.sock"
[bridges.br0]
subnets = ["10.5.0.0/24"]
[bridges.br0.ports.vm]
type = "vhost-user"
path = "vm.sock"
mode = "server"
addresses = ["10.5.0.{me}/32"]
[mesh]
listen = "192.0.2.{me}:7400"
private_key_file = "node.key"
[[mesh.peers]]
public_key = "{peer_key}"
endpoints = ["192.0.2.{peer}:7400"]
addresses = ["10.5.0.{peer}/32"]
"""


@dataclass
class Host:
    namespace: str
    daemon: Daemon
    guest: UmlGuest


def keygen(folder: Path) -> str:
    """Makes node.key; returns the public key."""
    made = subprocess.run(
        ["vsw", "keygen", str(folder / "node.key")], capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    keys = [keygen(folder) for folder in folders]
    with Topology(prefix="tm") as topology, ExitStack() as stack:
        for name in ("a", "b"):
            topology.namespace(name)
        topology.veth(("a", "wire"), ("b", "wire"))
        found = []
        for i, name in enumerate(("a", "b")):
            topology.address(name, "wire", f"192.0.2.{i + 1}/24")
            file = folders[i] / "vsw.toml"
            file.write_text(CONFIG.format(me=i + 1, peer=2 - i, peer_key=keys[1 - i]))
            namespace = topology.full_name(name)
            daemon = Daemon(file, before=["ip", "netns", "exec", namespace])
            stack.callback(daemon.close)
            daemon.wait("READY=1")
            nic = VhostUser(str(folders[i] / "vm.sock"))
            guest = UmlGuest(f"m{name}", nics=[nic], addresses=[f"10.5.0.{i + 1}/24"])
            found.append(Host(namespace, daemon, stack.enter_context(guest)))
        yield found


@contextmanager
def capture(host: Host, file: Path) -> Iterator[None]:
    """Everything on the host's wire, whole frames."""
    log = file.with_suffix(".log")
    with log.open("wb") as output:
        tcpdump = subprocess.Popen(
            [
                *("ip", "netns", "exec", host.namespace),
                *("tcpdump", "-i", "wire", "-s", "0", "-U", "-Z", "root", "-w", str(file)),
            ],
            stderr=output,
        )
    try:
        until(lambda: b"listening on" in log.read_bytes(), "tcpdump to listen")
        yield
    finally:
        tcpdump.terminate()
        tcpdump.wait(10)


def is_meshs(frame: Packet) -> bool:
    """UDP on the mesh port, or what the ends of a link say to find each other."""
    if frame.haslayer(ARP):
        return {frame[ARP].psrc, frame[ARP].pdst} <= {"192.0.2.1", "192.0.2.2"}
    if frame.haslayer(IPv6):
        return bool(frame[IPv6].nh in (0, 58))  # MLD and neighbour discovery of the ends
    return (
        frame.haslayer(UDP)
        and frame.haslayer(IP)
        and {frame[IP].src, frame[IP].dst} == {"192.0.2.1", "192.0.2.2"}
        and frame[UDP].dport == PORT
        and frame[UDP].sport == PORT
    )


def test_nothing_but_the_mesh_leaves_a_host(hosts: list[Host], tmp_path: Path) -> None:
    a, b = hosts
    file = tmp_path / "wire.pcap"
    with capture(a, file):
        assert "5 received" in a.guest.check(
            f"ping -c 5 -i 0.1 -W 5 -s 200 -p {MARKER[:16].hex()} 10.5.0.2", timeout_s=30
        )
        b.guest.spawn("nc -l -p 4000 -e dd of=/tmp/got")
        until(lambda: b.guest.run("netstat -ltn | grep -q :4000").status == 0, "nc to listen")
        line = MARKER.decode()
        a.guest.check(f"for i in $(seq 2000); do echo {line}; done | nc 10.5.0.2 4000", 30)
        until(lambda: b.guest.check("wc -l < /tmp/got").strip() == "2000", "all lines to arrive")
        assert b.guest.check(f"grep -c {line} /tmp/got").strip() == "2000"
        # A broadcast, and a packet for an address that nobody has: neither may cross.
        a.guest.run("ping -c 1 -W 1 -b 10.5.0.255")
        a.guest.run("ping -c 1 -W 1 10.5.0.77")
    frames = list(rdpcap(str(file)))
    records = [frame for frame in frames if frame.haslayer(UDP)]
    assert len(records) > 20
    strangers = [frame.summary() for frame in frames if not is_meshs(frame)]
    assert strangers == []
    assert not any(MARKER[:16] in bytes(frame) for frame in frames)


def test_large_frames_cross_and_arrive_large(hosts: list[Host]) -> None:
    a, b = hosts
    b.guest.spawn("iperf3 -s -1")
    until(lambda: b.guest.run("netstat -ltn | grep -q :5201").status == 0, "iperf3's server")
    a.guest.check("iperf3 -c 10.5.0.2 -n 100M", timeout_s=60)
    (sent,) = a.daemon.ask("stats")["ports"][:1]
    (got,) = b.daemon.ask("stats")["ports"][:1]
    assert sent["rx_gso_packets"] > 500
    assert got["tx_gso_packets"] > 500, "runs of records were not merged"


def test_a_packet_that_does_not_fit_is_answered(hosts: list[Host]) -> None:
    """QEMU does not tell its guest our MTU, so that one sends 1500 bytes."""
    a, _ = hosts
    a.guest.stop()
    nic = VhostUser(str(a.daemon.file.parent / "vm.sock"))
    with QemuGuest("ma2", nics=[nic], addresses=["10.5.0.1/24"]) as guest:
        out = guest.run("ping -c 2 -i 0.5 -W 2 -M do -s 1450 10.5.0.2").stdout
        assert re.search(r"mtu ?= ?1400", out), out
        assert "2 received" in guest.check("ping -c 2 -i 0.2 -W 5 -M do -s 1372 10.5.0.2")


def test_the_other_side_comes_again(hosts: list[Host]) -> None:
    """A switch with vhost-user guests that cannot reconnect loses them, but not the mesh."""
    a, b = hosts
    a.guest.check("ping -c 2 -i 0.2 -W 5 10.5.0.2")
    (peer,) = a.daemon.ask("mesh", "peers")
    assert peer["endpoint"] == "192.0.2.2:7400"
    b.daemon.close()
    b.daemon.start()
    b.daemon.wait("READY=1")
    nic = VhostUser(str(b.daemon.file.parent / "vm.sock"))
    with UmlGuest("mb2", nics=[nic], addresses=["10.5.0.2/24"]) as again:
        assert "3 received" in again.check("ping -c 3 -i 0.3 -W 5 10.5.0.1", timeout_s=30)
        assert "3 received" in a.guest.check("ping -c 3 -i 0.3 -W 5 10.5.0.2", timeout_s=30)
