"""Guests: real kernels with real drivers, booted in seconds, without KVM and without root.

    with UmlGuest("a", nics=[VhostUser("/run/a.sock")], addresses=["10.5.0.1/24"]) as guest:
        guest.run("ping -c1 10.5.0.2", timeout_s=5)

A guest is one process; it dies with its parent, and leaves no files.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from qperf_suite.agent import Agent, CommandResult
from qperf_suite.errors import GuestError
from qperf_suite.image import qemu_image, uml_image, uml_preload
from qperf_suite.leftovers import PREFIX

LAUNCHER = Path(__file__).with_name("launch.py")
BOOT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 3.0
# With uml_preload.c the guest's kernel keeps x87 and SSE registers only, and a page
# fault clears the upper halves of the others: nothing in the guest may use those.
SSE_ONLY = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX512BW"
VEC_OPTIONS = "depth=128,gro=1"


@dataclass(frozen=True)
class VhostUser:
    """A NIC on a vhost-user socket. server: the guest's side listens (QEMU only).

    queues: pairs; packed, mrg_rxbuf: what the front-end lets its driver have (QEMU only).
    properties: more of QEMU's device, like "csum=off".
    """

    path: str
    server: bool = False
    mac: str | None = None
    queues: int = 1
    packed: bool = False
    mrg_rxbuf: bool = True
    properties: tuple[str, ...] = ()
    mtu: int | None = None


@dataclass(frozen=True)
class Tap:
    """A NIC on a tap device that exists.

    driver, options: of User Mode Linux.  "vector" has offloads and takes options; "tuntap" is
    the older one, without offloads, and quicker to answer.
    """

    ifname: str
    mac: str | None = None
    driver: Literal["vector", "tuntap"] = "vector"
    options: str = VEC_OPTIONS
    mtu: int | None = None


Nic = VhostUser | Tap


class Guest:
    """What the kinds of guest share; use UmlGuest or QemuGuest.

    addresses: one per NIC, "10.5.0.1/24", "" for none.  netns: name of a network namespace that
    the process runs in (needs root).  cpus: CPUs that it may use.
    """

    def __init__(
        self,
        name: str,
        *,
        nics: Sequence[Nic],
        addresses: Sequence[str] = (),
        netns: str | None = None,
        cpus: Sequence[int] | None = None,
        memory_mib: int = 256,
    ) -> None:
        self.name = name
        self.nics = list(nics)
        self.addresses = list(addresses)
        self.netns = netns
        self.cpus = list(cpus) if cpus is not None else None
        self.memory_mib = memory_mib
        self.process: subprocess.Popen[bytes] | None = None
        self._agent: Agent | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that is the guest."""
        if self.process is None:
            raise GuestError(f"guest {self.name} is not running")
        return self.process.pid

    @property
    def session(self) -> int | None:
        """Of all its processes."""
        return self.pid

    @property
    def interfaces(self) -> list[str]:
        """Names of the NICs inside the guest, in order."""
        return [f"eth{index}" for index in range(len(self.nics))]

    def start(self) -> None:
        """Start the process and return at once.

        Call it from a thread that outlives the guest: the kernel kills the guest with its
        parent's *thread* (prctl(2), PR_SET_PDEATHSIG).
        """
        self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{self.name}-"))
        ours, theirs = socket.socketpair()
        self._agent = Agent(self.name, ours)
        launcher = [sys.executable, "-IS", str(LAUNCHER), "--parent", str(os.getpid())]
        if self.netns is not None:
            launcher += ["--netns", f"/run/netns/{self.netns}"]
        if self.cpus is not None:
            launcher += ["--cpus", ",".join(map(str, self.cpus))]
        with theirs, (self._folder / "console").open("wb") as console:
            command = self._command(self._folder, theirs.fileno())
            self.process = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "TMPDIR": "/dev/shm"},
            )

    def wait_ready(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Wait until the guest runs commands, then set its addresses; raises GuestError."""
        if self._agent is None:
            raise GuestError(f"guest {self.name} is not running")
        try:
            self._agent.wait_ready(timeout_s)
        except GuestError as error:
            raise GuestError(f"{error}; its console ends with:\n{self.console()}") from error
        for index, (nic, interface) in enumerate(zip(self.nics, self.interfaces, strict=True)):
            if nic.mac is not None:
                self.check(f"ip link set {interface} address {nic.mac}")
            if nic.mtu is not None:
                self.check(f"ip link set {interface} mtu {nic.mtu}")
            self.check(f"ip link set {interface} up")
            if index < len(self.addresses) and self.addresses[index]:
                self.check(f"ip addr add {self.addresses[index]} dev {interface}")

    def run(self, command: str, timeout_s: float = 10.0) -> CommandResult:
        """Run a shell command in the guest; raises GuestError when the guest is gone."""
        if self._agent is None:
            raise GuestError(f"guest {self.name} is not running")
        return self._agent.run(command, timeout_s)

    def check(self, command: str, timeout_s: float = 10.0) -> str:
        """Run a command that has to succeed; returns its output, raises GuestError."""
        result = self.run(command, timeout_s)
        if not result.ok:
            raise GuestError(f"guest {self.name}: {command}: {result.words}")
        return result.stdout

    def spawn(self, command: str) -> None:
        """Start a command that goes on in the background, in a session of its own."""
        self.check(f"setsid sh -c 'exec {command}' </dev/null >/dev/null 2>&1 &")

    def console(self, lines: int = 25) -> str:
        """The last lines of the guest's kernel messages."""
        if self._folder is None:
            return ""
        text = (self._folder / "console").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Power off, or kill, and remove what the guest left. Safe to call twice."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self.process is not None:
            self._ask_to_stop(self.process)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _ask_to_stop(self, process: subprocess.Popen[bytes]) -> None:
        """Beyond the end of the agent's line, which powers a guest off that notices it."""

    def _command(self, folder: Path, line_fd: int) -> list[str]:
        raise GuestError("use UmlGuest or QemuGuest")


class UmlGuest(Guest):
    """A User Mode Linux guest: 6.1, one CPU, virtio_uml or the vector driver."""

    @property
    def interfaces(self) -> list[str]:
        """Vector devices are vecN, N counting all NICs; the others are numbered by themselves."""
        ethernet = iter(range(len(self.nics)))
        return [
            f"vec{index}" if _is_vector(nic) else f"eth{next(ethernet)}"
            for index, nic in enumerate(self.nics)
        ]

    def _command(self, folder: Path, line_fd: int) -> list[str]:
        image = uml_image()
        command = [
            *("--preload", str(uml_preload()), "--", str(image.kernel)),
            *(f"umid={self.name}", f"uml_dir={folder}"),
            *(f"mem={self.memory_mib}M", f"initrd={image.initramfs}", "root=/dev/ram0"),
            *("con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{line_fd}"),
            *("quiet", "noreboot", "panic=1", "agent=ttyS0", f"GLIBC_TUNABLES={SSE_ONLY}"),
        ]
        for nic, interface in zip(self.nics, self.interfaces, strict=True):
            if isinstance(nic, Tap) and nic.driver == "vector":
                mac = f",mac={nic.mac}" if nic.mac else ""
                command.append(f"{interface}:transport=tap,ifname={nic.ifname},{nic.options}{mac}")
            elif isinstance(nic, Tap):
                command.append(f"{interface}=tuntap,{nic.ifname},{nic.mac or ''}")
            elif nic.server:
                raise GuestError("User Mode Linux connects to its socket and cannot listen")
            else:
                command.append(f"virtio_uml.device={nic.path}:1")
        return command


class QemuGuest(Guest):
    """A QEMU guest with Debian's cloud kernel; KVM only when told so, otherwise TCG.

    hugepages: its memory is made of 2 MiB pages, which have to be reserved.  arguments: more of
    QEMU's own, behind ours.
    """

    def __init__(
        self,
        name: str,
        *,
        nics: Sequence[Nic],
        addresses: Sequence[str] = (),
        netns: str | None = None,
        cpus: Sequence[int] | None = None,
        memory_mib: int = 256,
        vcpus: int = 1,
        hugepages: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name, nics=nics, addresses=addresses, netns=netns, cpus=cpus, memory_mib=memory_mib
        )
        self.vcpus = vcpus
        self.hugepages = hugepages
        self.arguments = list(arguments)

    def _ask_to_stop(self, process: subprocess.Popen[bytes]) -> None:
        """A serial port of QEMU's has no end of file, but QEMU ends its devices in good order."""
        process.terminate()

    def _command(self, folder: Path, line_fd: int) -> list[str]:
        image = qemu_image()
        memory = f"memory-backend-memfd,id=ram,size={self.memory_mib}M,share=on"
        if self.hugepages:
            memory += ",hugetlb=on,hugetlbsize=2M"
        command = [
            *("--", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", "q35,memory-backend=ram", "-object", memory, *_TCG),
            *("-m", f"{self.memory_mib}M", "-smp", str(self.vcpus), "-no-reboot"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initramfs)),
            *("-append", "console=ttyS0 quiet panic=-1 net.ifnames=0 agent=ttyS1"),
            *("-serial", "stdio", "-chardev", f"socket,id=agent,fd={line_fd}"),
            *("-serial", "chardev:agent"),
        ]
        for index, nic in enumerate(self.nics):
            command += _qemu_nic(index, nic)
        return command + self.arguments


def mac_of(address: str) -> str:
    """A local MAC address for an IPv4 address, "02:00:0a:05:00:01" for 10.5.0.1."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


_TCG = ["-accel", "tcg,thread=multi", "-cpu", "max"]


def _is_vector(nic: Nic) -> bool:
    return isinstance(nic, Tap) and nic.driver == "vector"


def _qemu_nic(index: int, nic: Nic) -> list[str]:
    """Arguments for one NIC. vectors=0: QEMU 7.2 crashes with vhost-user, MSI-X and TCG."""
    mac = nic.mac or f"52:54:00:{os.getpid() >> 8 & 255:02x}:{os.getpid() & 255:02x}:{index:02x}"
    device = f"virtio-net-pci,netdev=net{index},mac={mac},vectors=0"
    if isinstance(nic, Tap):
        backend = f"tap,id=net{index},ifname={nic.ifname},script=no,downscript=no,vnet_hdr=on"
        return ["-netdev", backend, "-device", device]
    role = ",server=on,wait=off" if nic.server else ",reconnect=1"
    device += f",packed={_on(nic.packed)},mrg_rxbuf={_on(nic.mrg_rxbuf)}"
    device += "".join(f",{given}" for given in nic.properties)
    if nic.queues > 1:
        device += ",mq=on"
    return [
        *("-chardev", f"socket,id=sock{index},path={nic.path}{role}"),
        *("-netdev", f"vhost-user,id=net{index},chardev=sock{index},queues={nic.queues}"),
        *("-device", device),
    ]


def _on(value: bool) -> str:
    return "on" if value else "off"


__all__ = [
    "CommandResult",
    "Guest",
    "Nic",
    "QemuGuest",
    "Tap",
    "UmlGuest",
    "VhostUser",
    "mac_of",
]
