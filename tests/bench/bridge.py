"""The kernel's bridge with two taps, in a network namespace of its own."""

import ctypes
import fcntl
import os
import struct
import subprocess
from typing import Self

from tests.bench.errors import BenchError
from tests.fakes.closing import Closing

TUNSETIFF, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8
TAP, NO_PI, VNET_HDR = 0x2, 0x1000, 0x4000
VNET_BYTES = 12
CLONE_NEWNET = 0x40000000


class KernelBridge(Closing):
    """taps: file descriptors of what two guests would have."""

    name = "bridge"

    def __init__(self) -> None:
        self._namespace = f"vswbench{os.getpid()}"
        self.taps: list[int] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        self._ip("netns", "add", self._namespace)
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        other = os.open(f"/run/netns/{self._namespace}", os.O_RDONLY)
        try:
            setns(other)
            self._ip("link", "add", "br0", "type", "bridge", "stp_state", "0")
            for name in ("t0", "t1"):
                self.taps.append(open_tap(name))
                self._ip("link", "set", name, "master", "br0", "addrgenmode", "none", "up")
            self._ip("link", "set", "br0", "addrgenmode", "none", "up")
        finally:
            setns(own)
            os.close(own)
            os.close(other)

    def _ip(self, *arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    def close(self) -> None:
        for fd in self.taps:
            os.close(fd)
        self.taps = []
        subprocess.run(["ip", "netns", "del", self._namespace], capture_output=True, check=False)


def open_tap(name: str) -> int:
    """A new tap in the present namespace, with virtio-net headers, non-blocking."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_PI | VNET_HDR))
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_BYTES))
    return fd


def setns(namespace: int) -> None:
    """The calling thread moves to a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise BenchError(f"setns: {os.strerror(ctypes.get_errno())}")
