"""scripts/bench scale: what a frame costs when there is more of everything."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from statistics import median

from tests.bench.errors import BenchError
from tests.bench.generator import Shape, listen
from tests.bench.latency import PATIENCE_S, pings
from tests.bench.library import ffi, lib, tsc_hz
from tests.bench.loop import pause
from tests.bench.plan import Bench, Place, Turn
from tests.bench.priority import pinned
from tests.bench.rebalance import rebalance
from tests.bench.results import Results
from tests.bench.systems import Needs, System, VswAdaptive
from tests.bench.wide import DEEP_PAUSE_NS, FRAMES, Wide
from tests.bench.wires import Frames, Wires, address, boot

# "base": the first case of its group, so that a ratio says how much cost grew.
PAIRS = (("vsw-adaptive", "base"),)
PORTS = (2, 16, 64, 256)
IDLE_PORTS = 64
IDLE_S = 2.0
FIRST_GAP_S = 0.02
MACS = {"macs100": 100, "macs10k": 10_000, "macs100k": 100_000, "macs1m": 999_000}
ROUTES = {"routes100": 100, "routes10k": 10_000, "routes1m": 1_000_000}
LOOKUPS = 2_000_000
QUEUES = (1, 2, 4, 8)
SILENT = Shape(rx_num=16, tx_num=16, huge=False)
# Rings so large that a phase lasts long beside what waking a worker takes.
DEEP = Shape(rx_num=32768, tx_num=16384, rx_bytes=256, tx_bytes=256)
DEEP_PHASES = 60
WIDE_PHASES = 500


def run(bench: Bench) -> Results:
    """portsN: N attached, two of them busy; macsN: N destinations in turn; routesN: one lookup;
    queuesN: N busy pairs of one port, one worker; workers…: one worker with one pair of ports, two
    with a pair each, two with two queues of one pair; idle64/cpu, /first: with silent guests;
    rebalance/…: see rebalance()."""
    results = Results(PAIRS)
    for number in range(bench.rounds):
        bench.say(f"round {number + 1} of {bench.rounds}")
        turn = Turn(bench, VswAdaptive, number, results)
        both = (bench.worker_cpu, bench.load_cpu)
        for cases in (
            {f"ports{count}": partial(ports, turn, count) for count in PORTS},
            {name: partial(macs, turn, count) for name, count in MACS.items()},
            {name: partial(routes, turn, count) for name, count in ROUTES.items()},
            {f"queues{count}": partial(queues, turn, count) for count in QUEUES},
            {
                "workers1": partial(workers, turn, both[:1], guests=2, pairs=1),
                "workers2-apart": partial(workers, turn, both, guests=4, pairs=1),
                "workers2-one": partial(workers, turn, both, guests=2, pairs=2),
            },
        ):
            group(turn, cases)
        if bench.wanted("rebalance"):
            bench.say("  rebalance")
            with results.attempt("rebalance"):
                rebalance(turn, both)
    return results


def group(turn: Turn, cases: Mapping[str, Callable[[], float]]) -> None:
    """Measures cases; the first stands for "base" in all of them."""
    base = None
    for case, measure in cases.items():
        if not turn.bench.wanted(case):
            continue
        turn.bench.say(f"  {case}")
        with turn.results.attempt(case):
            cycles = measure()
            base = cycles if base is None else base
            turn.add(case, "cycles", cycles)
            turn.results.add("base", case, "cycles", base, turn.number)


def ports(turn: Turn, count: int) -> float:
    with ExitStack() as stack:
        place = stack.enter_context(Place(count))
        listeners = [stack.enter_context(listen(path)) for path in place.sockets[2:]]
        system = stack.enter_context(turn.system(place, Needs()))
        wires = stack.enter_context(Wires(place.sockets[:2], Shape(), turn.bench.load_cpu))
        for listener in listeners:
            stack.callback(boot(listener, SILENT).close)
        wires.learn(0)
        cycles = wires.measure(FRAMES).cycles
        if count == IDLE_PORTS:
            idle(turn, wires, system)
        return cycles


def idle(turn: Turn, wires: Wires, system: System) -> None:
    """CPU of a switch whose guests are silent, and round trips that wake it."""
    pause(0.5)
    before = system.cpu_s()
    pause(IDLE_S)
    turn.add(f"idle{IDLE_PORTS}/cpu", "percent", (system.cpu_s() - before) / IDLE_S * 100)
    first, second = wires.nics
    traffic = FRAMES.traffic(address(second, wires), address(first, wires))
    ends = ffi.new("struct ping_ends *", [first.tx, first.rx, second.tx, second.rx])
    with pings(IDLE_S, FIRST_GAP_S, 0) as result, pinned(turn.bench.load_cpu):
        lib().run_pings(ends, traffic, result)
        if result.answered == 0:
            raise BenchError(f"no probe came back within {PATIENCE_S} s")
        trip = median(result.cycles[0 : result.answered]) / tsc_hz() * 1e6
    turn.add(f"idle{IDLE_PORTS}/first", "us", trip)


def macs(turn: Turn, count: int) -> float:
    with (
        Place() as place,
        turn.system(place, Needs(macs=max(MACS.values()))),
        Wires(place.sockets, Shape(), turn.bench.load_cpu) as wires,
    ):
        wires.learn(count)
        return wires.measure(Frames(64, macs=count)).cycles


def routes(turn: Turn, count: int) -> float:
    with pinned(turn.bench.worker_cpu):
        cycles = int(lib().route_lookups(count, LOOKUPS))
    if cycles == 0:
        raise BenchError("a lookup found no route")
    return cycles / LOOKUPS


def queues(turn: Turn, count: int) -> float:
    """All transmit rings of one port at once; a worker answers into one ring of the other."""
    shape = Shape(pairs=count, rx_num=2048, rx_bytes=256, tx_bytes=256)
    with (
        Place() as place,
        turn.system(place, Needs()),
        Wires(place.sockets, shape, turn.bench.load_cpu) as wires,
    ):
        wires.learn(0)
        wide = Wide(wires, [(wires.nics[0], wires.nics[1])])
        cycles = [wide.phase(256, 0, turn.bench.load_cpu).cycles for _ in range(WIDE_PHASES)]
        return float(median(cycles)) / (256 * count)


def workers(turn: Turn, cpus: tuple[int, ...], *, guests: int, pairs: int) -> float:
    """Cycles of all workers together per frame."""
    shape = Shape(**{**vars(DEEP), "pairs": pairs})
    with (
        Place(guests) as place,
        turn.system(place, Needs(cpus=cpus, apart=guests > 2)) as system,
        Wires(place.sockets, shape, turn.bench.load_cpu) as wires,
    ):
        couples = [(wires.nics[i], wires.nics[i + 1]) for i in range(0, guests, 2)]
        for couple in couples:
            wires.learn_between(*couple)
        wide = Wide(wires, couples)
        wide.phase(DEEP.tx_num, DEEP_PAUSE_NS, turn.bench.load_cpu)
        costs = []
        for _ in range(DEEP_PHASES):
            before = system.cycles()
            frames = wide.phase(DEEP.tx_num, DEEP_PAUSE_NS, turn.bench.load_cpu).received
            costs.append(system.cycles().since(before).busy / frames)
        return float(median(costs))
