"""The switch is killed while guests use it, and comes again; the guests stay."""

import re
import threading
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from qperf_suite.guests import QemuGuest, VhostUser
from tests.fakes.daemons import running
from tests.guests.test_interop import config

INTERVAL_S = 0.1
GAP_MAX_S = 2.0


def nic(path: Path, number: int, role: str) -> VhostUser:
    return VhostUser(str(path), server=role == "client", mac=f"52:54:00:00:05:{number:02x}")


def longest_gap_s(ping: str) -> float:
    """From `ping -D` output: between two replies."""
    at = [float(stamp) for stamp in re.findall(r"^\[([\d.]+)\] \d+ bytes from", ping, re.M)]
    assert len(at) > 20, ping
    return max(later - earlier for earlier, later in pairwise(at))


@pytest.mark.parametrize("role", ["client", "server"])
def test_pings_go_on_after_kill_9(tmp_path: Path, role: str) -> None:
    (tmp_path / "vsw.toml").write_text(config({"vm1": role, "vm2": role}))
    with running(tmp_path / "vsw.toml") as daemon, ExitStack() as stack:
        guests = [
            stack.enter_context(
                QemuGuest(
                    f"kr{i}",
                    nics=[nic(tmp_path / f"vm{i}.sock", i, role)],
                    addresses=[f"10.5.0.{i}/24"],
                )
            )
            for i in (1, 2)
        ]
        guests[0].check("ping -c 3 -i 0.2 -W 5 10.5.0.2", timeout_s=30)
        out: list[str] = []
        pinging = threading.Thread(
            target=lambda: out.append(
                guests[0].run(f"ping -D -i {INTERVAL_S} -w 9 10.5.0.2", timeout_s=30).stdout
            )
        )
        pinging.start()
        never = threading.Event()
        never.wait(2.0)  # pings under way
        daemon.close()  # SIGKILL
        daemon.start()
        daemon.wait("READY=1")
        pinging.join()
        gap_s = longest_gap_s(out[0])
        print(f"longest gap: {gap_s:.2f} s")
        assert gap_s < GAP_MAX_S
        assert float(guests[0].check("cut -d' ' -f1 /proc/uptime")) > 9, "the guest was restarted"
        assert daemon.stop() == 0
