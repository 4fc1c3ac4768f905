"""What is told of the machine that measures, and when a run goes on in another one."""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qperf_suite import commands, environment
from qperf_suite.cli import main
from qperf_suite.environment import commits
from qperf_suite.measure import attempt
from qperf_suite.plans import PLANS
from qperf_suite.report import write
from qperf_suite.store import Store
from qperf_suite.system import Machine
from qperf_suite.workloads import Pace
from tests.fakes.suite_run import invented
from tests.unit.test_qperf_store import LATENCY, FakeSystem

QUICK = replace(PLANS["quick"](), rounds=3)


def test_the_machine_is_described() -> None:
    found = environment.environment(["vhost-user", "ovs-dpdk"])
    assert found["cpus"] >= 1
    assert found["kernel"]
    assert found["python"].startswith("3.")
    assert {"cpu", "memory", "commit", "changed", "vsw", "qemu", "ovs", "iperf3"} <= set(found)
    assert not {"vsw", "qemu", "ovs"} & set(environment.environment())


def test_what_is_not_told_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment.environment()
    assert [found[name] for name in ("qperf", "commit", "changed")] == [None, None, None]
    assert environment._text(tmp_path / "none") is None
    assert environment._field(tmp_path / "none", "model name") is None
    assert environment._package("no such package") is None


@pytest.mark.parametrize("change", [False, True])
def test_changes_that_were_not_committed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bool
) -> None:
    (tmp_path / "file").write_text("one")
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    for command in (("init", "-q"), ("add", "file"), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    (tmp_path / "file").write_text("two" if change else "one")
    (tmp_path / "untracked").write_text("")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.environment()["changed"] is change


def test_commits_are_listed_once() -> None:
    starts = [{"commit": "a"}, {"commit": "b", "changed": True}, {"commit": "a"}, {"commit": None}]
    assert commits(starts) == ["a", "b with changes", "unknown"]


def noted(folder: Path, **values: Any) -> Path:
    with invented(folder, QUICK) as store:
        store.note({"environment": {"cpu": "Fast & Co.", "cpus": 2, "kernel": "6.1", **values}})
    return folder


def test_the_report_lists_commits_zeros_and_what_is_unknown(tmp_path: Path) -> None:
    folder = noted(tmp_path / "run", commit="b")
    lines = (folder / "environment.jsonl").read_text()
    first = '"commit": "a", "changed": false, "hugepages": "0", "steal_s": 0.0, "smt": null, "cpus"'
    (folder / "environment.jsonl").write_text(lines.replace('"cpus"', first, 1))
    write(folder)
    text = (folder / "report.md").read_text()
    for row in ("commits | a, b", "changed | False", "steal s | 0.0", "smt | unknown"):
        assert f"| {row} |" in text


def test_a_run_that_goes_on_with_another_commit_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with invented(folder, QUICK) as store:
        store.note({"environment": {"commit": "a"}})
    monkeypatch.setattr(commands, "_clean_up", lambda: None)
    monkeypatch.setattr(commands, "check_machine", lambda _: None)
    monkeypatch.setattr(commands, "environment", lambda _: {"commit": "b", "cpus": 2})
    arguments = ["run", "--plan", "quick", "--out", str(folder)]
    assert main(arguments) == 0
    assert "warning: begun with commit unknown, a, and goes on with b" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "warning" not in capsys.readouterr().err


def test_compare_says_what_else_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = noted(tmp_path / "before", commit="a")
    slower = replace(QUICK, pace=Pace(qperf_s=2))
    with invented(tmp_path / "after", slower, seed=2) as store:
        store.note({"environment": {"cpu": "Slow", "cpus": 2, "kernel": "6.1", "commit": "a"}})
    assert main(["compare", str(before), str(tmp_path / "after")]) == 0
    said = capsys.readouterr().out
    assert "Not the same in both: qperf_s, 1 and 2." in said
    assert "Not the same in both: cpu, Fast & Co. and Fast & Co. then Slow." in said
    assert said.count("Not the same") == 2


def test_cpu_time_of_guests_elsewhere_is_unknown() -> None:
    system = FakeSystem("bridge", lambda *_: None, [])
    assert set(attempt(system, LATENCY, Pace()).cpu) > {"guests_s", "switch_s"}
    system._guest = cast(Machine, SimpleNamespace(session=None, run=system._guest.run))
    assert set(attempt(system, LATENCY, Pace()).cpu) == {"machine_s", "steal_s"}


def test_a_store_without_starts_has_no_commit(tmp_path: Path) -> None:
    assert commits(Store(tmp_path).starts()) == []
