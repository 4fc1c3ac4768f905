"""The testpmd loop: two virtio-user ports on one CPU send frames round and round through a switch.

testpmd changes only the addresses of a frame, so payloads stay in the cache of the switch's CPU.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.errors import BenchError
from tests.bench.priority import prefer
from tests.bench.systems import Cycles, System
from tests.fakes.closing import Closing
from tests.fakes.daemons import until
from tests.fakes.testpmd import Testpmd, VirtioUser

WARM_UP_S = 0.3
IN_FLIGHT = 8  # bursts of 32 that each port begins with


@dataclass(frozen=True)
class LoopResult:
    """pps: frames per second that both ports received.  idle: the worker's share of cycles in
    empty polls; cycles: the others, per packet."""

    pps: float
    idle: float
    cycles: float


class Loop(Closing):
    """testpmd as the front-end of both ports."""

    def __init__(self, sockets: Sequence[Path], cpu: int, *, packed: bool, big: bool) -> None:
        """cpu: of the thread that forwards.  big: frames beyond 1518 bytes."""
        room, longest = (10240, 9018) if big else (2304, 1518)
        ports = [VirtioUser(path, listens=True, packed=packed) for path in sockets]
        self._pmd = Testpmd(
            ports,
            arguments=[
                *("--total-num-mbufs=8192", f"--mbuf-size={room}", f"--max-pkt-len={longest}"),
                *("--nb-cores=1", f"--coremask={1 << cpu:#x}"),
            ],
        )
        try:
            self._pmd.ready()
            prefer(self._pmd.pid)
            self._pmd.to_each_other()
        except AssertionError as error:
            self._pmd.close()
            raise BenchError(f"testpmd: {error}\n{self._pmd.output[-2000:]}") from None
        except BaseException:
            self._pmd.close()
            raise

    def measure(self, frame_bytes: int, seconds: float, system: System) -> LoopResult:
        """frame_bytes: as they lie in memory, without a checksum."""
        tell = self._pmd.tell
        tell("set fwd mac")
        tell(f"set txpkts {frame_bytes}")
        until(lambda: tell("show port info all").count("Link status: up") == 2, "both links")
        tell(f"start tx_first {IN_FLIGHT}")
        pause(WARM_UP_S)
        before = self._look(system)
        pause(seconds)
        after = self._look(system)
        tell("stop")
        tell("set fwd rxonly")  # empties the rings of what still circles
        tell("start")
        pause(0.05)
        tell("stop")
        packets = after[0] - before[0]
        if packets == 0:
            raise BenchError(f"{system.name}: nothing went round at {frame_bytes} bytes")
        pps = packets / (after[2] - before[2])
        cycles = after[1].since(before[1])
        return LoopResult(pps, cycles.idle_share, cycles.busy / packets)

    def _look(self, system: System) -> tuple[int, Cycles, float]:
        cycles = system.cycles()
        begun = time.monotonic()
        packets = sum(self._pmd.received())
        return packets, cycles, (begun + time.monotonic()) / 2

    def close(self) -> None:
        self._pmd.close()


def pause(seconds: float) -> None:
    """Let what runs run."""
    threading.Event().wait(seconds)
