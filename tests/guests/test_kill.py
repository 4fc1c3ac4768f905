"""The switch is killed again and again while fake guests send; see tests/guests/test_restart.py for
real ones.

Invariant tested: each descriptor comes back exactly once, whatever moment the switch died at; a
frame may arrive twice, but never with other bytes.

VSW_KILLS: how many times (10).
"""

import os
import random
import select
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.daemons import WAIT_S, Daemon, running
from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from tests.fakes.stream import Receiver, Sender
from tests.guests.test_interop import config
from vhost.messages import Feature

KILLS = int(os.environ.get("VSW_KILLS", "10"))
A, B = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
RING = 128
MOMENT_MAX_NS = 150_000

KINDS = {
    "split": MERGEABLE,
    "split in_order event_idx": MERGEABLE | Feature.IN_ORDER | Feature.EVENT_IDX,
    "packed": MERGEABLE | Feature.RING_PACKED,
    "packed in_order event_idx": (
        MERGEABLE | Feature.RING_PACKED | Feature.IN_ORDER | Feature.EVENT_IDX
    ),
}


class Guest:
    """A fake guest that listens, and is connected to by one switch after the other."""

    def __init__(self, path: Path, features: int) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._features = features
        self.front = FrontEnd(self._wait, Ram([(0x1000_0000, 4 << 20)]), RING)
        self.is_up = False

    def _wait(self) -> None:
        if self.front.sock is not None:
            select.select([self.front.sock], [], [], 0.01)

    def try_accept(self) -> None:
        """Go through the handshake when a switch is there."""
        if not select.select([self._listener], [], [], 0)[0]:
            return
        if self.front.sock is not None:
            self.front.sock.close()
        self.front.sock = self._listener.accept()[0]
        self.front.sock.setblocking(False)
        self.front.negotiate(self._features)
        self.front.share_memory()
        for index in (0, 1):
            self.front.start_ring(index)  # as if it were new: the front-end knows nothing
        self.front.settle()
        self.is_up = True

    def close(self) -> None:
        self._listener.close()
        self.front.close()


class Traffic:
    """A guest that sends to another, over a switch that comes and goes."""

    def __init__(self, daemon: Daemon, guests: list[Guest], seed: int) -> None:
        self.daemon = daemon
        self.guests = guests
        self._seed = seed
        self.last_ns = 0
        self.longest_ns = 0
        self.connect()
        self.sender = Sender(guests[0].front, A, B, seed)
        self.receiver = Receiver(guests[1].front)

    def connect(self) -> None:
        deadline = time.monotonic() + WAIT_S
        for guest in self.guests:
            guest.is_up = False
        while not all(guest.is_up for guest in self.guests):
            assert time.monotonic() < deadline, self.daemon.log.read_text()
            for guest in self.guests:
                guest.try_accept()

    def step(self) -> int:
        self.sender.step()
        arrived = self.receiver.step()
        now_ns = time.monotonic_ns()
        if arrived:
            if self.last_ns:
                self.longest_ns = max(self.longest_ns, now_ns - self.last_ns)
            self.last_ns = now_ns
        return arrived

    def run_for(self, frames: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while frames > 0:
            frames -= self.step()
            assert time.monotonic() < deadline, f"{frames} more frames were to arrive"

    def kill(self, after_ns: int) -> None:
        """So long after it was given work, which takes it some microseconds."""
        self.step()
        at_ns = time.monotonic_ns() + after_ns
        while time.monotonic_ns() < at_ns:
            pass
        self.daemon.close()
        self.daemon.start()
        self.connect()

    def finish(self) -> None:
        """Everything that was offered comes back."""
        deadline = time.monotonic() + WAIT_S
        self.receiver.refills = False
        while self.receiver.ring.chains:
            self.step()
            assert time.monotonic() < deadline, f"{len(self.receiver.ring.chains)} buffers lost"
        while self.sender.outstanding:
            self.sender.reap()
            assert time.monotonic() < deadline, f"{self.sender.outstanding} frames lost"


@pytest.mark.parametrize("kind", KINDS)
def test_no_descriptor_is_lost_or_given_back_twice(tmp_path: Path, kind: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    with ExitStack() as stack:
        guests = [Guest(tmp_path / f"vm{i}.sock", int(KINDS[kind])) for i in (1, 2)]
        for guest in guests:
            stack.callback(guest.close)
        (tmp_path / "vsw.toml").write_text(config({"vm1": "client", "vm2": "client"}))
        daemon = stack.enter_context(running(tmp_path / "vsw.toml"))
        traffic = Traffic(daemon, guests, seed)
        for _ in range(KILLS):
            traffic.run_for(chance.randrange(50, 3000))
            traffic.kill(chance.randrange(MOMENT_MAX_NS))
        traffic.run_for(1000)
        traffic.finish()
        assert daemon.stop() == 0
        receiver = traffic.receiver
        print(
            f"{kind}: {KILLS} kills, {traffic.sender.sent} frames sent, "
            f"{len(receiver.numbers)} arrived, {receiver.again} of them twice, "
            f"longest gap {traffic.longest_ns / 1e6:.0f} ms"
        )
