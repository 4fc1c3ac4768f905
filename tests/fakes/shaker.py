"""A piece of the way between two networks where datagrams are lost, late, out of order, or double.

A tun device of the router: what comes in by one side is read from it, and written back when its
time has come, to be routed on.  Each datagram is on its own here, checksums are complete.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from tests.fakes.closing import Closing
from tests.fakes.netns import inside, sh

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
TABLE = 100
QUEUE = 10_000


@dataclass(frozen=True)
class Faults:
    """loss, double: of how many datagrams, 0 to 1.  delay_s: each one's is between nothing and
    this."""

    loss: float = 0.0
    double: float = 0.0
    delay_s: float = 0.0


class Shaker(Closing):
    def __init__(self, netns: str, sides: Sequence[str], faults: Faults, seed: int = 1) -> None:
        """sides: the router's devices."""
        self.faults = faults
        self.lost = self.doubled = self.overtaken = 0
        self._random = random.Random(seed)
        self._fd = inside(netns, lambda: os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
        request = struct.pack("16sH22x", b"shaker", IFF_TUN | IFF_NO_PI)
        inside(netns, lambda: fcntl.ioctl(self._fd, TUNSETIFF, request))
        sh(f"ip -n {netns} link set shaker up mtu 9000")
        for family in ("-4", "-6"):
            sh(f"ip -n {netns} {family} route add default dev shaker table {TABLE}")
            for side in sides:
                sh(f"ip -n {netns} {family} rule add iif {side} lookup {TABLE}")
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        late: list[tuple[float, int, bytes]] = []
        number = newest = 0
        while True:
            wait_s = max(late[0][0] - monotonic(), 0) if late else None
            readable, _, _ = select.select([self._fd, self._wake], [], [], wait_s)
            if self._wake in readable:
                return
            if self._fd in readable:
                packet = os.read(self._fd, 1 << 16)
                for _ in range(self._copies()):
                    number += 1
                    delay_s = self._random.random() * self.faults.delay_s
                    heapq.heappush(late, (monotonic() + delay_s, number, packet))
                del late[QUEUE:]
            while late and late[0][0] <= monotonic():
                _, which, packet = heapq.heappop(late)
                self.overtaken += which < newest
                newest = max(newest, which)
                os.write(self._fd, packet)

    def _copies(self) -> int:
        if self._random.random() < self.faults.loss:
            self.lost += 1
            return 0
        if self._random.random() < self.faults.double:
            self.doubled += 1
            return 2
        return 1

    def close(self) -> None:
        os.write(self._waker, b"x")
        self._thread.join()
        for fd in (self._fd, self._wake, self._waker):
            os.close(fd)
