"""Two hosts and a router between them; all that leaves a host is looked at.

      netns A                        netns R                        netns B
    vsw0 10.5.0.1                                                vsw0 10.5.0.2
         fd00:5::1          (forwards 4 and 6)                        fd00:5::2
      |                                                            |
    vsw run -- wire 192.0.2.1 ==== left   right ==== wire 198.51.100.2 -- vsw run
                 2001:db8:1::1                      2001:db8:2::2

The taps stay when a daemon ends, as a daemon without privileges needs them.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.clock import Clock
from tests.fakes.configs import public, write_key
from tests.fakes.daemons import Daemon, until
from tests.fakes.netns import Host, add_netns, sh
from tests.fakes.shaker import Faults, Shaker
from tests.fakes.talk import PACE_S, Talk
from tests.fakes.wiretap import PORT, UNDERLAY, Rules, WireTap

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root for network namespaces"
)
both_families = pytest.mark.parametrize("lab", ["4", "6"], indirect=True)

SEEDS = [bytes([number]) * 32 for number in (1, 2, 3, 4)]
V4 = ("192.0.2.1", "198.51.100.2")
V6 = ("2001:db8:1::1", "2001:db8:2::2")
INNER = {"4": "10.5.0.{}", "6": "fd00:5::{}"}
SECOND_TAP = """\
[bridges.br0.ports.second]
type = "tap"
interface = "vsw1"
addresses = ["10.5.0.{number}/32"]
cpus = [{cpu}]
"""


def config(number: int, families: str, mtu: int, *, hidden: bool, cpus: Sequence[int] = ()) -> str:
    """Of host 0 or 1.  hidden: the other does not know where host 0 is.  cpus: of two workers, of
    which the first has the tap, the second another one."""
    other = 1 - number
    endpoints = [f'"{V4[other]}:{PORT}"'] * ("4" in families)
    endpoints += [f'"[{V6[other]}]:{PORT}"'] * ("6" in families)
    if hidden and other == 0:
        endpoints = []
    workers, first, second, behind = "", "", "", ""
    if cpus:
        workers = f"[workers]\ncpus = {list(cpus)}"
        first = f"cpus = [{cpus[0]}]"
        second = SECOND_TAP.format(number=number + 3, cpu=cpus[1])
        behind = f', "10.5.0.{other + 3}/32"'
    return f"""\
