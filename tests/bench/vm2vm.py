"""scripts/bench vm2vm: one worker between two guests, ours and others', in interleaved rounds."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from tests.bench.copying import memcpy_gbits
from tests.bench.generator import LARGE, PLAIN, Shape
from tests.bench.library import tsc_hz
from tests.bench.loop import Loop
from tests.bench.plan import Bench, Place, Turn
from tests.bench.results import Results
from tests.bench.systems import DpdkIo, Needs, OvsDpdk, System, Vsw
from tests.bench.wires import Frames, Wires
from vhost.messages import OFFERED_FEATURES, Feature

SYSTEMS: Sequence[type[System]] = (Vsw, OvsDpdk, DpdkIo)
PAIRS = (("vsw", "ovs-dpdk"), ("vsw", "dpdk-io"), ("vsw", "memcpy"))
SIZES = (64, 128, 256, 512, 1024, 1518)
JUMBO = 9000
MACS = 10_000
SATURATED = 0.01  # share of empty polls below which a worker has no rest
TSO_FRAME_BYTES = 66 + 45 * 1448  # what Linux makes of 64 KiB: whole segments of 1448 bytes
TSO = Frames(TSO_FRAME_BYTES, fresh=True, gso_bytes=1448, count=16)


def run(bench: Bench) -> Results:
    """SIZE, SIZE/packed/mpps: the loop's rate; SIZE/loop, /empty: its cycles and empty polls;
    SIZE/phases, /fresh: cycles in phases, payload cached or written anew by the sender;
    SIZE/cycles, SIZE/packed: see choose_cycles()."""
    results = Results(PAIRS)
    for number in range(bench.rounds):
        first = number % len(SYSTEMS)
        for kind in (*SYSTEMS[first:], *SYSTEMS[:first]):
            bench.say(f"round {number + 1} of {bench.rounds}: {kind.name}")
            turn = Turn(bench, kind, number, results)
            for part in parts(turn):
                with results.attempt(f"round {number + 1}, {kind.name}"):
                    part()
        if bench.wanted("tso64k"):
            rate = memcpy_gbits(TSO_FRAME_BYTES, TSO.count, bench.worker_cpu, bench.load_cpu)
            results.add("memcpy", "tso64k", "Gbit/s", rate, number)
    choose_cycles(results)
    return results


def parts(turn: Turn) -> list[Callable[[], None]]:
    chosen: list[Callable[[], None]] = [partial(many_macs, turn), partial(large, turn)]
    for packed in (False, True):
        if not packed or offers_packed(turn.kind):
            chosen += [
                partial(frames, turn, SIZES, packed=packed, needs=Needs()),
                partial(frames, turn, [JUMBO], packed=packed, needs=Needs(mtu_bytes=JUMBO)),
            ]
    return chosen


def offers_packed(kind: type[System]) -> bool:
    return kind is not Vsw or bool(OFFERED_FEATURES & Feature.RING_PACKED)


def frames(turn: Turn, sizes: Sequence[int], *, packed: bool, needs: Needs) -> None:
    """In testpmd's loop and in phases."""
    suffix, bench = "/packed" if packed else "", turn.bench
    cases = {size: f"{size}{suffix}" for size in sizes if bench.wanted(f"{size}{suffix}")}
    if not cases:
        return
    big = needs.mtu_bytes > 0
    with Place() as place, turn.system(place, needs) as system:
        with Loop(place.sockets, bench.load_cpu, packed=packed, big=big) as loop:
            for size, case in cases.items():
                result = loop.measure(size, bench.seconds, system)
                turn.add(f"{case}/mpps" if packed else case, "Mpps", result.pps / 1e6)
                turn.add(f"{case}/gbits", "Gbit/s", result.pps * size * 8e-9)
                turn.add(f"{case}/loop", "cycles", result.cycles)
                turn.add(f"{case}/empty", "percent", result.idle * 100)
        shape = Shape(packed=packed, features=int(PLAIN))
        if big:  # pages to receive into, as Linux has them
            shape = Shape(packed=packed, features=int(PLAIN), rx_bytes=4096, tx_bytes=10240)
        with Wires(place.sockets, shape, bench.load_cpu) as wires:
            wires.learn(0)
            for size, case in cases.items():
                for fresh, name in ((False, "phases"), (True, "fresh")):
                    kind = Frames(size, fresh=fresh, count=64 if big else 256)
                    phases(turn, wires, kind, f"{case}/{name}")


def phases(turn: Turn, wires: Wires, kind: Frames, case: str) -> float:
    """Cycles per frame, which become a sample."""
    result = wires.measure(kind)
    if result.lost or result.wrong:
        turn.results.note(
            f"{turn.kind.name}, {case}: of {result.sent} frames {result.lost} were lost and "
            f"{result.wrong} wrong"
        )
    turn.add(case, "cycles", result.cycles)
    return result.cycles


def many_macs(turn: Turn) -> None:
    """Frames for 10,000 addresses in turn, as no cache of flows likes them."""
    if not turn.bench.wanted("64/macs10k"):
        return
    with (
        Place() as place,
        turn.system(place, Needs(macs=MACS)),
        Wires(place.sockets, Shape(), turn.bench.load_cpu) as wires,
    ):
        wires.learn(MACS)
        phases(turn, wires, Frames(64, macs=MACS), "64/macs10k")


def large(turn: Turn) -> None:
    """Frames as Linux sends them with TSO: headers and two large pieces, into pages."""
    if not turn.bench.wanted("tso64k"):
        return
    shape = Shape(features=int(LARGE), rx_bytes=4096, tx_bytes=17 * 4096, tx_num=64, tx_pieces=3)
    with (
        Place() as place,
        turn.system(place, Needs(tso=True)),
        Wires(place.sockets, shape, turn.bench.load_cpu) as wires,
    ):
        wires.learn(0)
        cycles = phases(turn, wires, TSO, "tso64k/cycles")
        turn.add("tso64k", "Gbit/s", TSO_FRAME_BYTES * 8 / (cycles / tsc_hz()) * 1e-9)


def choose_cycles(results: Results) -> None:
    """SIZE/cycles and SIZE/packed: of the loop where it left no system's worker a rest, otherwise
    of phases; for all systems alike."""
    for case in results.cases():
        if not case.endswith("/empty"):
            continue
        base = case.removesuffix("/empty")
        empty = [
            median(values.values()) / 100
            for system in results.systems()
            if (values := results.values(system, case))
        ]
        source = "loop" if max(empty) < SATURATED else "phases"
        name = base if base.endswith("/packed") else f"{base}/cycles"
        results.note(
            f"{name} is {base}/{source}: up to {max(empty):.1%} of polls were empty in the loop"
        )
        for system in results.systems():
            for number, value in results.values(system, f"{base}/{source}").items():
                results.add(system, name, "cycles", value, number)
