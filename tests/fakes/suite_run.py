"""A run of the qperf suite that never was: every point of a plan, with invented values."""

import math
import random
from pathlib import Path

from qperf_suite.parse import PINGPONG_TIMES
from qperf_suite.plans import Plan, Point
from qperf_suite.store import Store
from qperf_suite.workloads import Kind


def invented(
    folder: Path, plan: Plan, *, seed: int = 1, better: float = 1.0, ours: float = 1.6
) -> Store:
    """A folder with a plan's points.

    better: than what the same seed gives otherwise.  ours: how good vhost-user is, bridge being 1.
    """
    factors = {"vhost-user": ours, "bridge": 1.0, "masquerade": 0.9}
    rng = random.Random(seed)
    with Store(folder) as store:
        store.adopt(plan)
        store.note(
            {"environment": {"cpu": "Fast & Co.", "cpus": 2, "kernel": "6.1", "date": "now"}}
        )
        store.note({"options": ["bridge: <fast> & clear text"]})
        for part in plan.parts:
            for point in plan.points(part):
                store.keep(point, _record(point, rng, factors[point.system] * better), "raw\n")
    return store


def _record(point: Point, rng: random.Random, better: float) -> dict[str, object]:
    case = point.case
    size = case.size_bytes or 1000
    value = 20 + size / 1e3 if case.kind is Kind.LATENCY else size / (0.5 + size / 2000)
    good = better * math.exp(rng.gauss(0, 0.01))
    value = value / good if case.kind is Kind.LATENCY else value * good
    details = {name: value * (index + 1) for index, name in enumerate(PINGPONG_TIMES)}
    details["half_percent_lost_per_s"] = value * 1.2
    cpu = {"machine_s": 2.0, "guests_s": 1.5, "switch_s": 0.4, "steal_s": 0.0}
    return {"value": value, "details": details, "took_s": 1.1, "cpu": cpu}
