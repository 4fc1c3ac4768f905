"""vsw top: rates from two samples, and how they are printed."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.configs import write_files
from tests.fakes.daemons import Daemon, environment, running
from vswitch import top

WORKER = {"index": 0, "cpu": 3, "numa_node": None, "packets": 0, "sleeps": 0, "wakes": 0, "naps": 0}
WORKER |= {"cycles_busy": 0, "cycles_idle": 0, "cycles_clock": 0}
QUEUE = {"bridge": "br0", "port": "vm1", "queue": 0, "worker": 0, "packets": 0, "bursts": 0}
QUEUE |= {"empty": 0, "wakes": 0, "timed_packets": 0, "timed_cycles": 0, "port_drops": 0}
SILENT = QUEUE | {"port": "vm2"}


def sample(seconds: float, worker: dict[str, Any], *queues: dict[str, Any]) -> dict[str, Any]:
    return {
        "now_ns": int(seconds * 1e9),
        "timed_every": 17,
        "workers": [WORKER | worker],
        "queues": list(queues),
    }


BEFORE = sample(10, {"packets": 1000, "cycles_clock": 5000}, QUEUE | {"packets": 1000}, SILENT)
AFTER = sample(
    12,
    {
        "packets": 5000,
        "cycles_busy": 400_000,
        "cycles_idle": 100_000,
        "cycles_clock": 1_005_000,
        "sleeps": 20,
        "wakes": 10,
        "naps": 40,
    },
    SILENT,
    QUEUE
    | {
        "packets": 5000,
        "bursts": 250,
        "wakes": 6,
        "timed_packets": 240,
        "timed_cycles": 24_000,
        "port_drops": 3,
    },
)


def test_rates() -> None:
    shown = top.rates(BEFORE, AFTER)
    assert shown["seconds"] == 2
    (worker,) = shown["workers"]
    assert worker == {
        "index": 0,
        "cpu": 3,
        "numa_node": None,
        "busy": 0.4,
        "polling": 0.1,
        "packets_per_s": 2000,
        "cycles_per_packet": 100,
        "sleeps_per_s": 10,
        "wakes_per_s": 5,
        "naps_per_s": 20,
    }
    busy, silent = shown["queues"]
    assert (busy["port"], silent["port"]) == ("vm1", "vm2")  # the busiest first
    assert busy["busy"] == pytest.approx(24_000 * 17 / 1_000_000)
    assert busy["cycles_per_packet"] == 100
    assert busy["packets_per_burst"] == 16
    assert busy["port_drops_per_s"] == 1.5
    assert silent["cycles_per_packet"] is None


def test_a_queue_that_began_anew_counts_from_zero() -> None:
    new = QUEUE | {"packets": 10, "bursts": 10}
    (queue,) = top.rates(BEFORE, sample(11, {}, new))["queues"]
    assert queue["packets_per_s"] == 10


def test_a_queue_and_a_worker_that_came_in_between_have_done_nothing() -> None:
    nothing = {"now_ns": 10**10, "timed_every": 17, "workers": [], "queues": []}
    shown = top.rates(nothing, AFTER)
    assert shown["workers"][0]["busy"] == 0
    assert [queue["packets_per_s"] for queue in shown["queues"]] == [0, 0]


def test_text() -> None:
    lines = top.text(top.rates(BEFORE, AFTER)).split("\n")
    assert lines[0].split()[:4] == ["worker", "cpu", "node", "busy"]
    assert lines[1].split() == ["0", "3", "-", "40.0%", "10.0%", "2000", "100.0", "10", "5", "20"]
    assert lines[4].split()[:4] == ["br0/vm1/0", "0", "40.8%", "2000"]
    assert lines[-1] == "1 quiet queues"


def test_a_terminal_is_cleared_and_not_overrun(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answers = iter([BEFORE, AFTER])

    def ask() -> dict[str, Any]:
        answer = next(answers, None)
        if answer is None:
            raise KeyboardInterrupt
        return answer

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(top, "PERIOD_S", 0)
    monkeypatch.setenv("LINES", "3")
    assert top.run(ask, once=False, as_json=False) == 0
    assert screen.getvalue().startswith(top.CLEAR + "worker")
    assert screen.getvalue().count("\n") == 3


# ---- with a daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(write_files(tmp_path)) as daemon:
        yield daemon


def test_json_is_one_sample(daemon: Daemon) -> None:
    shown = daemon.ask("top")
    (worker,) = shown["workers"]
    assert 0 <= worker["busy"] <= worker["busy"] + worker["polling"] <= 1
    assert [queue["port"] for queue in shown["queues"]] == ["mesh"]
    assert shown["seconds"] >= 1


def test_an_interrupt_ends_it_cleanly(daemon: Daemon, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vswitch.cli", "top", "--control"]
    with subprocess.Popen(
        [*command, str(tmp_path / "control.sock")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("worker")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
