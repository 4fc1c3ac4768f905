"""A miniature of the suite's run, with real guests.

host a:  a1 ── br0 ── a2      twice, for both drivers; and behind NAT
"""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from qperf_suite import leftovers, ovs
from qperf_suite.guests import UmlGuest
from qperf_suite.image import UML_KERNEL
from qperf_suite.outcome import Outcome, Sample, load
from qperf_suite.plans import Part, Plan
from qperf_suite.progress import Progress
from qperf_suite.runner import run
from qperf_suite.store import Store
from qperf_suite.table import ratios, table
from qperf_suite.workloads import LOSSLESS, Case
from tests.fakes.daemons import until

pytestmark = [
    pytest.mark.skipif(not UML_KERNEL.exists(), reason="user-mode-linux is not installed"),
    pytest.mark.skipif(shutil.which("qperf") is None, reason="qperf is not installed"),
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
CASES = [
    Case("same-host", "tcp_lat", 1),
    Case("same-host", "udp_lat", 1024),
    Case("same-host", "tcp_bw", 65536),
    Case("same-host", "udp_bw", 1024),
    Case("same-host", "pingpong", 64),
    Case("same-host", "mtr"),
    Case("same-host", "iperf3"),
]


def test_guest_runs_commands_and_leaves_nothing() -> None:
    with UmlGuest("alone", nics=[]) as guest:
        pid = guest.pid
        assert guest.check("cat /proc/sys/kernel/ostype") == "Linux\n"
        assert guest.run("echo out; echo err >&2; exit 7").status == 7
        assert guest.run("sleep 20", timeout_s=1).status == 137
        big = guest.check("seq 1 20000")
        assert big.splitlines()[-1] == "20000"
    assert not Path(f"/proc/{pid}").exists()


@needs_root
def test_miniature_fills_every_cell(tmp_path: Path) -> None:
    part = Part("pairs", CASES, ("a1", "a2"))
    plan = Plan("quick", [part], systems=("bridge", "masquerade"), rounds=1)
    outcome = measured(tmp_path, plan)
    for system in plan.systems:
        for case in plan.cases:
            (sample,) = outcome.of(system, case).values()
            assert sample.cpu["guests_s"] > 0, (system, case.name)
    assert "failed" not in table(outcome, ratios(outcome))
    assert namespaces_of(os.getpid()) == []


@needs_root
def test_crowd_talks_at_the_same_time(tmp_path: Path) -> None:
    cases = [Case("same-host", "mtr", guests=4), Case("same-host", "iperf3", guests=4)]
    plan = Plan(
        "quick",
        [Part("crowd", cases, ("a1", "a2", "a3", "a4"))],
        systems=("vhost-user",),
        rounds=1,
    )
    outcome = measured(tmp_path, plan)
    (sample,) = outcome.of("vhost-user", cases[1]).values()
    assert sample.value == pytest.approx(2 * sample.details["per_guest"])
    assert sample.cpu["switch_s"] > 0


@needs_root
def test_rate_without_loss_is_searched_for(tmp_path: Path) -> None:
    case = Case("same-host", LOSSLESS, 64)
    part = Part("pairs", [case], ("a1", "a2"))
    plan = Plan("lossless", [part], systems=("vhost-user",), rounds=1)
    outcome = measured(tmp_path, plan)
    (sample,) = outcome.samples
    assert 100 < sample.value < 1e6
    raw = (tmp_path / Store(tmp_path).records()[-1]["raw"]).read_text()
    assert raw.count("$ iperf3 --udp") == sample.details["trials"] > 3


@needs_root
@pytest.mark.skipif(not ovs.installed(), reason="openvswitch-switch-dpdk is not installed")
def test_ovs_dpdk_is_measured_with_guests_like_ours(tmp_path: Path) -> None:
    cases = [Case(place, "tcp_lat", 1) for place in ("same-host", "across-hosts")]
    part = Part("pairs", cases, ("a1", "a2", "b1"), memory_mib=256)
    plan = Plan("quick", [part], systems=("vhost-user", "ovs-dpdk"), rounds=1)
    outcome = measured(tmp_path, plan)
    for system in plan.systems:
        for case in cases:
            (sample,) = outcome.of(system, case).values()
            assert sample.cpu["switch_s"] > 0, (system, case.name)
    assert all("under TCG" in line for line in outcome.options if line.startswith(plan.systems))
    assert namespaces_of(os.getpid()) == []


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_run_survives_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped in the middle, everything is removed, by the run itself or by what comes next."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "qperf_suite.cli", "run", "--plan", "quick", "--out", out]
    command += ["--systems", "masquerade", "--filter", "same-host/udp", "--rounds", "1"]
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: first.poll() is not None or bool(samples(out)), "a sample", wait_s=120)
        assert first.poll() is None, (tmp_path / "log").read_text()
        assert namespaces_of(first.pid)
        first.send_signal(number)
        status = first.wait()
    before = len(samples(out))
    if number == signal.SIGINT:
        assert status == 130
    else:
        assert namespaces_of(first.pid)
        removed = leftovers.clean()
        assert any(line.startswith("namespace") for line in removed)
        assert any(line.startswith("folder") for line in removed)
    assert namespaces_of(first.pid) == []
    assert list(Path(tempfile.gettempdir()).glob(f"qs{first.pid}-*")) == []
    assert processes_naming(f"qs{first.pid}-") == []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{before} of 4 points are there" in done.stderr
    assert len(samples(out)) == 4
    assert processes_naming(f"qs{first.pid}-") == []


@needs_root
def test_a_switch_that_is_killed_is_noticed_and_all_boot_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "qperf_suite.cli", "run", "--plan", "ci", "--out", out]
    command += ["--systems", "vhost-user", "--filter", "same-host/udp", "--rounds", "3"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until(lambda: run.poll() is not None or bool(samples(out)), "a sample", wait_s=120)
    (switch,) = switches_of(run.pid)
    os.kill(switch, signal.SIGKILL)
    _, said = run.communicate()
    assert run.returncode == 0, said
    assert "vsw run of host a ended with -9" in said
    assert len(samples(out)) == 6
    assert processes_naming(f"qs{run.pid}-") == []


def test_what_a_living_process_made_is_left_alone(tmp_path: Path) -> None:
    mine = Path(tempfile.mkdtemp(prefix=f"qs{os.getpid()}-"))
    dead = subprocess.Popen(["true"])
    dead.wait()
    theirs = Path(tempfile.mkdtemp(prefix=f"qs{dead.pid}-"))
    try:
        assert f"folder {theirs}" in leftovers.clean()
        assert mine.exists()
        assert not theirs.exists()
    finally:
        mine.rmdir()


def measured(out: Path, plan: Plan) -> Outcome:
    with Store(out) as store:
        store.adopt(plan)
        run(plan, store, Progress(io.StringIO()))
        outcome = load(store)
    assert outcome.failures == []
    return outcome


def samples(out: Path) -> list[Sample]:
    return load(Store(out)).samples if (out / "plan.json").exists() else []


def namespaces_of(pid: int) -> list[str]:
    folder = Path("/run/netns")
    return [path.name for path in folder.glob(f"qs{pid}-*")]


def processes_naming(words: str) -> list[str]:
    """Command lines with these words, of whatever runs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_text(errors="replace")
            if words in line:
                found.append(line)
    return found


def switches_of(pid: int) -> list[int]:
    """Daemons of ours that a run started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if b"/vsw\0run\0" in words and f"/qs{pid}-".encode() in words:
                found.append(int(path.parent.name))
    return found
