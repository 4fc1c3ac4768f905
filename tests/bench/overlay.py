"""What joins two hosts: the wire itself, the kernel's VXLAN, or a daemon on each of them."""

import os
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.bench.errors import BenchError
from tests.bench.ground import Ground, run, wire_address
from tests.bench.iperf import Way, answers
from tests.fakes.closing import Closing
from tests.fakes.daemons import until

# Inner packets of this size fit a wire of 1500 bytes in all of them.
MTU_BYTES = 1420
ETHERNET_BYTES, IP_BYTES, UDP_BYTES, TCP_BYTES = 14, 20, 8, 32


def inner(host: int) -> str:
    """A host's address in the network that is laid over the wires."""
    return f"10.5.0.{host + 1}"


def cpu_s(pid: int) -> float:
    """CPU time of a process's present threads, as the scheduler counts it."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) * 1e-9


class Overlay(Closing):
    """A context manager: entered, it runs and its ends answer each other."""

    name: str
    # Bytes that it adds to each inner packet, behind the wire's Ethernet header.
    overhead_bytes = 0
    mtu_bytes = MTU_BYTES

    def __init__(self, ground: Ground, folder: Path) -> None:
        """folder: its own."""
        self.ground = ground
        self.folder = folder
        self.last = len(ground.names) - 1
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path] = []

    @abstractmethod
    def start(self) -> None: ...

    def address(self, host: int) -> str:
        return inner(host)

    @property
    def there(self) -> Way:
        return Way(0, self.last, self.address(self.last))

    @property
    def back(self) -> Way:
        return Way(self.last, 0, self.address(0))

    @property
    def payload_share(self) -> float:
        """Of a wire's rate, what the headers of full TCP segments leave."""
        payload = self.mtu_bytes - IP_BYTES - TCP_BYTES
        return payload / (self.mtu_bytes + self.overhead_bytes + ETHERNET_BYTES)

    def launch(self, host: int, *words: str, environment: Mapping[str, str] | None = None) -> None:
        """A daemon that stays in the foreground."""
        program = words[0]
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            raise BenchError(f"there is no {program}")
        log = self.folder / f"{Path(program).name}{host}.log"
        with log.open("wb") as output:
            self._processes.append(
                subprocess.Popen(
                    self.ground.command(host, *words),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self.folder,
                    env={**os.environ, **(environment or {})},
                )
            )
        self._logs.append(log)

    def give_address(self, host: int, device: str) -> None:
        """To a device, once it is there."""
        until(lambda: device in self.devices(host) or self.ended(), f"the device {device}")
        self.ground.ip(host, "address", "add", f"{inner(host)}/24", "dev", device)
        self.ground.ip(host, "link", "set", device, "mtu", str(self.mtu_bytes), "up")

    def devices(self, host: int) -> str:
        return run("ip", "-n", self.ground.names[host], "-br", "link")

    def answers(self) -> bool:
        """Whether the last host does, to the first."""
        return answers(self.ground, self.there)

    def ended(self) -> bool:
        """Whether a daemon did, too early."""
        return any(process.poll() is not None for process in self._processes)

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def cpu_s(self) -> float:
        """CPU time of all daemons so far, with what the kernel did in their name."""
        return sum(map(cpu_s, self.pids()))

    def __enter__(self) -> Self:
        try:
            self.start()
            until(lambda: self.ended() or self.answers(), "an answer")
            if self.ended():
                raise BenchError("the daemon ended")
        except (BenchError, AssertionError) as error:
            said = self.last_words()
            self.close()
            raise BenchError(f"{self.name} does not start: {error}{said}") from None
        except BaseException:
            self.close()
            raise
        return self

    def last_words(self) -> str:
        """Of the logs."""
        said = [log.read_text(errors="replace").strip() for log in self._logs if log.exists()]
        lines = [text.splitlines()[-1] for text in said if text]
        return "".join(f"; {line}" for line in lines)

    def close(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []


class Raw(Overlay):
    """The wire, and nothing else; through another host, the kernel's routing."""

    name = "raw"
    mtu_bytes = 1500

    def start(self) -> None:
        if self.last > 1:
            self.ground.through(1)
            self.ground.ip(0, "route", "add", "default", "via", wire_address(0, 1))
            self.ground.ip(self.last, "route", "add", "default", "via", wire_address(1, 0))

    def address(self, host: int) -> str:
        return wire_address(0, 0) if host == 0 else wire_address(host - 1, 1)


class Vxlan(Overlay):
    """The kernel's tunnel, in clear text."""

    name = "vxlan"
    overhead_bytes = IP_BYTES + UDP_BYTES + 8 + ETHERNET_BYTES

    def start(self) -> None:
        for host in (0, 1):
            local, remote = wire_address(0, host), wire_address(0, 1 - host)
            self.ground.ip(
                host,
                *("link", "add", "vx0", "type", "vxlan", "id", "1", "dev", "wire0"),
                *("local", local, "remote", remote, "dstport", "4789"),
            )
            self.give_address(host, "vx0")
