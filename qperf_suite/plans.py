"""Plans: what is measured, between which guests, how often. Data, and its arithmetic."""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from qperf_suite.workloads import KIB, LOSSLESS, MIB, PLACEMENTS, Case, Pace, doubling

BASELINES = ("vhost-user", "bridge", "masquerade")
GUESTS = ("a1", "a2", "b1", "b2")
GUEST_MEMORY_MIB = 192
# Messages of 128 MiB are held once by each end.
LARGE_MEMORY_MIB = 512
CROWD = 14
BOOT_S, BOOT_GUEST_S = 15, 1.5
KINDS_OF_GUESTS = {"vhost-user": 1, "bridge": 2, "masquerade": 2}


@dataclass(frozen=True)
class Part:
    """Cases that the same guests serve; guests are booted anew for each part.

    guests: names, the first letter is the host.
    """

    name: str
    cases: Sequence[Case]
    guests: Sequence[str] = GUESTS
    memory_mib: int = GUEST_MEMORY_MIB


@dataclass(frozen=True)
class Point:
    """One measurement."""

    part: str
    round: int
    system: str
    case: Case

    @property
    def name(self) -> str:
        """Unique in a plan: "0/bridge/same-host/tcp_lat/1"."""
        return f"{self.round}/{self.system}/{self.case.name}"


@dataclass(frozen=True)
class Plan:
    """Everything that a run measures. pin: tie guests to CPUs; seed: of the order."""

    name: str
    parts: Sequence[Part]
    systems: Sequence[str] = BASELINES
    rounds: int = 3
    pace: Pace = field(default_factory=Pace)
    pin: bool = True
    seed: int = 1

    @property
    def cases(self) -> list[Case]:
        """Of all parts, in the order of tables."""
        return [case for part in self.parts for case in part.cases]

    def filtered(self, text: str) -> "Plan":
        """Only the cases with a text in their name, or that a shell's pattern with *?[ fits."""
        if not text:
            return self
        if set(text) & set("*?["):
            return self.only(lambda case: fnmatchcase(case.name, text))
        return self.only(lambda case: text in case.name)

    def only(self, fits: Callable[[Case], bool]) -> "Plan":
        """Cases that fit, and their guests; parts without any are left out."""
        parts = []
        for part in self.parts:
            cases = [case for case in part.cases if fits(case)]
            guests = sorted({guest for case in cases for pair in case.pairs for guest in pair})
            parts.append(replace(part, cases=cases, guests=guests))
        return replace(self, parts=[part for part in parts if part.cases])

    def points(self, part: Part) -> list[Point]:
        """In the order of measuring.

        Cases come in another order in every round, and systems take turns within each case in
        random order, so that what disturbs the machine disturbs all of them.
        """
        rng = random.Random(f"{self.seed}/{part.name}")
        points = []
        for number in range(self.rounds):
            for case in rng.sample(list(part.cases), len(part.cases)):
                turns = rng.sample(list(self.systems), len(self.systems))
                points += [Point(part.name, number, system, case) for system in turns]
        return points

    def warm_up(self, part: Part) -> list[Point]:
        """What is measured first and dropped: the first case of every test, on every system."""
        first = {(case.placement, case.test): case for case in reversed(part.cases)}
        return [
            Point(part.name, -1, system, case)
            for case in reversed(first.values())
            for system in self.systems
        ]

    def expected_s(self, points: Sequence[Point]) -> float:
        """How long these points take, without booting."""
        return sum(point.case.expected_s(self.pace) for point in points)

    def boot_s(self, part: Part) -> float:
        """How long a part's guests take to boot, all at the same time on few CPUs."""
        guests = sum(KINDS_OF_GUESTS.get(system, 1) for system in self.systems) * len(part.guests)
        return BOOT_S + BOOT_GUEST_S * guests

    def rest_s(self, points: Sequence[Point]) -> float:
        """How long these points take, with booting and warming up for every part of theirs."""
        needed = {point.part for point in points}
        started = [part for part in self.parts if part.name in needed]
        return self.expected_s(points) + sum(
            self.boot_s(part) + self.expected_s(self.warm_up(part)) for part in started
        )

    def total_s(self) -> float:
        """How long all of it takes."""
        return self.rest_s([point for part in self.parts for point in self.points(part)])


