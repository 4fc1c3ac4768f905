"""scripts/bench latency: round trips between two guests that poll, at several loads."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.bench.bridge import KernelBridge
from tests.bench.errors import BenchError
from tests.bench.generator import Shape
from tests.bench.histogram import Histogram
from tests.bench.library import ffi, lib, tsc_hz
from tests.bench.plan import Bench, Place, Turn
from tests.bench.priority import pinned, prefer
from tests.bench.results import Results
from tests.bench.systems import Needs, OvsDpdk, System, Vsw, VswAdaptive
from tests.bench.wires import Frames, Wires, address

SYSTEMS: Sequence[type[System]] = (Vsw, VswAdaptive, OvsDpdk)
PAIRS = (
    ("vsw", "ovs-dpdk"),
    ("vsw-adaptive", "vsw"),
    ("vsw", "bridge"),
    ("vsw-adaptive", "bridge"),
    ("vsw-adaptive", "bound"),
)
# What sleeping may add to the 99th percentile of polling, in bare wakes.
WAKES_ALLOWED = 1.3
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
ROOM = 200_000
PATIENCE_S = 0.05
FRAMES = Frames(64)
CAPACITY_S = 0.3
WAKES = 1500
WAKE_GAP_S = 0.0005


@dataclass(frozen=True)
class Load:
    """gap_s: from an answer to the next probe; share: of the capacity, for other frames."""

    name: str
    gap_s: float
    share: float


# A worker spins for 200 µs before it sleeps: "light" keeps it awake, "sparse" does not.
LOADS = (
    Load("light", 50e-6, 0.0),
    Load("sparse", 0.5e-3, 0.0),
    Load("load10", 50e-6, 0.1),
    Load("load50", 50e-6, 0.5),
    Load("load90", 50e-6, 0.9),
)

Ping = Callable[[Any], None]


def run(bench: Bench) -> Results:
    """LOAD/p50 …: round trips; LOAD/cpu: CPU time of the system, in percent of one CPU;
    LOAD/mpps: what else was delivered; wake/p50 …: the bare wake of a sleeper."""
    results = Results(PAIRS)
    for number in range(bench.rounds):
        first = number % len(SYSTEMS)
        for kind in (*SYSTEMS[first:], *SYSTEMS[:first]):
            bench.say(f"round {number + 1} of {bench.rounds}: {kind.name}")
            with results.attempt(f"round {number + 1}, {kind.name}"):
                switch(Turn(bench, kind, number, results))
        bench.say(f"round {number + 1} of {bench.rounds}: bridge, bare wakes")
        with results.attempt(f"round {number + 1}, bridge"):
            bridge(bench, number, results)
        if any(bench.wanted(case) for case in ("wake", *(load.name for load in LOADS))):
            wakes(bench, number, results)
    add_bounds(results)
    return results


def switch(turn: Turn) -> None:
    bench = turn.bench
    with (
        Place() as place,
        turn.system(place, Needs()) as system,
        Wires(place.sockets, Shape(), bench.load_cpu) as wires,
    ):
        wires.learn(0)
        first, second = wires.nics
        traffic = FRAMES.traffic(address(second, wires), address(first, wires))
        ends = ffi.new("struct ping_ends *", [first.tx, first.rx, second.tx, second.rx])

        def ping(pings: Any) -> None:
            with pinned(bench.load_cpu):
                lib().run_pings(ends, traffic, pings)

        loads(bench, turn.add, ping, system.cpu_s)


def bridge(bench: Bench, number: int, results: Results) -> None:
    with KernelBridge() as kernel:
        prefer(os.getpid())
        traffic = FRAMES.traffic(b"\x02\0\0\0\x70\1", b"\x02\0\0\0\x70\0")

        def ping(pings: Any) -> None:
            with pinned(bench.load_cpu):
                rc = lib().run_tap_pings(*kernel.taps, bench.worker_cpu, traffic, pings)
            if rc != 0:
                raise BenchError(f"taps: {os.strerror(-rc)}")

        def add(case: str, unit: str, value: float) -> None:
            results.add(kernel.name, case, unit, value, number)

        # What a bridge costs is spent by whoever sends and by the second guest's thread.
        loads(bench, add, ping, time.process_time)


def loads(
    bench: Bench,
    add: Callable[[str, str, float], None],
    ping: Ping,
    cpu_s: Callable[[], float],
) -> None:
    """All loads that were asked for, over the same ends."""
    chosen = [load for load in LOADS if bench.wanted(load.name)]
    if not chosen:
        return
    with pings(CAPACITY_S, PATIENCE_S, 1 / tsc_hz()) as first:
        ping(first)
        capacity = first.load_received / (first.elapsed_cycles / tsc_hz())
    add("capacity/mpps", "Mpps", capacity / 1e6)
    for load in chosen:
        load_gap_s = 1 / (load.share * capacity) if load.share else 0.0
        with pings(bench.seconds, load.gap_s, load_gap_s) as result:
            before = cpu_s()
            ping(result)
            used = cpu_s() - before
            elapsed_s = result.elapsed_cycles / tsc_hz()
            if result.answered == 0:
                raise BenchError(f"{load.name}: none of {result.lost} probes came back")
            histogram = Histogram(result.cycles[0 : result.answered])
            for name, percent in PERCENTILES.items():
                add(f"{load.name}/{name}", "us", histogram.percentile(percent) / tsc_hz() * 1e6)
            add(f"{load.name}/cpu", "percent", used / elapsed_s * 100)
            if load.share:
                add(f"{load.name}/mpps", "Mpps", result.load_received / elapsed_s / 1e6)
                add(f"{load.name}/lost", "percent", 100 * lost_share(result))


def lost_share(result: Any) -> float:
    """Of the load that was due: what the ring did not take, and what did not arrive."""
    due = result.load_sent + result.load_refused
    return max(0.0, 1 - float(result.load_received) / due) if due else 0.0


@contextmanager
def pings(duration_s: float, gap_s: float, load_gap_s: float) -> Iterator[Any]:
    """struct pings *."""
    hz = tsc_hz()
    cycles = ffi.new("uint64_t[]", ROOM)
    result = ffi.new("struct pings *")
    result.cycles, result.room = cycles, ROOM
    result.gap_cycles = int(gap_s * hz)
    result.load_gap_cycles = max(1, int(load_gap_s * hz)) if load_gap_s else 0
    result.duration_cycles = int(duration_s * hz)
    result.patience_cycles = int(PATIENCE_S * hz)
    result.random = 1
    yield result


def add_bounds(results: Results) -> None:
    """bound: what adaptive's p99 may be at most, from the same round's polling and bare wake."""
    wake = results.values("eventfd", "wake/p99")
    for load in LOADS:
        case = f"{load.name}/p99"
        for number, polling in results.values("vsw", case).items():
            if number in wake:
                bound = polling + WAKES_ALLOWED * wake[number]
                results.add("bound", case, "us", bound, number)


def wakes(bench: Bench, number: int, results: Results) -> None:
    """How long a thread takes from the write to its eventfd until it runs."""
    cycles = ffi.new("uint64_t[]", WAKES)
    with pinned(bench.load_cpu):
        rc = lib().wake_times(bench.worker_cpu, int(WAKE_GAP_S * tsc_hz()), WAKES, cycles)
    if rc != 0:
        raise BenchError(f"eventfd: {os.strerror(-rc)}")
    histogram = Histogram(cycles)
    for name, percent in PERCENTILES.items():
        value = histogram.percentile(percent) / tsc_hz() * 1e6
        results.add("eventfd", f"wake/{name}", "us", value, number)
