"""Network namespaces: commands in them, and sockets made in them."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from tests.fakes.daemons import Daemon

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
Made = TypeVar("Made")


def sh(command: str) -> str:
    """Echoes, so that a failed test tells what was done."""
    print(f"+ {command}", file=sys.stderr)
    result = subprocess.run(
        command.split(), capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def add_netns(stack: ExitStack, name: str) -> None:
    """Deleted at the end of the stack.  Addresses in it are of use at once."""
    sh(f"ip netns add {name}")
    stack.callback(sh, f"ip netns del {name}")
    for which in ("all", "default"):
        sh(f"ip netns exec {name} sysctl -q -w net.ipv6.conf.{which}.accept_dad=0")


def inside(netns: str, make: Callable[[], Made]) -> Made:
    """What make() returns when a thread in the namespace calls it.  A socket stays in the namespace
    that it was made in."""

    def enter() -> Made:
        with open(f"/run/netns/{netns}", "rb") as file:
            if _LIBC.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), netns)
        return make()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result()


@dataclass
class Host:
    """A namespace with a daemon in it."""

    netns: str
    daemon: Daemon

    def run(self, command: str) -> str:
        return sh(f"ip netns exec {self.netns} {command}")

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.netns, *words]

    def drops(self) -> dict[str, int]:
        """Of the mesh port, by reason."""
        ports = self.daemon.ask("stats")["ports"]
        return next(port["drops"] for port in ports if port["name"] == "mesh")
