"""A run's folder, and runs with guests that fail, die, or are interrupted: no privilege."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from qperf_suite.agent import CommandResult
from qperf_suite.bystanders import Bystanders
from qperf_suite.errors import GuestError, TopologyError, UsageError
from qperf_suite.outcome import load
from qperf_suite.plans import Part, Plan, Point
from qperf_suite.progress import Progress
from qperf_suite.runner import run
from qperf_suite.store import Store
from qperf_suite.system import Machine, Seat, System
from qperf_suite.workloads import Case

LATENCY = Case("same-host", "tcp_lat", 1)
RATE = Case("same-host", "lossless", 64)
CROWD = Case("same-host", "mtr", guests=4)
PART = Part("pairs", [LATENCY, CROWD], ("a1", "a2", "a3", "a4"))
PLAN = Plan("ci", [PART], systems=("vhost-user", "bridge"), rounds=2)
MTR = {"dst": "10.5.0.1"}
HUB = {"host": "10.5.0.1", "Loss%": 0.0, "Snt": 10, "Avg": 0.2, "Best": 0.1, "Wrst": 0.3}
ANSWERS = {
    "qperf": "tcp_lat:\n    latency  =  20 us\n",
    "mtr": json.dumps({"report": {"mtr": MTR, "hubs": [HUB]}}),
}
Hook = Callable[[str, str], CommandResult | None]


class FakeGuest:
    """Answers at once; a hook may answer instead, or raise."""

    session = os.getpid()

    def __init__(self, system: str, hook: Hook, restarted: list[str]) -> None:
        self._system = system
        self._hook = hook
        self._restarted = restarted

    def run(self, command: str, timeout_s: float = 10) -> CommandResult:
        tool = command.split(maxsplit=1)[0]
        if tool == "killall":
            self._restarted.append(self._system)
            return CommandResult(command, 0, "", "")
        return self._hook(self._system, tool) or CommandResult(command, 0, ANSWERS[tool], "")

    def spawn(self, command: str) -> None:
        pass


class FakeSystem(System):
    """Every seat is the same guest."""

    def __init__(self, name: str, hook: Hook, restarted: list[str]) -> None:
        self._guest = cast(Machine, FakeGuest(name, hook, restarted))

    def start(self, stack: object) -> None:
        pass

    def seats(self) -> list[Seat]:
        return []

    def seat(self, guest: str, case: Case) -> Seat:
        return Seat(self._guest, "10.5.0.1")

    def options(self) -> list[str]:
        return []


class Bench:
    """A folder, and how often it was booted for, and torn down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boots = 0
        self.torn_down = 0
        self.restarted: list[str] = []
        self.said = io.StringIO()

    def run(self, hook: Hook = lambda system, tool: None, plan: Plan = PLAN) -> bool:
        """Returns whether it went on with something that was there."""
        with Store(self.folder) as store:
            continued = store.adopt(plan)
            run(plan, store, Progress(self.said), self._boot(hook))
        return continued

    def lines(self) -> list[dict[str, object]]:
        return Store(self.folder).records()

    def _boot(self, hook: Hook) -> Callable[..., AbstractContextManager[dict[str, System]]]:
        @contextmanager
        def boot(plan: Plan, *_: object) -> Iterator[dict[str, System]]:
            self.boots += 1
            try:
                yield {name: FakeSystem(name, hook, self.restarted) for name in plan.systems}
            finally:
                self.torn_down += 1

        return boot


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "out")


def failed(words: str) -> CommandResult:
    return CommandResult("qperf", 1, "", words)


def test_a_run_stores_every_point_with_its_raw_output(bench: Bench) -> None:
    assert not bench.run()
    outcome = load(Store(bench.folder))
    assert (len(outcome.samples), outcome.failures, outcome.missing) == (8, [], 0)
    assert outcome.values("bridge", LATENCY) == {0: 20.0, 1: 20.0}
    assert outcome.of("bridge", CROWD)[0].details["worst_guest"] == 200.0
    measured = [line for line in bench.lines() if line["round"] != -1]
    assert [line["point"] for line in measured] == [point.name for point in PLAN.points(PART)]
    for line in bench.lines():
        raw = (bench.folder / str(line["raw"])).read_text()
        assert raw.startswith("$ ")
        assert raw.count("[status 0]") == (2 if "4-guests" in str(line["case"]) else 1)


