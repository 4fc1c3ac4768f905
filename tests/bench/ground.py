"""Hosts in a row: network namespaces, each joined to the next by a veth.

  host 0                  host 1                  host 2
192.0.2.1 === wire0 === 192.0.2.2
                        192.0.2.5 === wire1 === 192.0.2.6
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.bench.bridge import setns
from tests.bench.errors import BenchError
from tests.fakes.closing import Closing

LONGEST_S = 60
# Of a shaped wire: what a token bucket lets through at once, and what may wait for it.
BURST_BYTES = 128 * 1024
BACKLOG_BYTES = 512 * 1024


def wire_address(wire: int, end: int) -> str:
    """end: 0 the left one, 1 the right one."""
    return f"192.0.2.{4 * wire + 1 + end}"


def run(*command: str) -> str:
    """What it prints.  Raises BenchError when it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    except FileNotFoundError:
        raise BenchError(f"there is no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)}: not done after {LONGEST_S} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise BenchError(f"{' '.join(command)}: {said[-1] if said else done.returncode}")
    return done.stdout


class Ground(Closing):
    """A context manager: inside, the hosts exist.  Processes in them are their starters' to end."""

    def __init__(self, count: int = 2, rate_mbit: int = 0) -> None:
        """rate_mbit: of each wire in each direction; 0: as fast as it goes."""
        self.names = [f"vswmesh{number}x{os.getpid()}" for number in range(count)]
        self.cpus = sorted(os.sched_getaffinity(0))
        self.apart = count <= len(self.cpus)
        self._stack = ExitStack()
        with ExitStack() as undo:
            undo.push(self)
            for name in self.names:
                run("ip", "netns", "add", name)
                self._stack.callback(run, "ip", "netns", "del", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
            for wire in range(count - 1):
                self._join(wire, rate_mbit)
            undo.pop_all()

    def _join(self, wire: int, rate_mbit: int) -> None:
        device, ends = f"wire{wire}", self.names[wire : wire + 2]
        run(
            *("ip", "link", "add", device, "netns", ends[0]),
            *("type", "veth", "peer", "name", device, "netns", ends[1]),
        )
        for end, name in enumerate(ends):
            run("ip", "-n", name, "address", "add", f"{wire_address(wire, end)}/30", "dev", device)
            run("ip", "-n", name, "link", "set", device, "up")
            if rate_mbit:
                run(
                    *("tc", "-n", name, "qdisc", "add", "dev", device, "root", "tbf"),
                    *("rate", f"{rate_mbit}mbit", "burst", str(BURST_BYTES)),
                    *("limit", str(BACKLOG_BYTES)),
                )

    def command(self, host: int, *words: str) -> list[str]:
        """The command, as it runs in a host."""
        place = ["taskset", "-c", str(self.cpu(host))] if self.apart else []
        return [*place, "ip", "netns", "exec", self.names[host], *words]

    def cpu(self, host: int) -> int:
        """The host's, or one of those that all share."""
        return self.cpus[host % len(self.cpus)]

    def run(self, host: int, *words: str) -> str:
        return run(*self.command(host, *words))

    def ip(self, host: int, *words: str) -> None:
        run("ip", "-n", self.names[host], *words)

    def through(self, host: int) -> None:
        """The host passes on what is for its neighbours."""
        self.run(host, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    @contextmanager
    def inside(self, host: int) -> Iterator[None]:
        """The calling thread's new sockets belong to a host; they do so afterwards, too."""
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        other = os.open(f"/run/netns/{self.names[host]}", os.O_RDONLY)
        try:
            setns(other)
            yield
        finally:
            setns(own)
            os.close(own)
            os.close(other)

    def close(self) -> None:
        self._stack.close()
