"""Two hosts, each with a switch, a tap, and the mesh between them.

      netns A                               netns B
    vsw0 10.5.0.1                         vsw0 10.5.0.2
      |                                     |
    vsw run a.toml -- wire 192.0.2.1 ==== wire 192.0.2.2 -- vsw run b.toml

Nothing but the mesh's UDP crosses the wire, and never in clear text.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.configs import public, write_key
from tests.fakes.daemons import Daemon
from tests.fakes.meshlab import needs_root
from tests.fakes.netns import Host, add_netns, sh
from tests.fakes.wiretap import MARKER, UNDERLAY, WireTap

pytestmark = needs_root

PORT = 7400
SEEDS = [bytes([number]) * 32 for number in (1, 2)]


def config(number: int) -> str:
    other = 3 - number
    return f"""\
control = "control.sock"
[bridges.br0]
subnets = ["10.5.0.0/24", "fd00:5::/64"]
[bridges.br0.ports.host]
type = "tap"
interface = "vsw0"
addresses = ["10.5.0.{number}/32", "fd00:5::{number}/128"]
[mesh]
listen = "192.0.2.{number}:{PORT}"
private_key_file = "own.key"
[[mesh.peers]]
public_key = "{public(SEEDS[other - 1])}"
endpoints = ["192.0.2.{other}:{PORT}"]
addresses = ["10.5.0.{other}/32", "fd00:5::{other}/128"]
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    names = [f"vsw{letter}{os.getpid()}" for letter in "ab"]
    with ExitStack() as stack:
        for netns in names:
            add_netns(stack, netns)
        sh(f"ip link add wire netns {names[0]} type veth peer name wire netns {names[1]}")
        tap = stack.enter_context(WireTap(names[0], "wire", UNDERLAY))
        made = []
        for number, netns in enumerate(names, 1):
            sh(f"ip -n {netns} address add 192.0.2.{number}/24 dev wire")
            sh(f"ip -n {netns} link set wire up")
            folder = tmp_path / netns
            folder.mkdir()
            write_key(folder / "own.key", SEEDS[number - 1])
            (folder / "vsw.toml").write_text(config(number))
            daemon = Daemon(folder / "vsw.toml", ["ip", "netns", "exec", netns])
            stack.callback(daemon.close)
            daemon.wait("READY=1")
            sh(f"ip -n {netns} address add 10.5.0.{number}/24 dev vsw0")
            sh(f"ip -n {netns} address add fd00:5::{number}/64 dev vsw0 nodad")
            made.append(Host(netns, daemon))
        yield made
        assert [host.daemon.stop() for host in made] == [0, 0]
        tap.check()


def test_two_hosts_are_one_subnet(hosts: list[Host]) -> None:
    a, b = hosts
    with WireTap(b.netns, "wire", UNDERLAY) as tap:
        a.run("ping -c 3 -i 0.05 -W 5 10.5.0.2")
        b.run("ping -c 3 -i 0.05 -W 5 10.5.0.1")
        a.run("ping -6 -c 3 -i 0.05 -W 5 fd00:5::2")
        a.run(f"ping -c 3 -i 0.05 -W 5 -s 4000 -p {MARKER.hex()} 10.5.0.2")
        tap.check()
        # Fragments may travel as one train, which a veth shows as one packet.
        assert tap.datagrams >= 2 * (3 + 3 + 3 + 3)
    (peer,) = a.daemon.ask("mesh", "peers")
    assert (peer["state"], peer["endpoint"]) == ("connected", f"192.0.2.2:{PORT}")
    assert {entry["port"] for entry in a.daemon.ask("fdb")} == {"host"}


def test_a_packet_larger_than_the_path_is_told_so(hosts: list[Host]) -> None:
    a, _ = hosts
    sh(f"ip -n {a.netns} link set vsw0 mtu 1500")
    a.run("ping -c 1 -W 5 10.5.0.2")
    result = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            a.netns,
            "ping",
            "-M",
            "do",
            "-c",
            "2",
            "-i",
            "0.1",
            "-W",
            "5",
            "-s",
            "1460",
            "10.5.0.2",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "mtu=1400" in result.stdout + result.stderr or "mtu = 1400" in result.stdout


RECEIVE = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.bind((sys.argv[1], 5000))
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    print(s.recv(65536).hex(), flush=True)
"""
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 103, int(sys.argv[2]))  # UDP_SEGMENT
s.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[1], 5000))
"""


@pytest.mark.parametrize("address", ["10.5.0.2", "fd00:5::2"])
def test_large_datagrams_of_a_kernel(hosts: list[Host], address: str) -> None:
    """One large frame from tap to tap where the kernel has USO for taps, singles where not."""
    a, b = hosts
    size, data = 1100, bytes(i * 7 % 251 for i in range(40000))
    a.run(f"ping -c 1 -W 5 {address}")
    before = [host.daemon.ask("stats")["ports"][0] for host in hosts]
    sent = [data[i : i + size] for i in range(0, len(data), size)]
    receiver = subprocess.Popen(
        [*b.command(sys.executable, "-c", RECEIVE), address, str(len(sent))],
        stdout=subprocess.PIPE,
        text=True,
    )
    with receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        sender = [*a.command(sys.executable, "-c", SEND), address, str(size), data.hex()]
        subprocess.run(sender, check=True, timeout=20)
        got = [bytes.fromhex(line) for line in receiver.stdout]
    assert got == sent
    after = [host.daemon.ask("stats")["ports"][0] for host in hosts]
    assert {port["name"] for port in before + after} == {"host"}
    has_uso = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 2)
    assert after[0]["rx_gso_packets"] - before[0]["rx_gso_packets"] == int(has_uso)
    assert after[1]["tx_gso_packets"] - before[1]["tx_gso_packets"] == int(has_uso)


def test_a_foreign_source_does_not_pass(hosts: list[Host]) -> None:
    a, b = hosts
    a.run("ping -c 1 -W 5 10.5.0.2")
    sh(f"ip -n {a.netns} address add 10.5.0.77/24 dev vsw0")
    result = subprocess.run(
        [
            "ip",
            "netns",
            "exec",
            a.netns,
            "ping",
            "-c",
            "2",
            "-i",
            "0.1",
            "-W",
            "0.5",
            "-I",
            "10.5.0.77",
            "10.5.0.2",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    drops = {port["name"]: port["drops"] for port in a.daemon.ask("stats")["ports"]}
    assert drops["host"]["source"] >= 2
    before = {port["name"]: port for port in b.daemon.ask("stats")["ports"]}
    assert "source" not in before["mesh"]["drops"]


def test_a_session_outlives_a_reload_and_a_restart_makes_a_new_one(hosts: list[Host]) -> None:
    a, b = hosts
    a.run("ping -c 1 -W 5 10.5.0.2")
    (before,) = a.daemon.ask("mesh", "peers")
    more = config(1) + "[bridges.br1]\n"
    assert a.daemon.reload(more).startswith("running")
    (after,) = a.daemon.ask("mesh", "peers")
    assert after["last_handshake_s"] >= before["last_handshake_s"]
    assert b.daemon.stop() == 0
    b.daemon.close()
    b.daemon.start()
    b.daemon.wait("READY=1")
    sh(f"ip -n {b.netns} address add 10.5.0.2/24 dev vsw0")
    b.run("ping -c 1 -W 5 10.5.0.1")