def test_the_warm_up_is_recorded_and_not_counted(bench: Bench) -> None:
    bench.run()
    warm = [line["case"] for line in bench.lines() if line["round"] == -1]
    assert warm == [LATENCY.name] * 2 + [CROWD.name] * 2


def test_an_interrupted_run_is_torn_down_and_goes_on_where_it_stopped(bench: Bench) -> None:
    count = 0

    def interrupt(system: str, tool: str) -> None:
        nonlocal count
        count += 1
        # Warm-up: 2 and 2 pairs of 2.  Then somewhere in the middle.
        if count == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(interrupt)
    assert bench.torn_down == 1
    before = [line["point"] for line in bench.lines() if line["round"] != -1]
    assert 0 < len(before) < 8
    assert bench.run()
    after = [line["point"] for line in bench.lines() if line["round"] != -1]
    assert after == [point.name for point in PLAN.points(PART)]
    assert after[: len(before)] == before
    assert bench.run()
    assert bench.boots == 2, "with nothing left to measure nobody boots"


def test_a_failed_point_is_tried_again_recorded_and_does_not_end_the_run(bench: Bench) -> None:
    def fail(system: str, tool: str) -> CommandResult | None:
        return failed("no server") if (system, tool) == ("bridge", "qperf") else None

    bench.run(fail)
    outcome = load(Store(bench.folder))
    assert (len(outcome.samples), len(outcome.failures), outcome.missing) == (6, 2, 0)
    assert {failure.words for failure in outcome.failures} == {"no server"}
    attempts = [line for line in bench.lines() if line["round"] != -1 and "failure" in line]
    assert len(attempts) == 4
    assert set(bench.restarted) == {"bridge"}
    # What was wrong is mended: a failed point is measured by the next run, and only that.
    bench.run()
    outcome = load(Store(bench.folder))
    assert (len(outcome.samples), outcome.failures) == (8, [])


def test_a_search_is_one_point_with_the_output_of_every_trial(bench: Bench) -> None:
    plan = Plan("lossless", [Part("pairs", [RATE], ("a1", "a2"))], systems=("bridge",), rounds=1)
    # Whatever is asked for, a thousand are sent, and arrive.
    start = {"test_start": {"blksize": 64}, "rcvbuf_actual": 212992}
    end = {"sum_sent": {"packets": 1000}, "sum_received": {"packets": 1000, "bytes": 64000}}
    said = json.dumps({"start": start, "end": end})
    bench.run(lambda system, tool: CommandResult(tool, 0, said, ""), plan)
    (sample,) = load(Store(bench.folder)).samples
    assert sample.value == pytest.approx(1000, rel=0.03)
    line = bench.lines()[-1]
    assert (line["point"], line["unit"]) == ("0/bridge/same-host/lossless/64", "pkt/s")
    raw = (bench.folder / str(line["raw"])).read_text()
    assert raw.count("$ iperf3\n") == raw.count("[status 0]") == sample.details["trials"] > 3


def test_a_trial_that_fails_is_a_failed_point_with_what_was_said_before(bench: Bench) -> None:
    plan = Plan("lossless", [Part("pairs", [RATE], ("a1", "a2"))], systems=("bridge",), rounds=1)
    refused = CommandResult("iperf3", 1, '{"error": "the server is busy"}', "")
    bench.run(lambda system, tool: refused, plan)
    (failure,) = load(Store(bench.folder)).failures
    assert failure.words == "iperf3: the server is busy"
    assert "the server is busy" in (bench.folder / str(bench.lines()[-1]["raw"])).read_text()


def test_a_lost_guest_makes_everybody_boot_anew(bench: Bench) -> None:
    count = 0

    def die(system: str, tool: str) -> None:
        nonlocal count
        count += 1
        if count == 10:
            raise GuestError("guest is gone")

    bench.run(die)
    outcome = load(Store(bench.folder))
    assert (len(outcome.samples), outcome.failures) == (8, [])
    assert (bench.boots, bench.torn_down) == (2, 2)
    assert "guest is gone" in bench.said.getvalue()


