"""Two runs beside each other: what changed beyond noise."""

import random
from dataclasses import asdict
from statistics import median

from qperf_suite.environment import commits
from qperf_suite.errors import UsageError
from qperf_suite.outcome import Outcome
from qperf_suite.statistics import compare_unpaired
from qperf_suite.store import Store
from qperf_suite.table import significant
from qperf_suite.tables import Table
from qperf_suite.workloads import Kind


def changes(before: Outcome, after: Outcome) -> tuple[Table, str]:
    """Cases that differ, and a sentence about all; UsageError: the runs have none in common."""
    rows, compared = [], 0
    for system in before.plan.systems:
        for case in before.plan.cases:
            old = list(before.values(system, case).values())
            new = list(after.values(system, case).values())
            if not old or not new:
                continue
            compared += 1
            ratio = compare_unpaired(
                new, old, smaller_is_better=case.kind is Kind.LATENCY, rng=random.Random(1)
            )
            if ratio.verdict in ("ahead", "behind"):
                verdict = "better" if ratio.verdict == "ahead" else "worse"
                values = [f"{significant(median(found))} {case.unit}" for found in (old, new)]
                interval = f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
                rows.append([case.name, system, *values, interval, verdict])
    if not compared:
        raise UsageError("the runs have no case of the same system in common")
    head = ["case", "system", "before", "after", "times better (95 %)", ""]
    chance = f"about {round(compared * 0.05)} of so many" if compared >= 20 else "one in twenty"
    words = f"{len(rows)} of {compared} cases changed beyond noise; {chance} may do so by chance."
    return Table("What changed", head, rows), words


def conditions(before: Store, after: Store) -> list[str]:
    """A line for each thing beside the network that differs between two runs."""
    return [
        f"Not the same in both: {name}, {' and '.join(values)}."
        for name, values in _conditions(before, after)
        if len(set(values)) > 1
    ]


def _conditions(before: Store, after: Store) -> list[tuple[str, list[str]]]:
    stores = (before, after)
    paces = [asdict(store.plan().pace) for store in stores]
    found = [(name, [str(pace[name]) for pace in paces]) for name in paces[0]]
    starts = [store.starts() for store in stores]
    for name in ("cpu", "cpus", "kernel"):
        # Of each run every value, in case it went on elsewhere.
        said = [list(dict.fromkeys(str(it.get(name)) for it in run)) for run in starts]
        found.append((name, [" then ".join(values) or "unknown" for values in said]))
    found.append(("commit", [" then ".join(commits(run)) or "unknown" for run in starts]))
    return found
