"""The baselines: the kernel's bridge, and masquerading behind it as Virtink builds it.

User Mode Linux has two drivers for a tap: "vector" moves large frames and offloads checksums,
"tuntap" does neither and answers sooner. Each baseline has guests of both kinds, and every case is
measured between guests of the kind that is better at it.
"""

from contextlib import ExitStack
from typing import ClassVar, Literal

from qperf_suite.guests import VEC_OPTIONS, Guest, Tap, UmlGuest
from qperf_suite.system import Seat, Stage, System, start_guest
from qperf_suite.workloads import Case, Kind

Driver = Literal["vector", "tuntap"]
DRIVERS: tuple[Driver, ...] = ("vector", "tuntap")
# From here on a message is many packets, and what counts is that they travel as one frame.
LARGE_BYTES = 65536
NAT_RULES = """
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        iifname "eth0" dnat to 10.0.2.2
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "eth0" masquerade
    }
}
"""


def best_driver(case: Case) -> Driver:
    """The guest driver that is faster in a case; docs/qperf-suite.md has the measurement."""
    large = (case.size_bytes or 0) >= LARGE_BYTES
    return "tuntap" if case.kind is Kind.LATENCY and not large else "vector"


class KernelSystem(System):
    """What both baselines share: seats per driver, and one bridge per host, joined by veth."""

    prefix: ClassVar[str]

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._seats: dict[tuple[str, Driver], Seat] = {}

    def seats(self) -> list[Seat]:
        """Guests of both drivers."""
        return list(self._seats.values())

    def seat(self, guest: str, case: Case) -> Seat:
        """The guest with the driver that suits the case."""
        return self._seats[guest, best_driver(case)]

    def options(self) -> list[str]:
        """Drivers, the same in both baselines."""
        return [
            f"{self.name}: latency below 64 KiB with UML's tuntap driver, the rest with its "
            f"vector driver (transport=tap,{VEC_OPTIONS}, vnet_hdr, checksum offload and TSO on); "
            "MTU 1500; clear text across hosts",
        ]

    def host(self, host: str) -> str:
        """Namespace of a host."""
        return f"{self.prefix}-{host}"

    def build_hosts(self) -> None:
        """A namespace with a bridge for every host, and a veth between the bridges."""
        hosts = self.stage.hosts
        for host in hosts:
            self.topology.namespace(self.host(host))
            self.topology.bridge(self.host(host), "br0")
        if len(hosts) > 1:
            first, second = self.host(hosts[0]), self.host(hosts[1])
            self.topology.veth((first, "wire"), (second, "wire"))
            for namespace in (first, second):
                self.topology.enslave(namespace, "wire", "br0")

    def boot(
        self, stack: ExitStack, guest: str, driver: Driver, *, namespace: str, tap: str, inside: str
    ) -> Guest:
        """Start a guest on a tap in a namespace. inside: the address that it has itself."""
        uml = UmlGuest(
            f"{self.prefix}-{guest}-{driver}",
            nics=[Tap(tap, driver=driver)],
            addresses=[inside],
            netns=self.topology.full_name(namespace),
            cpus=self.stage.cpus_of(guest),
            memory_mib=self.stage.memory_mib,
        )
        return start_guest(uml, stack)


class BridgeSystem(KernelSystem):
    """Taps on a kernel bridge; across hosts the bridge also has the veth, in clear text."""

    name = "bridge"
    prefix = "br"

    def start(self, stack: ExitStack) -> None:
        """Make bridges and taps, start the guests."""
        self.build_hosts()
        for subnet, driver in enumerate(DRIVERS):
            for number, guest in enumerate(self.stage.guests, start=1):
                namespace, tap = self.host(guest[0]), f"{guest}-{driver}"
                self.topology.tap(namespace, tap)
                self.topology.enslave(namespace, tap, "br0")
                address = f"10.5.{subnet}.{number}"
                inside = f"{address}/24"
                booting = self.boot(
                    stack, guest, driver, namespace=namespace, tap=tap, inside=inside
                )
                self._seats[guest, driver] = Seat(booting, address)


class MasqueradeSystem(KernelSystem):
    """Every guest behind its own bridge 10.0.2.1/30 and NAT, in a pod on the host's bridge."""

    name = "masquerade"
    prefix = "mq"
    boot_commands = ("ip route add default via 10.0.2.1",)

    def start(self, stack: ExitStack) -> None:
        """Make hosts, pods with their NAT, and start the guests."""
        self.build_hosts()
        for subnet, driver in enumerate(DRIVERS):
            for number, guest in enumerate(self.stage.guests, start=1):
                address = f"10.6.{subnet}.{number}"
                pod = f"{self.prefix}-{guest}-{driver}"
                self._build_pod(pod, self.host(guest[0]), f"{guest}-{driver}", address)
                booting = self.boot(
                    stack, guest, driver, namespace=pod, tap="tap0", inside="10.0.2.2/30"
                )
                self._seats[guest, driver] = Seat(booting, address)

    def options(self) -> list[str]:
        """The NAT as well."""
        return [*super().options(), "masquerade: nftables DNAT in, MASQUERADE out, one per guest"]

    def _build_pod(self, pod: str, host: str, uplink: str, address: str) -> None:
        topology = self.topology
        topology.namespace(pod)
        topology.veth((pod, "eth0"), (host, uplink))
        topology.enslave(host, uplink, "br0")
        topology.address(pod, "eth0", f"{address}/16")
        topology.bridge(pod, "br0")
        topology.address(pod, "br0", "10.0.2.1/30")
        topology.tap(pod, "tap0")
        topology.enslave(pod, "tap0", "br0")
        topology.forward(pod)
        topology.nft(pod, NAT_RULES)