def test_a_part_that_does_not_boot_is_given_up_and_the_next_one_measured(bench: Bench) -> None:
    other = Part("other", [Case("same-host", "tcp_lat", 2)], ("a1", "a2"))
    plan = Plan("ci", [PART, other], systems=("bridge",), rounds=1)
    real = bench._boot(lambda system, tool: None)

    @contextmanager
    def boot(plan: Plan, part: Part, *rest: object) -> Iterator[dict[str, System]]:
        if part is PART:
            raise TopologyError("no room")
        with real(plan, part, *rest) as systems:
            yield systems

    with Store(bench.folder) as store:
        store.adopt(plan)
        run(plan, store, Progress(bench.said), boot)
    outcome = load(Store(bench.folder))
    assert (len(outcome.samples), outcome.missing) == (1, 2)
    assert "pairs is given up: 2 points are missing" in bench.said.getvalue()


def test_half_a_line_of_a_killed_run_is_cut_off(bench: Bench) -> None:
    bench.run()
    path = bench.folder / "points.jsonl"
    whole = path.read_text()
    last = whole.splitlines()[-1]
    path.write_text(whole[:-20])
    assert load(Store(bench.folder)).missing == 1
    bench.run()
    lines = bench.lines()
    assert lines[-1]["point"] == json.loads(last)["point"]
    assert load(Store(bench.folder)).missing == 0


def test_a_folder_holds_one_run(bench: Bench) -> None:
    bench.run()
    with pytest.raises(UsageError, match=r"another run \(other systems, rounds\)"):
        bench.run(plan=Plan("ci", [PART], systems=("bridge",)))
    with Store(bench.folder), pytest.raises(UsageError, match="another run is writing"):
        bench.run()


def test_a_run_goes_on_with_the_guests_that_it_was_begun_with(bench: Bench) -> None:
    bench.run()
    fewer = replace(PLAN, parts=[replace(PART, guests=("a1", "a2"))])
    assert bench.run(plan=fewer)
    assert [part.guests for part in Store(bench.folder).plan().parts] == [["a1", "a2", "a3", "a4"]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("plan.json", "{", "cannot be read"),
        ("plan.json", "[]", "not a plan"),
        ("plan.json", '{"parts": [{"cases": 3}]}', "not a plan of this version"),
        ("points.jsonl", "{}\n{]\n{}\n", "damaged"),
    ],
)
def test_a_damaged_folder_is_told(bench: Bench, name: str, content: str, words: str) -> None:
    bench.run()
    (bench.folder / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        load(Store(bench.folder))


def test_a_plan_comes_back_as_it_was_stored(bench: Bench) -> None:
    bench.run()
    stored = Store(bench.folder).plan()
    assert stored.points(stored.parts[0]) == PLAN.points(PART)
    assert stored.pace == PLAN.pace


def test_there_is_no_run_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no plan\.json"):
        load(Store(tmp_path))


class Pair(FakeSystem):
    """Two guests with sessions of their own."""

    def __init__(self, first: int) -> None:
        self._seats = {
            f"a{n}": Seat(cast(Machine, SimpleNamespace(session=first + n)), f"10.5.0.{first + n}")
            for n in (1, 2)
        }

    def seats(self) -> list[Seat]:
        return list(self._seats.values())

    def seat(self, guest: str, case: Case) -> Seat:
        return self._seats[guest]


def test_who_uses_the_cpu_while_others_are_measured_is_named() -> None:
    used = {1: 10.0, 2: 20.0, 11: 0.5, 12: 3.0}
    bystanders = Bystanders(
        {"vhost-user": Pair(0), "bridge": Pair(10)},
        Point("pairs", 0, "vhost-user", LATENCY),
        lambda sessions: {session: used[session] for session in sessions},
    )
    assert bystanders.restless(2.0) == []
    for session, more in {1: 1.9, 2: 1.9, 11: 0.9, 12: 1.9}.items():
        used[session] += more
    assert bystanders.restless(2.0) == ["bridge's guest 10.5.0.12 used 1.9 s of CPU"]


def test_what_was_not_measured_alone_is_measured_again_with_new_guests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([[], ["bridge's guest 10.6.1.3 used 2.0 s of CPU"]])
    monkeypatch.setattr(Bystanders, "restless", lambda *_: next(answers, []))
    bench.run()
    outcome = load(Store(bench.folder))
    assert (bench.boots, len(outcome.samples), outcome.failures) == (2, 8, [])
    assert "not measured alone: bridge's guest 10.6.1.3 used 2.0 s" in bench.said.getvalue()
    (lost,) = [line for line in bench.lines() if "failure" in line]
    assert (bench.folder / str(lost["raw"])).read_text().startswith("$ ")
