"""Two hosts in network namespaces with a mesh between them, and strangers in a third.

  netns A                              netns B                       netns X
vsw0 10.5.0.1                        vsw0 10.5.0.2
  |                                    |
vsw run -- wire 192.0.2.1 ==== wire 192.0.2.2, strangers 192.0.3.2 ==== 192.0.3.1
"""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.fakes.configs import public, write_key
from tests.fakes.daemons import Daemon
from tests.fakes.netns import add_netns, sh

PORT = 7400
SEEDS = [bytes([number]) * 32 for number in (1, 2)]


def config(number: int) -> str:
    other = 3 - number
    return f"""\
control = "control.sock"
[bridges.br0]
subnets = ["10.5.0.0/24"]
[bridges.br0.ports.host]
type = "tap"
interface = "vsw0"
addresses = ["10.5.0.{number}/32"]
[mesh]
listen = "0.0.0.0:{PORT}"
private_key_file = "own.key"
[[mesh.peers]]
public_key = "{public(SEEDS[other - 1])}"
endpoints = ["192.0.2.{other}:{PORT}"]
addresses = ["10.5.0.{other}/32"]
"""


class Place:
    """Namespaces named in the drawing, by letter, and the daemons of A and B."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.names = {letter: f"vsw{letter}{os.getpid()}" for letter in "abx"}
        a, b, x = self.names.values()
        for netns in self.names.values():
            add_netns(stack, netns)
        sh(f"ip link add wire netns {a} type veth peer name wire netns {b}")
        sh(f"ip link add strangers netns {x} type veth peer name strangers netns {b}")
        for netns, device, address in (
            (a, "wire", "192.0.2.1"),
            (b, "wire", "192.0.2.2"),
            (b, "strangers", "192.0.3.2"),
            (x, "strangers", "192.0.3.1"),
        ):
            sh(f"ip -n {netns} address add {address}/24 dev {device}")
            sh(f"ip -n {netns} link set {device} up")
        # Answers leave by the way that the strangers came.
        sh(f"ip -n {b} route add default via 192.0.3.1")
        self.daemons = []
        for number, netns in enumerate((a, b), 1):
            made = folder / netns
            made.mkdir()
            write_key(made / "own.key", SEEDS[number - 1])
            (made / "vsw.toml").write_text(config(number))
            daemon = Daemon(made / "vsw.toml", ["ip", "netns", "exec", netns])
            stack.callback(daemon.close)
            daemon.wait("READY=1")
            self.daemons.append(daemon)
            self.dress(number)

    def dress(self, number: int) -> None:
        """The tap of a daemon that has just started."""
        netns = self.names["ab"[number - 1]]
        sh(f"ip -n {netns} address add 10.5.0.{number}/24 dev vsw0")

    def command(self, letter: str, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.names[letter], *words]

    def connected(self) -> bool:
        return all(
            daemon.ask("mesh", "peers")[0]["state"] == "connected" for daemon in self.daemons
        )

    def drops(self) -> dict[str, int]:
        """Of B's mesh port."""
        (row,) = [row for row in self.daemons[1].ask("stats")["ports"] if row["name"] == "mesh"]
        drops: dict[str, int] = row["drops"]
        return drops

    def refused(self) -> int:
        """Initiations that reached Python of B and were noise."""
        return sum(self.daemons[1].ask("status")["mesh"]["refused"].values())


def goodput(place: Place, rate: str, seconds: int) -> float:
    """Mbit/s that reached B of a TCP flow paced at rate, as iperf3 takes it."""
    server = subprocess.Popen(
        place.command("b", "iperf3", "--forceflush", "-s", "-1", "-B", "10.5.0.2"),
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        while b"listening" not in server.stdout.readline():
            assert server.poll() is None
        flow = place.command("a", "iperf3", "-J", "-c", "10.5.0.2", "-b", rate, "-t", str(seconds))
        said = subprocess.run(flow, capture_output=True, timeout=seconds + 30, check=True).stdout
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e6
