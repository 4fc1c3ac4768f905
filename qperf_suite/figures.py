"""The outcome of a run for machines: JSON, and CSV."""

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from qperf_suite.costs import costs
from qperf_suite.outcome import Outcome
from qperf_suite.statistics import Ratio
from qperf_suite.table import Compared

DETAILS = ("per_guest", "worst_guest", "loss_percent", "retransmits", "half_percent_lost_per_s")
PERCENTILES = ("min_us", "p50_us", "p90_us", "p99_us", "p99.9_us", "max_us")
CPU = ("machine_s", "guests_s", "switch_s", "steal_s")


def figures(outcome: Outcome, environment: Mapping[str, Any], compared: Compared) -> dict[str, Any]:
    """environment, samples (in order of measuring), ratios; intervals, costs, failures beside."""
    return {
        "environment": {
            **environment,
            "plan": outcome.plan.name,
            "rounds": outcome.plan.rounds,
            "options": outcome.options,
        },
        "samples": [
            {
                "system": sample.system,
                "case": sample.case.name,
                "unit": sample.case.unit,
                "value": sample.value,
                "round": sample.round,
                "details": dict(sample.details),
                "cpu": dict(sample.cpu),
            }
            for sample in outcome.samples
        ],
        "ratios": {
            pair: {case.name: round(ratio.median, 4) for case, ratio in row.items()}
            for pair, row in compared.items()
        },
        "intervals": {
            pair: {case.name: _interval(ratio) for case, ratio in row.items()}
            for pair, row in compared.items()
        },
        "costs": costs(outcome),
        "failures": [
            {
                "system": failure.system,
                "case": failure.case.name,
                "round": failure.round,
                "words": failure.words,
            }
            for failure in outcome.failures
        ],
    }


def samples_csv(outcome: Outcome) -> str:
    """One row for each sample, in the order of measuring."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("system", "placement", "test", "message_bytes", "guests", "round", "unit", "value")
    writer.writerow([*names, *DETAILS, *PERCENTILES, "took_s", *(f"cpu_{name}" for name in CPU)])
    for sample in outcome.samples:
        case = sample.case
        where = (sample.system, case.placement, case.test, case.size_bytes or "", case.guests)
        writer.writerow(
            [
                *(*where, sample.round, case.unit, sample.value),
                *(sample.details.get(name, "") for name in (*DETAILS, *PERCENTILES)),
                sample.took_s,
                *(sample.cpu.get(name, "") for name in CPU),
            ]
        )
    return text.getvalue()


def _interval(ratio: Ratio) -> list[float] | None:
    """None when there was a single round."""
    return None if math.isinf(ratio.high) else [round(ratio.low, 4), round(ratio.high, 4)]
