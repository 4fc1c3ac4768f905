"""OVS on DPDK as a system: one switch per host, joined by veth, with QEMU guests.

User Mode Linux cannot be its guest: OVS offers a control queue and leaves serving it to the
front-end, which hands it through.
"""

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from qperf_suite.errors import GuestError
from qperf_suite.guests import VhostUser, mac_of
from qperf_suite.ovs import Ovs
from qperf_suite.system import Seat, Stage, System, start_guest
from qperf_suite.workloads import Case

READY_TIMEOUT_S = 60.0
# Of DPDK, of which half is used: a pool of packets is made, and another one when guests come.
MEMORY_MIB = 2048


class OvsDpdkSystem(System):
    """Guests on vhost-user ports of a bridge in user space, with the action NORMAL."""

    name = "ovs-dpdk"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._seats: dict[str, Seat] = {}
        self._switches: dict[str, Ovs] = {}

    def start(self, stack: ExitStack) -> None:
        """Make hosts, start the guests, which listen, and the switches."""
        hosts = self.stage.hosts
        for host in hosts:
            self.topology.namespace(self._namespace(host))
        if len(hosts) > 1:
            ends = [(self._namespace(host), "wire") for host in hosts]
            self.topology.veth(ends[0], ends[1])
        for number, guest in enumerate(self.stage.guests, start=1):
            address = f"10.5.0.{number}"
            nic = VhostUser(str(self._socket(guest)), server=True, mac=mac_of(address))
            booting = self.stage.vhost_guest("ov", guest, nic, address)
            self._seats[guest] = Seat(start_guest(booting, stack), address)
        for host in hosts:
            self._run_switch(host, stack)

    def wait_ready(self) -> None:
        """As others, until there is a way to every guest; then sleep until it is measured."""
        super().wait_ready()
        first, *others = self.seats()
        deadline = time.monotonic() + READY_TIMEOUT_S
        # Memory for a port is made once its guest is there, and takes seconds.
        for seat in others:
            while not first.guest.run(f"ping -c 1 -W 1 {seat.address}").ok:
                if time.monotonic() > deadline:
                    raise GuestError(f"ovs-dpdk: there is no way to {seat.address}")
        self._signal(signal.SIGSTOP)

    def seats(self) -> list[Seat]:
        """Every guest."""
        return list(self._seats.values())

    def seat(self, guest: str, case: Case) -> Seat:
        """The same guest in every case."""
        return self._seats[guest]

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Its threads poll without end, and would take the CPUs from whoever is measured."""
        self._signal(signal.SIGCONT)
        try:
            with super().awake():
                yield
        finally:
            self._signal(signal.SIGSTOP)

    def switches(self) -> list[int]:
        """One daemon per host."""
        return [switch.pid for switch in self._switches.values()]

    def processes(self) -> Mapping[str, "subprocess.Popen[bytes]"]:
        """Databases and daemons."""
        return {
            f"{name} of host {host}": process
            for host, switch in self._switches.items()
            for name, process in switch.processes.items()
        }

    def options(self) -> list[str]:
        """What is unlike our switch's."""
        return [
            "ovs-dpdk: QEMU's virtio-net under TCG; one poll-mode thread per host, stopped while "
            "other systems are measured; userspace TSO on; no hugepages; MTU 1500; clear text "
            "across hosts, by a packet socket on the veth",
        ]

    def _run_switch(self, host: str, stack: ExitStack) -> None:
        folder = self.stage.folder / f"ovs-{host}"
        folder.mkdir()
        switch = Ovs(folder, self.topology.full_name(self._namespace(host)))
        stack.callback(switch.close)
        switch.start(
            {
                "dpdk-init": "true",
                "dpdk-extra": f"--no-pci --no-huge --legacy-mem -m {MEMORY_MIB}",
                "pmd-cpu-mask": hex(1 << self.stage.worker_cpu(host)),
                "userspace-tso-enable": "true",
            }
        )
        self._switches[host] = switch
        switch.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        for guest in self.stage.guests:
            if guest[0] == host:
                port = ("add-port", "br0", guest, "--", "set", "Interface", guest)
                path = f"options:vhost-server-path={self._socket(guest)}"
                switch.vsctl(*port, "type=dpdkvhostuserclient", path)
        if len(self.stage.hosts) > 1:
            switch.vsctl("add-port", "br0", "wire")

    def _signal(self, number: signal.Signals) -> None:
        for switch in self._switches.values():
            switch.signal(number)

    def _socket(self, guest: str) -> Path:
        return self.stage.folder / f"ov-{guest}.sock"

    def _namespace(self, host: str) -> str:
        return f"ov-{host}"
