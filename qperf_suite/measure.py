"""One point: the tool runs in every client at the same time, and what it costs is counted."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qperf_suite.agent import CommandResult
from qperf_suite.cpu import cpu_time
from qperf_suite.errors import SuiteError, ToolError, ToolRefusedError
from qperf_suite.lossless import TRIAL_S, search
from qperf_suite.parse import Reading
from qperf_suite.system import Seat, System
from qperf_suite.workloads import LOSSLESS, Case, Pace

# Of one CPU, beside a point.  Measured: below 0.1 in 97 of 100 points on a quiet machine, though
# for a bridge's work some of the kernel's is in it, and 0.5 and more beside tests at the lowest
# priority, when latencies are two to nine times too long.
OTHERS_SHARE = 0.2
JUDGED_S = 1.0  # CPU time of the machine comes in ticks
# What a tool may take beyond the seconds that it measures: connecting, and being given up.
GRACE_S = 5.0
GRACE_GUEST_S = 1.0


@dataclass(frozen=True)
class Attempt:
    """What came of measuring a point once: a reading, or the words of a failure."""

    reading: Reading | None
    failure: str
    raw: str
    started: str
    took_s: float
    cpu: dict[str, float]

    @property
    def disturbance(self) -> str:
        """Who neither talks nor switches, and had much of a CPU meanwhile; "" when nobody had."""
        if "guests_s" not in self.cpu or self.took_s < JUDGED_S:
            return ""
        others_s = self.cpu["machine_s"] - self.cpu["guests_s"] - self.cpu["switch_s"]
        if others_s <= OTHERS_SHARE * self.took_s:
            return ""
        return f"others used {others_s:.1f} s of CPU meanwhile"

    def record(self) -> dict[str, Any]:
        """For the store."""
        found: dict[str, Any] = {"failure": self.failure}
        if self.reading is not None and not self.failure:
            found = {"value": self.reading.value, "details": dict(self.reading.details)}
        return {**found, "started": self.started, "took_s": self.took_s, "cpu": self.cpu}


def attempt(system: System, case: Case, pace: Pace) -> Attempt:
    """Measure once; raises GuestError when a guest is gone, TopologyError when a switch is."""
    pairs = [
        (system.seat(client, case), system.seat(server, case)) for client, server in case.pairs
    ]
    sessions = (seat.guest.session for pair in pairs for seat in pair)
    guests = [session for session in sessions if session is not None]
    started, begun_s = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
    results: list[CommandResult] = []
    try:
        with system.awake():
            before = cpu_time(guests, system.switches())
            try:
                reading, failure = _run(pairs, case, pace, results), ""
            except ToolError as error:
                reading, failure = None, str(error)
            used = cpu_time(guests, system.switches()).since(before)
            if not guests:
                # Guests and switches elsewhere are not known, which is not 0.
                used = {name: used[name] for name in ("machine_s", "steal_s")}
    except SuiteError as error:
        error.said = _transcript(results)
        raise
    took_s = round(time.monotonic() - begun_s, 3)
    return Attempt(reading, failure, _transcript(results), started, took_s, used)


def _transcript(results: Sequence[CommandResult]) -> str:
    return "".join(
        f"$ {result.command}\n{result.stdout}{result.stderr}[status {result.status}]\n"
        for result in results
    )


def _run(
    pairs: Sequence[tuple[Seat, Seat]], case: Case, pace: Pace, results: list[CommandResult]
) -> Reading:
    """results: takes what every command said; raises ToolError."""
    grace_s = GRACE_S + GRACE_GUEST_S * case.guests
    if case.test == LOSSLESS:
        ((client, server),) = pairs

        def trial(command: str) -> str:
            results.append(client.guest.run(command, TRIAL_S + grace_s))
            return _output(results[-1])

        return search(trial, case, server.address)

    def ask(pair: tuple[Seat, Seat]) -> CommandResult:
        client, server = pair
        return client.guest.run(case.command(server.address, pace), case.seconds(pace) + grace_s)

    if len(pairs) == 1:
        results.append(ask(pairs[0]))
    else:
        with ThreadPoolExecutor(len(pairs)) as pool:
            asked = [pool.submit(ask, pair) for pair in pairs]
        # Also when one guest is lost: what the others printed.
        results += [one.result() for one in asked if one.exception() is None]
        for one in asked:
            one.result()
    return case.join([case.parse(_output(result)) for result in results])


def _output(result: CommandResult) -> str:
    # iperf3 reports errors on stdout, as JSON, which its parser puts in words.
    if not result.ok and not result.stdout.lstrip().startswith("{"):
        raise ToolRefusedError(result.words)
    return result.stdout
