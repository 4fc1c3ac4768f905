"""Our switch as a system: one `vsw run FILE` per host, joined by an encrypted mesh over veth."""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from qperf_suite.errors import TopologyError, UsageError
from qperf_suite.guests import LAUNCHER, VhostUser, mac_of
from qperf_suite.system import Seat, Stage, System, start_guest
from qperf_suite.workloads import Case

MESH_PORT = 7400
# Of a bridge, unless told; QEMU does not hand on to its guest what the switch says.
MTU_BYTES = 1400
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class HostPlan:
    """One host of the mesh.

    cpu: of its worker.  ports: guest → its address.  endpoint: address of the veth end.
    """

    name: str
    cpu: int
    endpoint: str
    ports: dict[str, str]
    private_key_file: Path
    public_key: str


def host_config(plan: HostPlan, peers: list[HostPlan], folder: Path) -> str:
    """The configuration file of one host, TOML."""
    lines = [
        f'control = "{folder}/{plan.name}.control"',
        "",
        "[workers]",
        f"cpus = [{plan.cpu}]",
        "",
        "[bridges.br0]",
        'subnets = ["10.5.0.0/24"]',
    ]
    for guest, address in plan.ports.items():
        lines += [
            "",
            f"[bridges.br0.ports.{guest}]",
            'type = "vhost-user"',
            f'path = "{socket_path(folder, guest)}"',
            'mode = "server"',
            f'addresses = ["{address}/32"]',
        ]
    if peers:
        lines += [
            "",
            "[mesh]",
            f'listen = "{plan.endpoint}:{MESH_PORT}"',
            f'private_key_file = "{plan.private_key_file}"',
        ]
    for peer in peers:
        addresses = ", ".join(f'"{address}/32"' for address in peer.ports.values())
        lines += [
            "",
            "[[mesh.peers]]",
            f'public_key = "{peer.public_key}"',
            f'endpoints = ["{peer.endpoint}:{MESH_PORT}"]',
            f"addresses = [{addresses}]",
        ]
    return "\n".join(lines) + "\n"


def socket_path(folder: Path, guest: str) -> Path:
    """Where a guest finds its NIC."""
    return folder / f"{guest}.sock"


class VhostUserSystem(System):
    """Guests on vhost-user sockets of our switch."""

    name = "vhost-user"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._vsw = Path(sys.executable).with_name("vsw")
        if not self._vsw.exists():
            raise UsageError(f"{self._vsw} is missing: run scripts/build first")
        self._seats: dict[str, Seat] = {}
        self._switches: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, stack: ExitStack) -> None:
        """Make hosts and keys, start the switches, then the guests."""
        plans = [self._plan(index, host) for index, host in enumerate(self.stage.hosts, start=1)]
        for plan in plans:
            self.topology.namespace(self._namespace(plan.name))
        if len(plans) > 1:
            ends = [(self._namespace(plan.name), "wire") for plan in plans]
            self.topology.veth(ends[0], ends[1])
        for plan in plans:
            if len(plans) > 1:
                self.topology.address(self._namespace(plan.name), "wire", f"{plan.endpoint}/24")
            peers = [peer for peer in plans if peer is not plan]
            config = self.stage.folder / f"{plan.name}.toml"
            config.write_text(host_config(plan, peers, self.stage.folder))
            self._run_switch(plan.name, config, stack)
        for plan in plans:
            for guest, address in plan.ports.items():
                nic = VhostUser(str(socket_path(self.stage.folder, guest)))
                if self.stage.qemu:
                    nic = replace(nic, mac=mac_of(address), mtu=MTU_BYTES)
                booting = self.stage.vhost_guest("vu", guest, nic, address)
                self._seats[guest] = Seat(start_guest(booting, stack), address)

    def seats(self) -> list[Seat]:
        """Every guest."""
        return list(self._seats.values())

    def seat(self, guest: str, case: Case) -> Seat:
        """The same guest in every case."""
        return self._seats[guest]

    def switches(self) -> list[int]:
        """One daemon per host."""
        return [process.pid for process in self._switches.values()]

    def processes(self) -> Mapping[str, "subprocess.Popen[bytes]"]:
        """The daemons."""
        return self._switches

    def options(self) -> list[str]:
        """What differs from the baselines' guests, asked of a guest that runs."""
        mtu = "unknown"
        for seat in self.seats()[:1]:
            mtu = seat.guest.check("cat /sys/class/net/eth0/mtu").strip()
        guests = "QEMU's virtio-net under TCG" if self.stage.qemu else "UML's virtio_uml"
        return [
            f"vhost-user: {guests}, with the virtio_net driver in every case, as negotiated with "
            f"the switch; MTU {mtu}; encrypted across hosts",
        ]

    def _namespace(self, host: str) -> str:
        return f"vu-{host}"

    def _plan(self, index: int, host: str) -> HostPlan:
        numbered = enumerate(self.stage.guests, start=1)
        ports = {guest: f"10.5.0.{number}" for number, guest in numbered if guest[0] == host}
        key = self.stage.folder / f"{host}.key"
        made = subprocess.run(
            [self._vsw, "keygen", key], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise TopologyError(f"vsw keygen: {made.stderr.strip()}")
        cpu = self.stage.worker_cpu(host)
        return HostPlan(host, cpu, f"192.0.2.{index}", ports, key, made.stdout.strip())

    def _run_switch(self, host: str, config: Path, stack: ExitStack) -> None:
        """Start the daemon in its host and wait until it says READY=1 (sd_notify(3))."""
        notify = self.stage.folder / f"{host}.notify"
        log = self.stage.folder / f"{host}.log"
        namespace = self.topology.full_name(self._namespace(host))
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
            log.open("wb") as output,
        ):
            ready.bind(str(notify))
            process = subprocess.Popen(
                [
                    *(sys.executable, "-IS", LAUNCHER, "--parent", str(os.getpid())),
                    *("--netns", f"/run/netns/{namespace}", "--", self._vsw, "run", config),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "NOTIFY_SOCKET": str(notify)},
            )
            stack.callback(_stop, process)
            self._switches[f"vsw run of host {host}"] = process
            _await_ready(process, ready, log)


def _await_ready(process: subprocess.Popen[bytes], ready: socket.socket, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if select.select([ready], [], [], 0.1)[0] and b"READY=1" in ready.recv(4096):
            return
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip()
            raise TopologyError(f"vsw run ended with {process.returncode}: {said[-1000:]}")
    raise TopologyError(f"vsw run is not ready after {READY_TIMEOUT_S:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


__all__ = ["HostPlan", "VhostUserSystem", "host_config", "socket_path"]
