"""Runs a plan: boots every system of a part, measures them in turn, and stores each point."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from qperf_suite.bystanders import Bystanders
from qperf_suite.errors import GuestError, SuiteError, UsageError
from qperf_suite.kernel_systems import BridgeSystem, MasqueradeSystem
from qperf_suite.leftovers import PREFIX
from qperf_suite.measure import attempt
from qperf_suite.ovs_dpdk import OvsDpdkSystem
from qperf_suite.plans import Part, Plan, Point, pinning
from qperf_suite.progress import Progress
from qperf_suite.store import Store
from qperf_suite.system import Stage, System
from qperf_suite.topology import Topology
from qperf_suite.vhost_user import VhostUserSystem

SYSTEMS: dict[str, Callable[[Stage], System]] = {
    "vhost-user": VhostUserSystem,
    "bridge": BridgeSystem,
    "masquerade": MasqueradeSystem,
    "ovs-dpdk": OvsDpdkSystem,
}
# Who has no guests but QEMU's, and who has those, too.
QEMU_ONLY, QEMU_TOO = {"ovs-dpdk"}, {"vhost-user", "ovs-dpdk"}
ATTEMPTS_MAX = 2
Boot = Callable[[Plan, Part, Store, Progress], AbstractContextManager[Mapping[str, System]]]


class _Run:
    """One plan on its way into a store. attempts: of this run, by point."""

    def __init__(self, plan: Plan, store: Store, progress: Progress, boot: Boot) -> None:
        self.plan = plan
        self.boot = boot
        self.store = store
        self.progress = progress
        self.attempts: Counter[str] = Counter()

    def remaining(self, part: Part) -> list[Point]:
        """What has to be measured, in the order of measuring."""
        return [
            point
            for point in self.plan.points(part)
            if self.store.needs(point) and self.attempts[point.name] < ATTEMPTS_MAX
        ]

    def session(self, part: Part, points: Sequence[Point]) -> None:
        """Boot once and measure; raises SuiteError as soon as a guest or a switch is gone."""
        pace = self.plan.pace
        self.progress.note(f"{part.name}: starting", self.plan.boot_s(part))
        with self.boot(self.plan, part, self.store, self.progress) as systems:
            for point in self.plan.warm_up(part):
                name = f"warming up: {point.case.name} {point.system}"
                self.progress.note(name, point.case.expected_s(pace))
                found = attempt(systems[point.system], point.case, pace)
                self.store.keep(point, found.record(), found.raw)
            for point in points:
                name = f"round {point.round + 1}/{self.plan.rounds} {point.case.name}"
                self.progress.step(f"{name} {point.system}", point.case.expected_s(pace))
                self._measure(systems, point)

    def _measure(self, systems: Mapping[str, System], point: Point) -> None:
        system = systems[point.system]
        while True:
            self.attempts[point.name] += 1
            bystanders = Bystanders(systems, point)
            try:
                found = attempt(system, point.case, self.plan.pace)
                if restless := bystanders.restless(found.took_s):
                    raise GuestError(f"not measured alone: {', '.join(restless)}", found.raw)
            except SuiteError as error:
                self.store.keep(point, {"failure": str(error)}, error.said)
                raise
            again = self.attempts[point.name] < ATTEMPTS_MAX
            if again and found.reading is not None and (others := found.disturbance):
                found = replace(found, failure=others)
            self.store.keep(point, found.record(), found.raw)
            if not found.failure:
                return
            if self.attempts[point.name] >= ATTEMPTS_MAX:
                where = f"{point.case.name} on {point.system}"
                self.progress.say(f"failed twice: {where}: {found.failure}")
                return
            for guest in {guest for pair in point.case.pairs for guest in pair}:
                system.restart_servers(system.seat(guest, point.case).guest)


def run(plan: Plan, store: Store, progress: Progress, boot: Boot | None = None) -> None:
    """Measure what the store does not have yet, then tear down; failures are in the store.

    boot: a context with the systems of a part, in place of real ones.
    """
    going = _Run(plan, store, progress, boot or _booted)
    points = [point for part in plan.parts for point in going.remaining(part)]
    progress.begin(len(points), plan.rest_s(points))
    for part in plan.parts:
        fruitless = 0
        while left := going.remaining(part):
            try:
                going.session(part, left)
            except UsageError:
                raise
            except SuiteError as error:
                # Everyone boots anew: who has lost a guest or a switch, and who did not come up.
                progress.say(f"{part.name}: {error}")
                fruitless = 0 if progress.moved() else fruitless + 1
                if fruitless == ATTEMPTS_MAX:
                    left = going.remaining(part)
                    progress.skip(plan.expected_s(left))
                    progress.say(f"{part.name} is given up: {len(left)} points are missing")
                    break
    progress.end()


@contextmanager
def _booted(
    plan: Plan, part: Part, store: Store, progress: Progress
) -> Iterator[dict[str, System]]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cpus = pinning(part.guests, os.sched_getaffinity(0)) if plan.pin else None
        topology = stack.enter_context(Topology())
        qemu = bool(QEMU_ONLY & set(plan.systems))
        stage = Stage(topology, folder, part.guests, cpus, part.memory_mib, qemu)
        systems = {name: SYSTEMS[name](stage) for name in plan.systems}
        progress.say(f"{part.name}: booting {len(part.guests)} guests per system and driver")
        for system in systems.values():
            system.start(stack)
        for system in systems.values():
            system.wait_ready()
        options = [line for system in systems.values() for line in system.options()]
        if any(system.switches() for system in systems.values()):
            options.append(stage.workers_text())
        store.note({"part": part.name, "options": [*options, pinning_text(cpus)], "cpus": cpus})
        yield systems


def pinning_text(cpus: Mapping[str, Sequence[int]] | None) -> str:
    """For under the table."""
    if cpus is None:
        return "guests run on any CPU"
    places: dict[int, list[str]] = {}
    for guest, (cpu, *_) in cpus.items():
        places.setdefault(cpu, []).append(guest)
    listed = "; ".join(f"{', '.join(guests)} on CPU {cpu}" for cpu, guests in places.items())
    return f"every system's guests are pinned alike: {listed}"
