"""The highest rate of UDP packets between two hosts at which none is lost."""

import math
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

from tests.bench.errors import BenchError
from tests.bench.ground import Ground
from tests.bench.iperf import Way
from tests.bench.library import ffi, lib
from tests.bench.priority import pinned

# Of packets sent, that may be missing where "none is lost".
LOST_MAX = 0.001
UNBOUND = 1e7
TRIALS = 9
AGAIN = 2  # tries at a rate before it counts as too high
HEADERS_BYTES = 28  # IPv4 and UDP
PORT = 5301
BUFFER_BYTES = 8 << 20
SO_RCVBUFFORCE = 33


@dataclass(frozen=True)
class Trial:
    """sent, received: packets per second, each from the first one to the last; lost: the share."""

    sent: float
    received: float
    lost: float

    @property
    def lossless(self) -> bool:
        return self.received > 0 and self.lost <= LOST_MAX


def trial_of(shot: Any) -> Trial:
    """shot: struct datagrams *, filled."""
    if shot.sent == 0 or shot.received == 0:
        return Trial(0.0, 0.0, 1.0)
    return Trial(
        shot.sent / shot.elapsed_ns * 1e9,
        shot.received / max(shot.elapsed_ns, shot.received_ns) * 1e9,
        (shot.sent - shot.received) / shot.sent,
    )


def search(trial: Callable[[float], Trial]) -> float:
    """The highest rate seen to pass.  trial: sends at about a rate."""
    first = trial(UNBOUND)
    best = first.received if first.lossless else 0.0
    low, high = best, first.sent
    rate = first.received * 0.9
    for _ in range(TRIALS):
        if high - low < 0.03 * high or rate <= 0:
            break
        seen = passing(trial, rate)
        if seen is None:
            high = rate
        else:
            best = max(best, seen.received)
            low = max(rate, seen.received)
        rate = math.sqrt(low * high) if low > 0 else 0.7 * high
    return best


def passing(trial: Callable[[float], Trial], rate: float) -> Trial | None:
    """A trial at the rate without loss, if there is one."""
    for _ in range(AGAIN):
        if (seen := trial(rate)).lossless:
            return seen
    return None


def lossless_pps(ground: Ground, way: Way, packet_bytes: int, seconds: float) -> float:
    """packet_bytes: with IP and UDP headers; seconds: of each trial."""
    with ExitStack() as stack:
        with ground.inside(way.sink):
            sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with ground.inside(way.source):
            source = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", 0, 50_000))
        sink.bind((way.address, PORT))
        source.connect((way.address, PORT))

        def trial(rate: float) -> Trial:
            shot = ffi.new("struct datagrams *")
            shot.rate, shot.bytes = rate, packet_bytes - HEADERS_BYTES
            shot.duration_ns = int(seconds * 1e9)
            shot.to_cpu = ground.cpu(way.sink) if ground.apart else -1
            with pinned(ground.cpu(way.source)) if ground.apart else nullcontext():
                rc = lib().send_datagrams(source.fileno(), sink.fileno(), shot)
            if rc != 0:
                raise BenchError(f"UDP to {way.address}: {os.strerror(-rc)}")
            return trial_of(shot)

        best = search(trial)
    if best == 0:
        raise BenchError(f"{packet_bytes} bytes: packets were lost at every rate")
    return best
