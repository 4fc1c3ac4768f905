"""Where vhost-user has to be ahead, where it is not, and why: causes are a person's, from a file.

[[cause]]                                   causes.toml, in a run's folder; the first that fits
cases = "same-host/tcp_bw/*"                shell's pattern of a case's name
against = "bridge"                          may be left out: any system
text = "60 % of the time is one copy…"
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from qperf_suite.errors import UsageError
from qperf_suite.statistics import Ratio
from qperf_suite.workloads import KIB, Case

CAUSES = "causes.toml"
NO_CAUSE = "no cause was given"
NOT_MEASURED = "it failed, or its turn has not come"
OTHERS = ("bridge", "masquerade")


@dataclass(frozen=True)
class Goal:
    """What is wanted of every case that counts. tied: a tie is enough."""

    words: str
    counts: Callable[[Case], bool]
    tied: bool = False

    def met(self, ratio: Ratio) -> bool:
        """Ahead is who has the whole interval above 1."""
        return ratio.low > 1 or (self.tied and ratio.verdict == "tie")


@dataclass(frozen=True)
class Cause:
    """Why cases are not ahead."""

    cases: str
    text: str
    against: str = "*"


@dataclass(frozen=True)
class Shortfall:
    """A case that is not ahead. goal: None where nothing was wanted, and it is behind.

    ratio: None where it was planned, and one of the two was not measured.
    """

    goal: Goal | None
    case: Case
    other: str
    ratio: Ratio | None


GOALS = (
    Goal(
        "latency below 64 KiB: ahead",
        lambda case: case.test in ("tcp_lat", "udp_lat") and (case.size_bytes or 0) < 64 * KIB,
    ),
    Goal(
        "link total of 14 guests: ahead",
        lambda case: case.test == "iperf3" and case.guests == 14,
    ),
    Goal(
        "bandwidth of 128 B to 8 KiB, same host: ahead or tied",
        lambda case: (
            case.placement == "same-host"
            and case.test in ("tcp_bw", "udp_bw")
            and 128 <= (case.size_bytes or 0) <= 8 * KIB
        ),
        tied=True,
    ),
)


def shortfalls(
    compared: Mapping[str, Mapping[Case, Ratio]], planned: Iterable[Case] = ()
) -> list[Shortfall]:
    """By goal, then what is behind where nothing was wanted; what was not measured last in each.

    compared: "vhost-user/bridge" → case → ratio; planned: every case that should have one.
    """
    planned = list(planned)
    found = []
    for goal in (*GOALS, None):
        for pair, row in compared.items():
            other = pair.partition("/")[2]
            found += [
                Shortfall(goal, case, other, ratio)
                for case, ratio in row.items()
                if _goal(case, other) is goal
                and (ratio.verdict == "behind" if goal is None else not goal.met(ratio))
            ]
            found += [
                Shortfall(goal, case, other, None)
                for case in planned
                if case not in row and _goal(case, other) is goal
            ]
    return found


def measured(compared: Mapping[str, Mapping[Case, Ratio]]) -> int:
    """How many cases something is wanted of."""
    return sum(
        _goal(case, pair.partition("/")[2]) is not None
        for pair, row in compared.items()
        for case in row
    )


def read_causes(folder: Path) -> list[Cause]:
    """None when there is no file; UsageError names what is wrong with one."""
    path = folder / CAUSES
    if not path.exists():
        return []
    try:
        found = tomllib.loads(path.read_text())
        if not set(found) <= {"cause"}:
            raise UsageError(f"{path}: [[cause]] is all that may stand there")
        causes = [Cause(**entry) for entry in found.get("cause", [])]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from error
    for cause in causes:
        if not all(isinstance(it, str) for it in (cause.cases, cause.text, cause.against)):
            raise UsageError(f"{path}: cases, against and text are texts: {cause}")
    return causes


def why(shortfall: Shortfall, causes: Sequence[Cause]) -> str:
    """The text of the first cause that fits."""
    for cause in causes:
        if fnmatchcase(shortfall.case.name, cause.cases) and fnmatchcase(
            shortfall.other, cause.against
        ):
            return cause.text
    return NOT_MEASURED if shortfall.ratio is None else NO_CAUSE


def _goal(case: Case, other: str) -> Goal | None:
    if other not in OTHERS:
        return None
    return next((goal for goal in GOALS if goal.counts(case)), None)
