"""What a run found, as far as it has come: samples by system and case."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qperf_suite.plans import Plan
from qperf_suite.store import Store
from qperf_suite.workloads import Case


@dataclass(frozen=True)
class Sample:
    """One value, in the case's unit. cpu: seconds by name; seconds: how long that was."""

    round: int
    system: str
    case: Case
    value: float
    details: Mapping[str, float] = field(default_factory=dict)
    cpu: Mapping[str, float] = field(default_factory=dict)
    took_s: float = 0.0


@dataclass(frozen=True)
class Failure:
    """A point that failed and was not measured later, with the tool's words."""

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

    def of(self, system: str, case: Case) -> dict[int, Sample]:
        """Round → sample."""
        return {
            sample.round: sample
            for sample in self.samples
            if sample.system == system and sample.case == case
        }

    def values(self, system: str, case: Case) -> dict[int, float]:
        """Round → value."""
        return {number: sample.value for number, sample in self.of(system, case).items()}

    @property
    def missing(self) -> int:
        """Points that were neither measured nor failed."""
        points = self.plan.rounds * len(self.plan.cases) * len(self.plan.systems)
        return points - len(self.samples) - len(self.failures)


def load(store: Store) -> Outcome:
    """From a run's folder, also from one that is still written to."""
    plan = store.plan()
    cases = {case.name: case for case in plan.cases}
    samples: dict[str, Sample] = {}
    failures: dict[str, Failure] = {}
    for record in store.records():
        if record["case"] not in cases or record["round"] < 0:
            continue
        point, where = record["point"], (record["round"], record["system"], cases[record["case"]])
        if "value" in record:
            samples[point] = Sample(
                *where, record["value"], record["details"], record["cpu"], record["took_s"]
            )
            failures.pop(point, None)
        elif point not in samples:
            failures[point] = Failure(*where, record["failure"])
    options: list[str] = []
    for note in store.environment():
        options += [line for line in note.get("options", []) if line not in options]
    return Outcome(plan, list(samples.values()), list(failures.values()), options)
