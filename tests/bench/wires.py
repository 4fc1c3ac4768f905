"""Two front-ends on a switch, and the phases between them."""

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.errors import BenchError
from tests.bench.generator import Nic, Shape, listen
from tests.bench.library import ffi, lib
from tests.bench.priority import pinned, prefer
from tests.fakes.closing import Closing

WARM_UP_PHASES = 100
PHASES = 1000
LOST_PHASES_MAX = 0.02  # share of phases in which a frame may be lost
# Of frames to learn by: enough for several pieces, where a shape of rings has such.
LEARNED_BYTES = 1000
LEARNED_COUNT = 16
LEARN_TRIES = 40  # of up to half a second: some switches take their time after a port is up
NONE, DESTINATION, SOURCE = range(3)
ADDRESSES = bytes([10, 9, 0, 1, 10, 9, 0, 2])


@dataclass(frozen=True)
class Frames:
    """What a measurement sends.

    fresh: payloads written anew; macs: destinations, 0: one; count: frames of a phase.
    """

    frame_bytes: int
    fresh: bool = False
    macs: int = 0
    gso_bytes: int = 0
    count: int = 256

    def traffic(self, destination: bytes, source: bytes, addresses: bytes = ADDRESSES) -> Any:
        """struct traffic *, from one MAC address to the other.  addresses: IPv4, source first."""
        traffic = ffi.new("struct traffic *")
        traffic.frame_bytes, traffic.gso_bytes = self.frame_bytes, self.gso_bytes
        traffic.fresh, traffic.macs = int(self.fresh), self.macs
        traffic.destination, traffic.source = destination, source
        traffic.addresses = addresses
        return traffic


@dataclass(frozen=True)
class PhaseResult:
    """cycles: per frame, the median of all phases; lost, wrong: frames in all of them."""

    cycles: float
    sent: int
    lost: int
    wrong: int


class Wires(Closing):
    """Front-ends whose rings the calling thread drives, on a CPU that it has for itself."""

    def __init__(self, sockets: Sequence[Path], shape: Shape, cpu: int) -> None:
        self._stack = ExitStack()
        self._cpu = cpu
        self.nics: list[Nic] = []
        with ExitStack() as stack:
            stack.push(self)
            listeners = [stack.enter_context(listen(path)) for path in sockets]
            for listener in listeners:
                self.nics.append(boot(listener, shape))
            stack.pop_all()
            for listener in listeners:
                listener.close()

    def learn(self, macs: int) -> None:
        """Let the switch learn who is behind the second port, and behind the first."""
        first, second = self.nics
        self.learn_between(first, second)
        if macs:
            many = Frames(64, macs=macs)
            self._phases(second, first, many, vary=SOURCE, phases=2 * macs // many.count + 2)

    def learn_between(self, first: Nic, second: Nic) -> None:
        """A single frame for who is not known yet: it goes to all ports, and that is limited."""
        size = min(LEARNED_BYTES, first.frame_bytes_max)
        one, some = Frames(size, count=1), Frames(size, count=LEARNED_COUNT)
        directions = ((second, first), (first, second))
        for _ in range(LEARN_TRIES):
            for sender, receiver in directions:
                self._phases(sender, receiver, one, vary=NONE, phases=1)
            results = [self._phases(*ends, some, vary=NONE, phases=2) for ends in directions]
            if all(result.sent > 0 and result.lost == 0 for result in results):
                return
        raise BenchError("the switch does not forward: no frame arrives")

    def measure(self, frames: Frames, phases: int = PHASES) -> PhaseResult:
        """From the first front-end to the second, which have learned."""
        warm_up = WARM_UP_PHASES + 4 * frames.macs // frames.count
        vary = DESTINATION if frames.macs else NONE
        first, second = self.nics
        self._phases(first, second, frames, vary=vary, phases=warm_up)
        return self._phases(first, second, frames, vary=vary, phases=phases)

    def _phases(
        self, sender: Nic, receiver: Nic, frames: Frames, *, vary: int, phases: int
    ) -> PhaseResult:
        assert frames.frame_bytes <= sender.frame_bytes_max, "the frame is larger than a buffer"
        traffic = frames.traffic(address(receiver, self), address(sender, self))
        traffic.vary = vary
        result = ffi.new("struct phase *")
        cycles, sent, received, wrong = [], 0, 0, 0
        with pinned(self._cpu):
            lib().prepare(sender.tx, traffic)
            for _ in range(phases):
                lib().run_phase(sender.tx, receiver.rx, traffic, frames.count, result)
                sent += result.sent
                received += result.received
                wrong += result.wrong
                if result.received == 0:
                    break
                if result.received == result.sent:
                    cycles.append(result.cycles / result.sent)
        if len(cycles) < (1 - LOST_PHASES_MAX) * phases and phases >= PHASES:
            raise BenchError(
                f"{phases - len(cycles)} of {phases} phases of {frames} lost frames: "
                f"{received} of {sent} arrived"
            )
        return PhaseResult(median(cycles) if cycles else 0.0, sent, sent - received, wrong)

    def close(self) -> None:
        for nic in self.nics:
            nic.close()


def boot(listener: socket.socket, shape: Shape) -> Nic:
    """A front-end that the switch has connected to, its receive buffers offered."""
    nic = Nic(shape)
    try:
        nic.accept(listener)
        nic.boot()
    except BaseException:
        nic.close()
        raise
    for ring in nic.rxs:
        lib().ring_offer_all(ring)
    prefer(os.getpid())
    return nic


def address(nic: Nic, wires: Wires) -> bytes:
    """A front-end's MAC address."""
    return bytes([2, 0, 0, 0, 0x70, wires.nics.index(nic)])
