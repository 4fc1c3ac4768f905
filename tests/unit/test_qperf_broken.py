"""Runs that meet what is broken: systems that do not start, switches that end. No privilege."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from qperf_suite.agent import CommandResult
from qperf_suite.errors import GuestError, SuiteError, TopologyError, UsageError
from qperf_suite.measure import Attempt, attempt
from qperf_suite.outcome import load
from qperf_suite.plans import Part, Plan
from qperf_suite.progress import Progress
from qperf_suite.runner import run
from qperf_suite.store import Store
from qperf_suite.system import System
from qperf_suite.workloads import Case, Pace
from tests.unit.test_qperf_store import CROWD, LATENCY, PART, Bench, FakeSystem, Hook

OTHER = Part("other", [Case("same-host", "tcp_lat", 2)], ("a1", "a2"))
Boot = Callable[..., AbstractContextManager[Mapping[str, System]]]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "out")


def measure(bench: Bench, plan: Plan, boot: Boot) -> None:
    with Store(bench.folder) as store:
        store.adopt(plan)
        run(plan, store, Progress(bench.said), boot)


def refusing(bench: Bench, error: SuiteError) -> Boot:
    """The first part does not start."""
    real = bench._boot(lambda system, tool: None)

    @contextmanager
    def boot(plan: Plan, part: Part, *rest: object) -> Iterator[Mapping[str, System]]:
        if part is PART:
            raise error
        with real(plan, part, *rest) as systems:
            yield systems

    return boot


@pytest.mark.parametrize("error", [SuiteError("OVS does not start"), TopologyError("vsw ended")])
def test_a_switch_that_does_not_start_costs_its_part_alone(bench: Bench, error: SuiteError) -> None:
    measure(bench, Plan("ci", [PART, OTHER], ("bridge",), 1), refusing(bench, error))
    outcome = load(Store(bench.folder))
    assert (len(outcome.samples), outcome.missing) == (1, 2)
    assert f"pairs: {error}" in bench.said.getvalue()
    assert "pairs is given up: 2 points are missing" in bench.said.getvalue()


def test_what_the_machine_lacks_ends_the_run(bench: Bench) -> None:
    plan = Plan("ci", [PART, OTHER], ("bridge",), 1)
    with pytest.raises(UsageError, match="is missing"):
        measure(bench, plan, refusing(bench, UsageError("vsw is missing")))


class Switched(FakeSystem):
    """A network with a process, which ends when a tool runs for the given time."""

    def __init__(self, name: str, hook: Hook, restarted: list[str], ends_at: int) -> None:
        self._left = ends_at
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        super().__init__(name, self._counting(hook), restarted)

    def processes(self) -> Mapping[str, "subprocess.Popen[bytes]"]:
        return {"vsw run of host a": self._process}

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.communicate()

    def _counting(self, hook: Hook) -> Hook:
        def counted(system: str, tool: str) -> CommandResult | None:
            self._left -= 1
            if self._left == 0:
                self.end()
            return hook(system, tool)

        return counted


@pytest.mark.parametrize("ends_at", [5, 6])
def test_a_switch_that_ends_makes_everybody_boot_anew(bench: Bench, ends_at: int) -> None:
    deaths = iter([ends_at])
    made: list[Switched] = []

    @contextmanager
    def boot(plan: Plan, *_: object) -> Iterator[Mapping[str, System]]:
        bench.boots += 1
        made.append(Switched("vhost-user", lambda *_: None, bench.restarted, next(deaths, 0)))
        try:
            yield {"vhost-user": made[-1]}
        finally:
            made[-1].end()

    measure(bench, Plan("ci", [PART], ("vhost-user",), 2), boot)
    outcome = load(Store(bench.folder))
    assert (bench.boots, len(outcome.samples), outcome.failures) == (2, 4, [])
    assert "pairs: vsw run of host a ended with 0" in bench.said.getvalue()
    assert bench.restarted == []
    (lost,) = [line for line in bench.lines() if "failure" in line]
    assert "[status 0]" in (bench.folder / str(lost["raw"])).read_text()


def test_a_guest_that_is_lost_with_its_switch_is_not_blamed(bench: Bench) -> None:
    def lose(system: str, tool: str) -> None:
        switched.end()
        raise GuestError("guest is gone")

    switched = Switched("vhost-user", lose, [], 0)
    with pytest.raises(TopologyError, match="vsw run of host a ended with 0"):
        attempt(switched, LATENCY, Pace())
    kernel = FakeSystem("bridge", lose, [])
    with pytest.raises(GuestError, match="guest is gone"):
        attempt(kernel, LATENCY, Pace())


def test_what_others_printed_is_kept_when_a_guest_is_lost(bench: Bench) -> None:
    calls = 0

    def die(system: str, tool: str) -> None:
        nonlocal calls
        calls += tool == "mtr"
        # Of the warm-up's two pairs none, of the first point's the last.
        if calls == 4:
            calls += 1
            raise GuestError("guest is gone")

    bench.run(die, Plan("ci", [Part("crowd", [CROWD], PART.guests)], ("bridge",), 1))
    (lost,) = [line for line in bench.lines() if "failure" in line]
    assert (bench.folder / str(lost["raw"])).read_text().count("[status 0]") == 1


# ---- a machine that does something else


@pytest.mark.parametrize(
    ("machine_s", "took_s", "says"),
    [
        (3.4, 2.1, ""),
        (3.5, 2.1, "others used 0.5 s of CPU meanwhile"),
        (0.2, 0.01, ""),
    ],
)
def test_others_are_told_from_who_is_measured(machine_s: float, took_s: float, says: str) -> None:
    used = {"machine_s": machine_s, "guests_s": 2.0, "switch_s": 1.0, "steal_s": 0.0}
    if took_s < 1:
        used |= {"guests_s": 0.0, "switch_s": 0.0}
    assert Attempt(None, "", "", "", took_s, used).disturbance == says


def test_nobody_knows_what_guests_elsewhere_use() -> None:
    used = {"machine_s": 8.0, "steal_s": 0.0}
    assert Attempt(None, "", "", "", 4.0, used).disturbance == ""


@pytest.mark.parametrize("times", [1, 99])
def test_what_others_disturbed_is_measured_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    said = iter(["others used 2.0 s of CPU meanwhile"] * times)
    monkeypatch.setattr(Attempt, "disturbance", property(lambda _: next(said, "")))
    bench.run()
    outcome = load(Store(bench.folder))
    assert (bench.boots, len(outcome.samples)) == (1, 8)
    disturbed = [line for line in bench.lines() if "failure" in line]
    assert len(disturbed) == min(times, len(outcome.samples))
    assert (bench.folder / str(disturbed[0]["raw"])).read_text().startswith("$ ")
