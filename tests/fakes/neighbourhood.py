"""A switch with a guest that does wrong, its partner, and two neighbours who talk all the time.

What every test of hostile guests claims is checked here once, when the neighbourhood is left: only
the rings that the test expected are broken, each for its reason; the neighbours lost nothing; open
files and mappings are as many as before.
"""

import gc
import os
import socket
import struct
from pathlib import Path
from types import TracebackType

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ring import PackedRing, Ring
from tests.fakes.vhostbox import VhostBox, frame, mac, pair
from vhost.messages import Feature

OFFENDER, PARTNER, LEFT, RIGHT = range(4)
ENOUGH = MERGEABLE | Feature.INDIRECT_DESC
C, D = mac("02:00:00:00:00:0c"), mac("02:00:00:00:00:0d")
COUNTER = struct.Struct(">Q")
RECEIVE_BUFFERS, SEND_BUFFERS = 32, 8


class Neighbour:
    """Sends numbered frames to another one and checks those that it gets, buffers used again."""

    def __init__(self, front: FrontEnd, own: bytes, other: bytes) -> None:
        self.front = front
        self.own = own
        self._head = other + own + b"\x88\xb5"
        self._want = own + other + b"\x88\xb5"
        self.sent = 0
        self.received = 0
        front.boot()
        front.post(RECEIVE_BUFFERS)
        self._buffers = [front.ram.alloc(512) for _ in range(SEND_BUFFERS)]
        self._free = list(self._buffers)

    def send(self) -> None:
        """One frame more, if the switch gave an earlier one back."""
        ring = self.front.rings[1]
        back = [buffers[0][0] for _, _, buffers in ring.reap()]
        self._free += [gpa for gpa in back if gpa in self._buffers]
        if not self._free:
            return
        data = self._head + COUNTER.pack(self.sent) + bytes([self.sent & 0xFF]) * 300
        gpa = self._free.pop(0)
        self.front.ram.write(gpa, bytes(12) + data)
        ring.add([(gpa, 12 + len(data), False)])
        os.eventfd_write(ring.kick, 1)
        self.sent += 1

    def collect(self) -> None:
        """Check what came from the other one: all of it, in order, whole."""
        ring = self.front.rings[0]
        for _, size, buffers in ring.reap():
            data = self.front.ram.read(buffers[0][0], size)[12:]
            ring.add(buffers)
            if not data.startswith(self._want):
                continue  # flooded, for somebody the switch did not know yet
            assert data[14:] == COUNTER.pack(self.received) + bytes([self.received & 0xFF]) * 300
            self.received += 1