control = "control.sock"
{workers}
[bridges.br0]
subnets = ["10.5.0.0/24", "fd00:5::/64"]
mtu = {mtu}
[bridges.br0.ports.host]
type = "tap"
interface = "vsw0"
addresses = ["10.5.0.{number + 1}/32", "fd00:5::{number + 1}/128"]
{first}
{second}
[mesh]
listen = "[::]:{PORT}"
private_key_file = "own.key"
[[mesh.peers]]
public_key = "{public(SEEDS[other])}"
endpoints = [{", ".join(endpoints)}]
addresses = ["10.5.0.{other + 1}/32", "fd00:5::{other + 1}/128"{behind}]
"""


def add_tap(netns: str, name: str, *addresses: str) -> None:
    sh(f"ip -n {netns} tuntap add {name} mode tap vnet_hdr")
    for address in addresses:
        sh(f"ip -n {netns} address add {address} dev {name}")


def add_second_tap(netns: str, number: int) -> None:
    """10.5.0.3 or 10.5.0.4, with the other one behind it; each tap answers for its own alone."""
    for key, value in (("arp_ignore", 1), ("arp_announce", 2), ("rp_filter", 0)):
        sh(f"ip netns exec {netns} sysctl -q -w net.ipv4.conf.all.{key}={value}")
    own, other = INNER["4"].format(number + 3), INNER["4"].format(4 - number)
    add_tap(netns, "vsw1", f"{own}/32")
    sh(f"ip -n {netns} link set vsw1 up")
    sh(f"ip -n {netns} route add {other}/32 dev vsw1 src {own}")


class Lab:
    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        families: str,
        *,
        wire_mtu: int,
        bridge_mtu: int,
        hidden: bool,
        cpus: Sequence[int],
        before: Callable[["Lab"], None],
    ) -> None:
        self.families = families
        self.folder = folder
        self.hosts: list[Host] = []
        self.clocks: list[Clock] = []
        self._taps: list[WireTap] = []
        self._stack = stack
        a, self.router, b = self.names = [f"vsw{letter}{os.getpid()}" for letter in "arb"]
        for netns in self.names:
            add_netns(stack, netns)
        self.forward("4", on=True)
        self.forward("6", on=True)
        for number, (netns, side) in enumerate(((a, "left"), (b, "right"))):
            self.add_wire(netns, "wire", side, mtu=wire_mtu, v4=V4[number], v6=V6[number])
        before(self)
        for number, netns in enumerate((a, b)):
            inner = (INNER["4"].format(number + 1) + "/24", INNER["6"].format(number + 1) + "/64")
            add_tap(netns, "vsw0", *inner)
            if cpus:
                add_second_tap(netns, number)
            own = folder / netns
            own.mkdir()
            self.clocks.append(stack.enter_context(Clock(own)))
            text = config(number, families, bridge_mtu, hidden=hidden, cpus=cpus)
            self.hosts.append(self.add_daemon(own, netns, number, text))
        until(lambda: self.peer(0)["rtt_ms"] is not None, "the first answer")

    # ---- building

    def add_wire(self, netns: str, device: str, side: str, *, mtu: int, v4: str, v6: str) -> None:
        """Between the namespace and the router, which becomes its default gateway."""
        sh(f"ip link add {device} netns {netns} type veth peer name {side} netns {self.router}")
        for where, name in ((netns, device), (self.router, side)):
            sh(f"ip -n {where} link set {name} up mtu {mtu}")
        self.tap(netns, device)
        gate4, gate6 = v4.rpartition(".")[0] + ".254", v6.rpartition("::")[0] + "::fe"
        sh(f"ip -n {self.router} address add {gate4}/24 dev {side}")
        sh(f"ip -n {self.router} address add {gate6}/64 dev {side}")
        self.give_address(netns, device, v4)
        self.give_address(netns, device, v6)

    def tap(self, netns: str, device: str, rules: Rules = UNDERLAY) -> None:
        """Look at all that is on the device, to the end of the test."""
        tap = WireTap(netns, device, rules)
        self._taps.append(self._stack.enter_context(tap))

    def give_address(self, netns: str, device: str, address: str) -> None:
        """And a default route by it."""
        if ":" in address:
            sh(f"ip -n {netns} address add {address}/64 dev {device}")
            gate = address.rpartition("::")[0] + "::fe"
            sh(f"ip -n {netns} -6 route replace default via {gate}")
        else:
            sh(f"ip -n {netns} address add {address}/24 dev {device}")
            sh(f"ip -n {netns} route replace default via {address.rpartition('.')[0]}.254")

    def add_daemon(self, folder: Path, netns: str, number: int, text: str) -> Host:
        """number: of its key."""
        write_key(folder / "own.key", SEEDS[number])
        (folder / "vsw.toml").write_text(text)
        clock = self.clocks[number].before if number < len(self.clocks) else []
        daemon = Daemon(folder / "vsw.toml", ["ip", "netns", "exec", netns, *clock])
        self._stack.callback(daemon.close)
        daemon.wait("READY=1")
        return Host(netns, daemon)

    # ---- what happens to it

    def forward(self, family: str, *, on: bool) -> None:
        key = {"4": "net.ipv4.ip_forward", "6": "net.ipv6.conf.all.forwarding"}[family]
        sh(f"ip netns exec {self.router} sysctl -q -w {key}={int(on)}")

    def shrink(self, mtu: int) -> None:
        """Both ways, behind the router; the hosts' own devices stay as they are."""
        sh(f"ip -n {self.router} link set right mtu {mtu}")
        sh(f"ip -n {self.router} link set left mtu {mtu}")

    def shake(self, faults: Faults) -> Shaker:
        """From now on, both ways."""
        return self._stack.enter_context(Shaker(self.router, ["left", "right"], faults))

    def restart(self, number: int, how: signal.Signals = signal.SIGTERM) -> None:
        daemon = self.hosts[number].daemon
        daemon.process.send_signal(how)
        assert daemon.process.wait(20) == (0 if how == signal.SIGTERM else -how)
        daemon.close()
        daemon.start()
        daemon.wait("READY=1")

    # ---- what is seen

    def talk(self, inner: str | None = None, pace_s: float = PACE_S) -> Talk:
        """inner: the family inside, by itself the other one than outside.  IPv6 does not go by ways
        that carry less than its least MTU, 1280, inside."""
        a, _, b = self.names
        inner = inner or {"4": "6"}.get(self.families, "4")
        return self._stack.enter_context(Talk(a, b, INNER[inner].format(2), pace_s))

    def peer(self, number: int) -> dict[str, Any]:
        """The other, as the host sees it."""
        (peer,) = self.hosts[number].daemon.ask("mesh", "peers")
        return peer

    def wait_for(self, number: int, address: str) -> None:
        """Until the other host knows that this one is there."""
        want = f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"
        until(lambda: self.peer(1 - number)["endpoint"] == want, f"{want} being known")

    def ping(self, options: str) -> subprocess.CompletedProcess[str]:
        words = self.hosts[0].command("ping", *options.split(), "10.5.0.2")
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    def check(self) -> None:
        """Nothing in clear has left."""
        for tap in self._taps:
            tap.check()


@contextmanager
def laboratory(
    folder: Path,
    families: str,
    *,
    wire_mtu: int = 1500,
    bridge_mtu: int = 1400,
    hidden: bool = False,
    cpus: Sequence[int] = (),
    before: Callable[[Lab], None] = lambda _: None,
) -> Iterator[Lab]:
    """families: of the underlay that the hosts know of each other, "4", "6" or both.

    hidden: B does not know where A is.  cpus: two workers there, and a second tap.  before: called
    when the wires are there and the daemons are not.
    """
    with ExitStack() as stack:
        lab = Lab(
            stack,
            folder,
            families,
            wire_mtu=wire_mtu,
            bridge_mtu=bridge_mtu,
            hidden=hidden,
            cpus=cpus,
            before=before,
        )
        yield lab
        stops = [host.daemon.stop() for host in lab.hosts]
        lab.check()
        assert stops == [0, 0]
