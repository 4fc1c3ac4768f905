"""Ways that die, shrink and differ: two hosts, and a router between them that they do not hear.

      netns A                        netns R                        netns B
    vsw0 10.5.0.1              (forwards 4 and 6)               vsw0 10.5.0.2
      |                                                            |
    vsw run -- wire 192.0.2.1 ==== left   right ==== wire 198.51.100.2 -- vsw run
                 2001:db8:1::1                      2001:db8:2::2

What R says by ICMP is ignored by the mesh, so a link that shrinks behind it is a black hole.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.configs import public, write_key
from tests.fakes.daemons import Daemon, until
from tests.netns.test_switch_netns import PORT, SEEDS, Host, sh

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root for network namespaces"
)

V4 = ("192.0.2.1", "198.51.100.2")
V6 = ("2001:db8:1::1", "2001:db8:2::2")
BRIDGE_MTU = 8900
V4_HEADERS = 20 + 8 + 48
V6_HEADERS = 40 + 8 + 48


def config(number: int, families: str) -> str:
    other = 2 - number
    endpoints = [f'"{V4[other]}:{PORT}"'] * ("4" in families)
    endpoints += [f'"[{V6[other]}]:{PORT}"'] * ("6" in families)
    return f"""\
control = "control.sock"
[bridges.br0]
subnets = ["10.5.0.0/24"]
mtu = {BRIDGE_MTU}
[bridges.br0.ports.host]
type = "tap"
interface = "vsw0"
addresses = ["10.5.0.{number}/32"]
[mesh]
listen = "[::]:{PORT}"
private_key_file = "own.key"
[[mesh.peers]]
public_key = "{public(SEEDS[other])}"
endpoints = [{", ".join(endpoints)}]
addresses = ["10.5.0.{other + 1}/32"]
"""


class Lab:
    def __init__(self, stack: ExitStack, folder: Path, families: str) -> None:
        a, self.router, b = (f"vsw{letter}{os.getpid()}" for letter in "arb")
        for netns in (a, self.router, b):
            sh(f"ip netns add {netns}")
            stack.callback(sh, f"ip netns del {netns}")
        for netns, side in ((a, "left"), (b, "right")):
            sh(f"ip link add wire netns {netns} type veth peer name {side} netns {self.router}")
            sh(f"ip -n {netns} link set wire up mtu 9000")
            sh(f"ip -n {self.router} link set {side} up mtu 9000")
        self.forward("4", on=True)
        self.forward("6", on=True)
        self.hosts = []
        for number, (netns, side) in enumerate(((a, "left"), (b, "right")), 1):
            v4, v6 = V4[number - 1], V6[number - 1]
            gate4, gate6 = v4.rpartition(".")[0] + ".254", v6.rpartition("::")[0] + "::fe"
            for where, device, address in (
                (netns, "wire", f"{v4}/24"),
                (self.router, side, f"{gate4}/24"),
                (netns, "wire", f"{v6}/64 nodad"),
                (self.router, side, f"{gate6}/64 nodad"),
            ):
                sh(f"ip -n {where} address add {address} dev {device}")
            sh(f"ip -n {netns} route add default via {gate4}")
            sh(f"ip -n {netns} -6 route add default via {gate6}")
            own = folder / netns
            own.mkdir()
            write_key(own / "own.key", SEEDS[number - 1])
            (own / "vsw.toml").write_text(config(number, families))
            daemon = Daemon(own / "vsw.toml", ["ip", "netns", "exec", netns])
            stack.callback(daemon.close)
            daemon.wait("READY=1")
            sh(f"ip -n {netns} address add 10.5.0.{number}/24 dev vsw0")
            self.hosts.append(Host(netns, daemon))
        until(lambda: self.peer(0)["rtt_ms"] is not None, "the first answer")

    def forward(self, family: str, *, on: bool) -> None:
        key = {"4": "net.ipv4.ip_forward", "6": "net.ipv6.conf.all.forwarding"}[family]
        sh(f"ip netns exec {self.router} sysctl -q -w {key}={int(on)}")

    def shrink(self, mtu: int) -> None:
        """Both ways, behind the router; the hosts' own devices stay as they are."""
        sh(f"ip -n {self.router} link set right mtu {mtu}")
        sh(f"ip -n {self.router} link set left mtu {mtu}")

    def peer(self, number: int) -> dict[str, Any]:
        (peer,) = self.hosts[number].daemon.ask("mesh", "peers")
        return peer

    def wait_for_mtu(self, mtu: int) -> None:
        # Traffic, as quiet ways are looked at seldom.
        def found() -> bool:
            self.ping("-c 1 -W 1")
            return all(self.peer(number)["mtu"] == mtu for number in (0, 1))

        until(found, f"an MTU of {mtu}")

    def ping(self, options: str) -> subprocess.CompletedProcess[str]:
        words = self.hosts[0].command("ping", *options.split(), "10.5.0.2")
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        made = Lab(stack, tmp_path, getattr(request, "param", "46"))
        yield made
        assert [host.daemon.stop() for host in made.hosts] == [0, 0]


@pytest.mark.parametrize(
    ("lab", "headers", "mtus"),
    [("4", V4_HEADERS, (1500, 1280)), ("6", V6_HEADERS, (4000, 1280))],
    indirect=["lab"],
)
def test_the_path_mtu_is_found_and_told(lab: Lab, headers: int, mtus: tuple[int, ...]) -> None:
    lab.wait_for_mtu(min(BRIDGE_MTU, 9000 - headers))
    for mtu in mtus:
        lab.shrink(mtu)
        lab.wait_for_mtu(mtu - headers)
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


SINK = """
import socket
s = socket.create_server(("10.5.0.2", 5001))
print("ready", flush=True)
c, _ = s.accept()
total = 0
while data := c.recv(1 << 20):
    total += len(data)
    print(total, flush=True)
"""
SOURCE = """
import socket, sys
s = socket.create_connection(("10.5.0.2", 5001))
for line in sys.stdin:
    s.sendall(bytes(int(line)))
"""


@pytest.mark.parametrize("lab", ["4", "6"], indirect=True)
def test_a_tcp_connection_survives_a_path_that_shrinks(lab: Lab) -> None:
    a, b = lab.hosts
    part, total = 4 << 20, 0
    with ExitStack() as stack:
        python = sys.executable
        sink = stack.enter_context(
            subprocess.Popen(b.command(python, "-c", SINK), stdout=subprocess.PIPE, text=True)
        )
        stack.callback(sink.kill)
        assert sink.stdout is not None
        assert sink.stdout.readline() == "ready\n"
        source = stack.enter_context(
            subprocess.Popen(a.command(python, "-c", SOURCE), stdin=subprocess.PIPE, text=True)
        )
        stack.callback(source.kill)
        assert source.stdin is not None
        for mtu in (9000, 1500, 1280):
            lab.shrink(mtu)
            source.stdin.write(f"{part}\n")
            source.stdin.flush()
            total += part
            while int(sink.stdout.readline()) < total:
                pass
        source.stdin.close()
        assert (source.wait(20), sink.wait(20)) == (0, 0)
    before, after = (host.daemon.ask("stats")["ports"][0] for host in (a, b))
    assert before["rx_gso_packets"] > 0, "whole frames from the host"
    assert after["tx_gso_packets"] > 0, "and to the other"
