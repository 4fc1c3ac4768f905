"""What a system under test is to the runner: guests with addresses, on one or two hosts."""

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from qperf_suite.agent import CommandResult
from qperf_suite.errors import GuestError, TopologyError
from qperf_suite.guests import Guest, QemuGuest, UmlGuest, VhostUser
from qperf_suite.plans import GUEST_MEMORY_MIB, GUESTS
from qperf_suite.topology import Topology
from qperf_suite.workloads import SERVERS, Case


class Machine(Protocol):
    """What is asked of a guest, also of one that was not booted here.

    session: of its processes on this machine, None when it is another's.
    """

    @property
    def session(self) -> int | None: ...

    def wait_ready(self) -> None: ...

    def run(self, command: str, timeout_s: float = 10.0) -> CommandResult: ...

    def check(self, command: str, timeout_s: float = 10.0) -> str: ...

    def spawn(self, command: str) -> None: ...


@dataclass(frozen=True)
class Seat:
    """A guest, and the address under which the others reach it."""

    guest: Machine
    address: str


@dataclass(frozen=True)
class Stage:
    """What systems are built with.

    folder: for sockets and files, short.  guests: names, the first letter is the host.
    cpus: guest → CPUs; guests that are not in it may run anywhere.  memory_mib: of each guest.
    qemu: guests on vhost-user are QEMU's, because one of the switches serves no others.
    """

    topology: Topology
    folder: Path
    guests: Sequence[str] = GUESTS
    cpus: Mapping[str, Sequence[int]] | None = None
    memory_mib: int = GUEST_MEMORY_MIB
    qemu: bool = False

    @property
    def hosts(self) -> list[str]:
        """Hosts that have guests."""
        return sorted({guest[0] for guest in self.guests})

    def cpus_of(self, guest: str) -> Sequence[int] | None:
        """Where a guest may run."""
        return None if self.cpus is None else self.cpus.get(guest)

    def worker_cpu(self, host: str) -> int:
        """Hosts have CPUs of their own; here each host's switch takes another of this machine's."""
        cpus = sorted(os.sched_getaffinity(0))
        return cpus[self.hosts.index(host) % len(cpus)]

    def workers_text(self) -> str:
        """For under the table."""
        places = ", ".join(f"of host {host} on CPU {self.worker_cpu(host)}" for host in self.hosts)
        return f"workers of switches: {places}"

    def vhost_guest(self, prefix: str, guest: str, nic: VhostUser, address: str) -> Guest:
        """A guest on a vhost-user socket, not started yet."""
        kind = QemuGuest if self.qemu else UmlGuest
        return kind(
            f"{prefix}-{guest}",
            nics=[nic],
            addresses=[f"{address}/24"],
            cpus=self.cpus_of(guest),
            memory_mib=self.memory_mib,
        )


class System(ABC):
    """One network between guests. Call order: start, wait_ready, then seat and restart_servers.

    start() returns while guests boot, so that all systems boot together.
    """

    name: ClassVar[str]
    # What a guest needs beyond its address.
    boot_commands: ClassVar[tuple[str, ...]] = ()

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.topology = stage.topology

    @abstractmethod
    def start(self, stack: ExitStack) -> None:
        """Make the network and start the guests; what has to be undone goes on the stack."""

    @abstractmethod
    def seats(self) -> list[Seat]:
        """Every guest of this system."""

    @abstractmethod
    def seat(self, guest: str, case: Case) -> Seat:
        """The guest that takes part in a case."""

    @abstractmethod
    def options(self) -> list[str]:
        """What a reader of the figures has to know of drivers, offloads and MTU."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """While it is measured; in between a network should leave the CPUs to the others.

        Raises TopologyError, before and after, when a process of the network has ended.
        """
        check_running(self.processes())
        try:
            yield
        except GuestError:
            # A guest may be lost because its switch has ended.
            check_running(self.processes())
            raise
        check_running(self.processes())

    def processes(self) -> Mapping[str, "subprocess.Popen[bytes]"]:
        """What has to run as long as the network does, by what people call it."""
        return {}

    def switches(self) -> list[int]:
        """Processes of the network itself; each leads a session. The kernel's have none."""
        return []

    def wait_ready(self) -> None:
        """Wait for the guests, then start the tools' servers in them."""
        for seat in self.seats():
            seat.guest.wait_ready()
            for command in self.boot_commands:
                seat.guest.check(command)
            self.restart_servers(seat.guest)

    def restart_servers(self, guest: Machine) -> None:
        """Start the tools' servers anew, after boot and after a failure."""
        guest.run("killall -9 qperf iperf3 pingpong")
        for server in SERVERS:
            guest.spawn(server)


def check_running(processes: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    """Raises TopologyError when one has ended. processes: by what people call them."""
    for name, process in processes.items():
        if (status := process.poll()) is not None:
            raise TopologyError(f"{name} ended with {status}")


def start_guest(guest: Guest, stack: ExitStack) -> Guest:
    """Start a guest that the stack will stop."""
    stack.callback(guest.stop)
    guest.start()
    return guest
