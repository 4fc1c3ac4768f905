"""Runs a plan: boots every system, then measures them in turn, round after round."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from qperf_suite.errors import GuestError, ToolError, UsageError
from qperf_suite.kernel_systems import BridgeSystem, MasqueradeSystem
from qperf_suite.progress import Progress
from qperf_suite.system import GUESTS, Stage, System
from qperf_suite.topology import Topology
from qperf_suite.vhost_user import VhostUserSystem
from qperf_suite.workloads import PLACEMENTS, Case, demo_cases

SYSTEMS: dict[str, Callable[[Stage], System]] = {
    "vhost-user": VhostUserSystem,
    "bridge": BridgeSystem,
    "masquerade": MasqueradeSystem,
}
# What a tool may take beyond the seconds that it measures: connecting, and being given up.
TOOL_GRACE_S = 5


@dataclass(frozen=True)
class Plan:
    """What to measure. cpus: guest → CPUs, None leaves guests to the scheduler."""

    systems: Sequence[str] = tuple(SYSTEMS)
    cases: Sequence[Case] = field(default_factory=demo_cases)
    guests: Sequence[str] = GUESTS
    rounds: int = 3
    seconds: int = 1
    cpus: Mapping[str, Sequence[int]] | None = None


@dataclass(frozen=True)
class Sample:
    """One value, in the case's unit."""

    round: int
    system: str
    case: Case
    value: float


@dataclass(frozen=True)
class Failure:
    """A point that failed twice, with the tool's words."""

    round: int
    system: str
    case: Case
    words: str


@dataclass(frozen=True)
class Outcome:
    """Everything that a run found. options: lines to stand under the table."""

    plan: Plan
    samples: list[Sample]
    failures: list[Failure]
    options: list[str]
    elapsed_s: float

    def values(self, system: str, case: Case) -> dict[int, float]:
        """Round → value."""
        return {
            sample.round: sample.value
            for sample in self.samples
            if sample.system == system and sample.case == case
        }


def order(plan: Plan) -> list[tuple[int, str, Case]]:
    """Every point in the order of measuring.

    The systems take their turns within each case, so that what disturbs the machine disturbs
    all of them; who is first rotates over cases and rounds.
    """
    points = []
    for round_number in range(plan.rounds):
        for index, case in enumerate(plan.cases):
            first = (round_number + index) % len(plan.systems)
            turns = [*plan.systems[first:], *plan.systems[:first]]
            points += [(round_number, system, case) for system in turns]
    return points


def run(plan: Plan, progress: Progress) -> Outcome:
    """Boot, measure, tear down; raises SuiteError when a system does not come up."""
    for case in plan.cases:
        missing = set(PLACEMENTS[case.placement]) - set(plan.guests)
        if missing:
            raise UsageError(f"{case.name} needs the guests {', '.join(sorted(missing))}")
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="qs-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stage = Stage(stack.enter_context(Topology()), folder, plan.guests, plan.cpus)
        systems = {name: SYSTEMS[name](stage) for name in plan.systems}
        progress.say(f"booting {len(plan.guests)} guests per system and driver")
        for system in systems.values():
            system.start(stack)
        for system in systems.values():
            system.wait_ready()
        samples, failures = _measure(plan, systems, progress)
        options = [line for system in systems.values() for line in system.options()]
        options.append(_pinning(plan))
    return Outcome(plan, samples, failures, options, time.monotonic() - begun)


def _pinning(plan: Plan) -> str:
    if plan.cpus is None:
        return "guests run on any CPU"
    places = ", ".join(f"{guest} on CPU {cpus[0]}" for guest, cpus in plan.cpus.items())
    return f"every system's guests are pinned alike: {places}"


def _measure(
    plan: Plan, systems: Mapping[str, System], progress: Progress
) -> tuple[list[Sample], list[Failure]]:
    samples: list[Sample] = []
    failures: list[Failure] = []
    points = order(plan)
    progress.begin(len(points))
    for round_number, name, case in points:
        progress.step(f"round {round_number + 1}/{plan.rounds} {case.name} {name}")
        try:
            value = _point_with_retry(systems[name], case, plan.seconds)
        except ToolError as error:
            progress.say(f"failed twice: {case.name} on {name}: {error}")
            failures.append(Failure(round_number, name, case, str(error)))
        else:
            samples.append(Sample(round_number, name, case, value))
    progress.end()
    return samples, failures


def _point_with_retry(system: System, case: Case, seconds: int) -> float:
    try:
        return _point(system, case, seconds)
    except ToolError:
        client, server = (system.seat(guest, case) for guest in PLACEMENTS[case.placement])
        for seat in (client, server):
            system.restart_servers(seat.guest)
        return _point(system, case, seconds)


def _point(system: System, case: Case, seconds: int) -> float:
    """Measure once; raises ToolError, also when a guest stopped answering."""
    client, server = (system.seat(guest, case) for guest in PLACEMENTS[case.placement])
    try:
        result = client.guest.run(case.command(server.address, seconds), seconds + TOOL_GRACE_S)
    except GuestError as error:
        raise ToolError(str(error)) from error
    # iperf3 reports errors on stdout, as JSON, which its parser puts in words.
    if not result.ok and not result.stdout.lstrip().startswith("{"):
        raise ToolError(result.words)
    return case.parse(result.stdout)
