"""The systems under test: each a switch with one worker on one CPU and ports that connect to
sockets that somebody else listens on."""

import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from qperf_suite.ovs import Ovs
from tests.bench.errors import BenchError
from tests.bench.library import lib
from tests.bench.priority import prefer
from tests.fakes.closing import Closing
from tests.fakes.daemons import Daemon, until
from tests.fakes.testpmd import Pmd
from vswitch.control import ask


@dataclass(frozen=True)
class Cycles:
    """TSC cycles of a worker since it began: in rounds that moved a packet, and in the others."""

    busy: int
    idle: int

    def since(self, before: "Cycles") -> "Cycles":
        return Cycles(self.busy - before.busy, self.idle - before.idle)

    @property
    def idle_share(self) -> float:
        return self.idle / max(1, self.busy + self.idle)


@dataclass(frozen=True)
class Needs:
    """What a system must be made ready for.

    mtu_bytes: 0: as it is by itself.  cpus: of workers; none: one.  apart: two ports after another
    have a worker of their own.
    """

    macs: int = 0
    mtu_bytes: int = 0
    tso: bool = False
    cpus: tuple[int, ...] = ()
    apart: bool = False


class System(Closing):
    """A context manager: entered, it runs and its ports are connected or trying to."""

    name: str

    def __init__(self, folder: Path, sockets: Sequence[Path], cpu: int, needs: Needs) -> None:
        """folder: empty, its own.  sockets: one port connects to each.  cpu: the worker's."""
        self.needs = needs
        self.folder = folder
        self.sockets = sockets
        self.cpu = cpu

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def cycles(self) -> Cycles: ...

    @abstractmethod
    def pid(self) -> int: ...

    def cpu_s(self) -> float:
        """CPU time of all its threads so far."""
        fields = Path(f"/proc/{self.pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Self:
        try:
            self.start()
            prefer(self.pid())
        except BaseException:
            self.close()
            raise
        return self


class Vsw(System):
    """Ours."""

    name = "vsw"
    idle = "poll"

    def config(self) -> str:
        """The file."""
        ports = "".join(self.port(i, path) for i, path in enumerate(self.sockets))
        mtu = f"mtu = {self.needs.mtu_bytes}\n" if self.needs.mtu_bytes else ""
        table = min(1_000_000, max(16384, 5 * self.needs.macs))
        cpus = list(self.needs.cpus) or [self.cpu]
        return (
            f'control = "control.sock"\n[workers]\ncpus = {cpus}\nidle = "{self.idle}"\n'
            f"[bridges.br0]\nmac_table_size = {table}\n{mtu}{ports}"
        )

    def port(self, number: int, path: Path) -> str:
        """A port's section."""
        text = f'[bridges.br0.ports.p{number}]\ntype = "vhost-user"\npath = "{path}"\n'
        if self.needs.apart:
            text += f"cpus = [{self.needs.cpus[number // 2 % len(self.needs.cpus)]}]\n"
        return text + 'mode = "client"\n'

    def start(self) -> None:
        file = self.folder / "vsw.toml"
        file.write_text(self.config())
        self._daemon = Daemon(file)
        try:
            self._daemon.wait("READY=1")
        except TimeoutError:
            raise BenchError(f"vsw does not start: {self._daemon.log.read_text()}") from None

    def close(self) -> None:
        self._daemon.close()

    def ask(self, command: str) -> Any:
        """The daemon's answer."""
        return ask(str(self._daemon.control), command)

    def cycles(self) -> Cycles:
        """Of all workers together."""
        workers = self.ask("stats")["workers"]
        return Cycles(
            sum(worker["cycles_busy"] for worker in workers),
            sum(worker["cycles_idle"] for worker in workers),
        )

    def pid(self) -> int:
        return self._daemon.process.pid


class VswAdaptive(Vsw):
    """Ours, sleeping when there is nothing to do."""

    name = "vsw-adaptive"
    idle = "adaptive"


class OvsDpdk(System):
    """OVS on DPDK with one poll-mode thread and the action NORMAL."""

    name = "ovs-dpdk"

    def __init__(self, folder: Path, sockets: Sequence[Path], cpu: int, needs: Needs) -> None:
        super().__init__(folder, sockets, cpu, needs)
        self._ovs = Ovs(folder)

    def start(self) -> None:
        options = {
            "dpdk-init": "true",
            "dpdk-extra": "--no-pci --in-memory",
            "dpdk-socket-mem": "512",
            "pmd-cpu-mask": hex(1 << self.cpu),
            "userspace-tso-enable": str(self.needs.tso).lower(),
        }
        bridge = ["datapath_type=netdev"]
        if self.needs.macs > 2048:  # by itself it remembers fewer, and flows for ten seconds
            bridge.append(f"other_config:mac-table-size={2 * self.needs.macs}")
            options["max-idle"] = "600000"
        self._ovs.start(options)
        self._ovs.vsctl("add-br", "br0", "--", "set", "bridge", "br0", *bridge)
        for i, path in enumerate(self.sockets):
            port = ["add-port", "br0", f"p{i}", "--", "set", "Interface", f"p{i}"]
            port += ["type=dpdkvhostuserclient", f"options:vhost-server-path={path}"]
            if self.needs.mtu_bytes:
                port.append(f"mtu_request={self.needs.mtu_bytes}")
            self._ovs.vsctl(*port)
        until(lambda: "cycles" in self._statistics(), "the PMD thread")

    def close(self) -> None:
        self._ovs.close()

    def cycles(self) -> Cycles:
        text = self._statistics()
        text = text.split("pmd thread", 1)[1].split("main thread", 1)[0]
        idle = re.search(r"idle cycles: (\d+)", text)
        busy = re.search(r"processing cycles: (\d+)", text)
        return Cycles(int(busy[1]) if busy else 0, int(idle[1]) if idle else 0)

    def pid(self) -> int:
        return self._ovs.pid

    def _statistics(self) -> str:
        return self._ovs.appctl("dpif-netdev/pmd-stats-show")


class DpdkIo(System):
    """DPDK's vhost library passing bursts between two ports: no switching, not even a look."""

    name = "dpdk-io"

    def start(self) -> None:
        tso = int(self.needs.tso)
        devices = [
            f"--vdev=net_vhost{i},iface={path},client=1,tso={tso}"
            for i, path in enumerate(self.sockets)
        ]
        room = 2304 if self.needs.mtu_bytes == 0 else 10240
        control = next(c for c in sorted(os.sched_getaffinity(0)) if c != self.cpu)
        self._pmd = Pmd(
            ["-l", f"{control},{self.cpu}", f"--main-lcore={control}", "-m", "256", *devices],
            [
                *("--forward-mode=io", "--total-num-mbufs=16384", "--record-core-cycles"),
                f"--mbuf-size={room}",
            ],
        )
        self._pmd.ready()
        self._pmd.tell("start")

    def close(self) -> None:
        self._pmd.close()

    def cycles(self) -> Cycles:
        """What its worker did not spend on packets, it was idle."""
        found = re.search(r"total cycles=(\d+)", self._pmd.tell("show fwd stats all"))
        busy = int(found[1]) if found else 0
        return Cycles(busy, int(lib().tsc_now()) - busy)

    def pid(self) -> int:
        return self._pmd.pid