def pinning(guests: Sequence[str], allowed: Collection[int]) -> dict[str, list[int]] | None:
    """One CPU for each guest, never the same for two that talk; None with a single CPU."""
    cpus = sorted(allowed)
    if len(cpus) < 2:
        return None
    if len(cpus) >= len(guests):
        return {guest: [cpu] for guest, cpu in zip(guests, cpus, strict=False)}
    # Neighbours talk on one host, and namesakes across hosts.
    shift = {"a": -1, "b": 0}
    return {guest: [cpus[(int(guest[1:]) + shift[guest[0]]) % len(cpus)]] for guest in guests}


def quick() -> Plan:
    """A table in a few minutes: three message sizes, both placements."""
    cases = []
    for placement in PLACEMENTS:
        cases += _sizes(placement, ("tcp_lat",), (1, KIB, 64 * KIB))
        cases += _sizes(placement, ("udp_lat",), (1, KIB))
        cases += _sizes(placement, ("tcp_bw",), (1, KIB, 64 * KIB))
        cases += _sizes(placement, ("udp_bw",), (1, KIB))
        cases += [Case(placement, "mtr"), Case(placement, "iperf3")]
    return Plan("quick", [Part("pairs", cases)])


def published() -> Plan:
    """The whole matrix of the published comparison, and percentiles beside it."""
    messages: list[Case] = []
    for placement in PLACEMENTS:
        messages += _sizes(placement, ("tcp_lat", "tcp_bw"), doubling(1, 128 * MIB))
        messages += _sizes(placement, ("udp_lat", "udp_bw"), doubling(1, KIB))
        messages += _sizes(placement, ("pingpong",), (64, KIB))
    return Plan(
        "published",
        [
            Part("messages", messages, memory_mib=LARGE_MEMORY_MIB),
            *(_crowd(placement) for placement in PLACEMENTS),
        ],
        pace=Pace(
            qperf_s=2, large_s=6, mtr_cycles=30, mtr_interval_s=0.2, iperf_s=4, iperf_omit_s=1
        ),
    )


def ci() -> Plan:
    """What tells whether a change broke something, on one host."""
    cases = [
        *_sizes("same-host", ("tcp_lat", "udp_lat", "pingpong"), (64,)),
        *_sizes("same-host", ("tcp_bw",), (KIB, 64 * KIB)),
        *_sizes("same-host", ("udp_bw",), (KIB,)),
        Case("same-host", "mtr"),
        Case("same-host", "iperf3"),
    ]
    return Plan("ci", [Part("pairs", cases, ("a1", "a2"))], systems=("vhost-user", "bridge"))


def lossless() -> Plan:
    """Packets per second without loss: small ones, and such as fit the least MTU."""
    cases = [case for place in PLACEMENTS for case in _sizes(place, (LOSSLESS,), (64, KIB))]
    return Plan("lossless", [Part("pairs", cases)])


PLANS: dict[str, Callable[[], Plan]] = {
    "quick": quick,
    "published": published,
    "ci": ci,
    "lossless": lossless,
}


def _sizes(placement: str, tests: Sequence[str], sizes: Sequence[int]) -> list[Case]:
    return [Case(placement, test, size) for test in tests for size in sizes]


def _crowd(placement: str) -> Part:
    """2, 4, … 14 guests that talk at the same time."""
    counts = range(2, CROWD + 1, 2)
    cases = [Case(placement, test, guests=count) for test in ("mtr", "iperf3") for count in counts]
    guests = sorted({guest for case in cases for pair in case.pairs for guest in pair})
    return Part(f"crowd-{placement}", cases, guests)
