"""scripts/bench mesh: hosts joined by a wire, by ours, and by others', in interleaved rounds."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.datagrams import lossless_pps
from tests.bench.ground import Ground
from tests.bench.guestports import VswGuests
from tests.bench.iperf import Stream, Way, ping, running, streams
from tests.bench.overlay import Overlay, Raw, Vxlan, cpu_s
from tests.bench.peers import Fastd, Nebula, OpenVpn, Tinc, WireguardGo
from tests.bench.plan import Bench
from tests.bench.priority import prefer
from tests.bench.results import Results
from tests.bench.vswmesh import Vsw

SYSTEMS: Sequence[type[Overlay]] = (Vsw, Raw, WireguardGo, Vxlan, Nebula, Fastd, Tinc, OpenVpn)
EVERYBODY = (*SYSTEMS, VswGuests)
PAIRS = (
    *((Vsw.name, kind.name) for kind in SYSTEMS[1:]),
    (Vsw.name, "direct"),
    *((VswGuests.name, kind.name) for kind in (Vsw, WireguardGo)),
)
RATE_MBIT = 1000
TRIAL_S = 0.25
PING_S = 0.6
PACKETS = {"pps64": 64, "pps1400": 1400}  # bytes of an IP packet


@dataclass(frozen=True)
class Turn:
    """One system's turn in one round."""

    bench: Bench
    kind: type[Overlay]
    number: int
    results: Results

    def add(self, case: str, unit: str, value: float, system: str = "") -> None:
        self.results.add(system or self.kind.name, case, unit, value, self.number)

    def say(self, what: str) -> None:
        progress = f"round {self.number + 1} of {self.bench.rounds}"
        self.bench.say(f"{progress}: {self.kind.name}, {what}")

    def attempt(self, what: str) -> AbstractContextManager[None]:
        return self.results.attempt(f"round {self.number + 1}, {self.kind.name}, {what}")

    @contextmanager
    def overlay(self, hosts: int = 2, rate_mbit: int = 0) -> Iterator[Overlay]:
        """The system on new hosts, and running."""
        with (
            tempfile.TemporaryDirectory(prefix="vsw-bench-") as folder,
            Ground(hosts, rate_mbit) as ground,
            self.kind(ground, Path(folder)) as overlay,
        ):
            yield overlay


def run(bench: Bench) -> Results:
    """tcp1, tcp4: Gbit/s of so many TCP flows; /cpu: CPU seconds per GB of the daemons and of the
    flow's ends, with what the kernel does in their name; bidir: both directions at once, their sum,
    and /balance, the weaker one's share of the stronger; pps64, pps1400: the highest rate of IP
    packets of that size of which less than 0.1 % are lost; rtt, rtt/load: the median ping, idle and
    beside a flow; shaped: on wires of 1 Gbit/s, both directions at once, the weaker one's share of
    what the headers of full segments leave; via1: through a host in between, and /cpu, that host's
    CPU time for each byte that it passes on; "direct": to that host in between."""
    results = Results(PAIRS)
    prefer(os.getpid())  # and with it all that is started here
    for number in range(bench.rounds):
        first = number % len(EVERYBODY)
        for kind in (*EVERYBODY[first:], *EVERYBODY[:first]):
            turn = Turn(bench, kind, number, results)
            for part in PARTS:
                if kind in part.systems and any(map(bench.wanted, part.cases)):
                    turn.say(part.cases[0])
                    with turn.attempt(part.cases[0]):
                        part.measure(turn)
    return results


def plain(turn: Turn) -> None:
    """On a wire that is as fast as it can be."""
    with turn.overlay() as overlay:
        for case, measure in PLAIN.items():
            if turn.bench.wanted(case):
                with turn.attempt(case):
                    measure(turn, overlay)


def tcp(turn: Turn, overlay: Overlay, case: str, flows: int) -> None:
    before = overlay.cpu_s()
    found = streams(overlay.ground, [overlay.there], turn.bench.seconds, flows)
    cpu(turn, case, overlay.cpu_s() - before, found)
    turn.add(case, "Gbit/s", found[0].gbits)
    turn.add(f"{case}/again", "segments", found[0].again)


