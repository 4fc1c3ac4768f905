"""A miniature of the suite's run, with real guests.

host a:  a1 ── br0 ── a2      twice, for both drivers; and behind NAT
"""

import io
import os
import shutil
from pathlib import Path

import pytest

from qperf_suite.guests import UmlGuest
from qperf_suite.image import UML_KERNEL
from qperf_suite.progress import Progress
from qperf_suite.runner import Plan, run
from qperf_suite.table import table
from qperf_suite.workloads import Case

pytestmark = [
    pytest.mark.skipif(not UML_KERNEL.exists(), reason="user-mode-linux is not installed"),
    pytest.mark.skipif(shutil.which("qperf") is None, reason="qperf is not installed"),
]
CASES = [
    Case("same-host", "tcp_lat", 1),
    Case("same-host", "udp_lat", 1024),
    Case("same-host", "tcp_bw", 65536),
    Case("same-host", "udp_bw", 1024),
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


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_miniature_fills_every_cell() -> None:
    plan = Plan(systems=["bridge", "masquerade"], cases=CASES, guests=("a1", "a2"), rounds=1)
    outcome = run(plan, Progress(io.StringIO()))
    assert outcome.failures == []
    for system in plan.systems:
        for case in plan.cases:
            assert len(outcome.values(system, case)) == 1, (system, case.name)
    assert "failed" not in table(outcome)
    left = [name for name in os.listdir("/run/netns") if name.startswith(f"qs{os.getpid()}-")]
    assert left == []