class Neighbourhood(VhostBox):
    """offender and partner: connected, and booted unless features is None."""

    def __init__(
        self,
        features: int | None = ENOUGH,
        partner: int = ENOUGH,
        *,
        ring_size: int = 256,
    ) -> None:
        self._before = usage()
        self._neighbours: list[Neighbour] = []
        self._broken: dict[tuple[int, int], str] = {}
        self._is_gone = False
        self._seed = 0
        self._raised: list[dict[str, object]] = []
        self._flooded: list[dict[str, int]] = []
        super().__init__(4)
        left, right = (Neighbour(self.front(p), a, b) for p, a, b in ((2, C, D), (3, D, C)))
        if features is None:
            self.offender, self.partner = self.front(OFFENDER), self.front(PARTNER)
            self.partner.boot(partner)
        else:
            self.offender, self.partner = pair(self, features, partner, ring_size=ring_size)
        self._neighbours = [left, right]
        self.loop.set_exception_handler(lambda _, context: self._raised.append(context))
        self.turns(4)
        self._flooded = [super(Neighbourhood, self).drops(n) for n in range(4)]

    def drops(self, number: int) -> dict[str, int]:
        """Since all know each other: what was flooded before found no room everywhere."""
        drops = super().drops(number)
        if self._flooded:
            drops = {why: n - self._flooded[number].get(why, 0) for why, n in drops.items()}
        return {why: n for why, n in drops.items() if n}

    def pump(self) -> None:
        """The event loop, and life goes on next door."""
        super().pump()
        self.turn()

    def turn(self) -> None:
        """Each neighbour sends a frame, the worker breathes, each looks what came."""
        for neighbour in self._neighbours:
            neighbour.send()
        self.breathe()
        for neighbour in self._neighbours:
            neighbour.collect()

    @property
    def frames_between_neighbours(self) -> int:
        """How many have arrived."""
        return sum(neighbour.received for neighbour in self._neighbours)

    @property
    def left(self) -> Neighbour:
        return self._neighbours[0]

    def serve_sockets(self) -> None:
        """The event loop alone, without a breath."""
        super().pump()

    def works(self) -> None:
        """A frame of the offender's arrives at its partner."""
        self._seed += 1
        self.partner.received()
        self.partner.post(1)
        self.offender.ring(1).reap()
        self.offender.transmit(frame(64, self._seed))
        os.eventfd_write(self.offender.ring(1).kick, 1)
        self.turns(3)
        assert self.partner.frames() == [frame(64, self._seed)]

    def given_back(self, ring: Ring | PackedRing, count: int) -> list[int]:
        """Kicks; the bytes written to each of so many chains, once the ring has them back."""
        os.eventfd_write(ring.kick, 1)
        sizes: list[int] = []
        for _ in range(300):
            self.breathe()
            sizes += [size for _, size, _ in ring.reap()]
            if len(sizes) >= count:
                return sizes
        raise AssertionError(f"{len(sizes)} of {count} chains came back")

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.pump()

    # ---- what is expected

    def expect_broken(self, index: int, reason: str, port: int = OFFENDER) -> None:
        """The ring breaks soon, for this reason."""
        self._broken[port, index] = reason
        self.turns(3)
        assert self.ring_state(port, index) == reason

    def expect_reset(self) -> None:
        """The device was reset: nothing of the offender's runs any more, so it goes away."""
        queues = self.ports[OFFENDER].status()["queues"]
        assert isinstance(queues, list)
        assert not any(queue["started"] for queue in queues)
        assert self.offender.sock is not None
        self.offender.sock.shutdown(socket.SHUT_RDWR)

    def may_be_gone(self, reason: str) -> None:
        """If the connection has ended, then for this reason."""
        status = self.ports[OFFENDER].status()
        if status["state"] != "connected":
            assert reason in str(status["reason"])
            self._is_gone = True

    def may_break(self, index: int, port: int = OFFENDER) -> None:
        """Where it depends on what was there first; if it breaks, then with a reason."""
        state = self.ring_state(port, index)
        if state != "ok":
            self._broken[port, index] = state

    def repaired(self, index: int, port: int = OFFENDER) -> None:
        """The ring was started anew."""
        del self._broken[port, index]

    def expect_gone(self, reason: str) -> None:
        """The offender's connection ends soon; the status says why."""
        self._is_gone = True
        for _ in range(50):
            if self.ports[OFFENDER].status()["state"] == "listening":
                break
            self.pump()
        status = self.ports[OFFENDER].status()
        assert status["state"] == "listening", status
        assert reason in str(status["reason"]), status["reason"]
        assert self.offender.is_closed()

    def come_back(self) -> FrontEnd:
        """The offender connects again, as somebody who behaves."""
        self.fronts.remove(self.offender)
        self.offender.close()
        self.offender = self.front(OFFENDER)
        self._is_gone = False
        self._broken = {key: why for key, why in self._broken.items() if key[0] != OFFENDER}
        return self.offender

    def check(self) -> None:
        """All that a hostile guest must not have changed."""
        left, right = self._neighbours
        self.turns(3)
        assert not self._raised, "the event loop met what nobody catches"
        for _ in range(100):
            if (left.received, right.received) == (right.sent, left.sent):
                break
            self.breathe()
            left.collect()
            right.collect()
        assert (left.received, right.received) == (right.sent, left.sent), "neighbours lost frames"
        assert left.sent > 0
        for number, port in enumerate(self.ports):
            status = port.status()
            if number == OFFENDER and self._is_gone:
                continue
            assert status["state"] == "connected", status
            queues = status["queues"]
            assert isinstance(queues, list)
            broken = {
                (number, q["index"]): q["state"] for q in queues if q.get("state", "ok") != "ok"
            }
            assert broken == {k: v for k, v in self._broken.items() if k[0] == number}
        for number in (LEFT, RIGHT):
            assert self.drops(number) == {}
            assert self.ports[number].status()["connections"] == 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.check()
        finally:
            self.close()
        if error is None:
            assert usage() == self._before, "files or mappings were left behind"


def usage() -> tuple[int, int]:
    """Open files, and mappings of guests' memory, of this process."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count("/memfd:")


def resident_bytes() -> int:
    """Memory of this process that is in RAM, its own and not shared with anybody."""
    gc.collect()
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