def cpu(turn: Turn, case: str, daemons_s: float, found: Sequence[Stream]) -> None:
    """Of the daemons and of the flows' ends."""
    used_s = daemons_s + sum(stream.cpu_s for stream in found)
    turn.add(f"{case}/cpu", "s/GB", used_s / sum(stream.moved for stream in found) * 1e9)


def bidir(turn: Turn, overlay: Overlay) -> None:
    before = overlay.cpu_s()
    both = streams(overlay.ground, [overlay.there, overlay.back], turn.bench.seconds)
    cpu(turn, "bidir", overlay.cpu_s() - before, both)
    rates = [stream.gbits for stream in both]
    turn.add("bidir", "Gbit/s", sum(rates))
    turn.add("bidir/balance", "share", min(rates) / max(rates))


def packets(turn: Turn, overlay: Overlay, case: str) -> None:
    rate = lossless_pps(overlay.ground, overlay.there, PACKETS[case], TRIAL_S)
    turn.add(case, "kpps", rate / 1e3)


def rtt(turn: Turn, overlay: Overlay) -> None:
    turn.add("rtt", "us", ping(overlay.ground, overlay.there, PING_S))


def rtt_load(turn: Turn, overlay: Overlay) -> None:
    with running(overlay.ground, overlay.there):
        turn.add("rtt/load", "us", ping(overlay.ground, overlay.there, PING_S))


def guests(turn: Turn) -> None:
    """Between the load generator's ports, one on each host."""
    with turn.overlay() as overlay:
        assert isinstance(overlay, VswGuests)
        for case, packet_bytes in PACKETS.items():
            if turn.bench.wanted(case):
                turn.add(case, "kpps", overlay.lossless_pps(packet_bytes, TRIAL_S) / 1e3)


def shaped(turn: Turn) -> None:
    with turn.overlay(rate_mbit=RATE_MBIT) as overlay:
        both = streams(overlay.ground, [overlay.there, overlay.back], 2 * turn.bench.seconds)
        most = RATE_MBIT / 1000 * overlay.payload_share
        shares = [stream.gbits / most for stream in both]
        turn.add("shaped", "share", min(shares))
        turn.add("shaped/stronger", "share", max(shares))
        turn.add("shaped/again", "segments", sum(stream.again for stream in both))


def via(turn: Turn) -> None:
    """Through the second of three hosts."""
    with turn.overlay(hosts=3) as overlay:
        ground, seconds = overlay.ground, turn.bench.seconds
        if isinstance(overlay, Vsw):
            (direct,) = streams(ground, [Way(0, 1, overlay.address(1))], seconds)
            turn.add("via1", "Gbit/s", direct.gbits, "direct")
            used_s, passed = cpu_s(overlay.pids()[1]), overlay.relayed_bytes(1)
        (stream,) = streams(ground, [overlay.there], seconds)
        turn.add("via1", "Gbit/s", stream.gbits)
        turn.add("via1/again", "segments", stream.again)
        if isinstance(overlay, Vsw):
            used_s = cpu_s(overlay.pids()[1]) - used_s
            turn.add("via1/cpu", "ns/B", used_s / (overlay.relayed_bytes(1) - passed) * 1e9)


PLAIN: dict[str, Callable[[Turn, Overlay], None]] = {
    "tcp1": partial(tcp, case="tcp1", flows=1),
    "tcp4": partial(tcp, case="tcp4", flows=4),
    "bidir": bidir,
    "pps64": partial(packets, case="pps64"),
    "pps1400": partial(packets, case="pps1400"),
    "rtt": rtt,
    "rtt/load": rtt_load,
}


@dataclass(frozen=True)
class Part:
    """What is measured on hosts of its own.  cases: whoever wants one of them wants the part."""

    cases: Sequence[str]
    measure: Callable[[Turn], None]
    systems: Sequence[type[Overlay]] = SYSTEMS


PARTS = (
    Part(tuple(PLAIN), plain),
    Part(("shaped",), shaped),
    Part(("via1",), via, (Vsw, Raw)),
    Part(tuple(PACKETS), guests, (VswGuests,)),
)
