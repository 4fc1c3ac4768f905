"""The switch is killed again and again while guests use it; they, and their connections, stay.

VSW_KILLS: how many times (3).
"""

import os
import re
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from qperf_suite.guests import QemuGuest, VhostUser
from tests.fakes.daemons import Daemon, running, until
from tests.fakes.tcpstream import TcpStream
from tests.guests.test_interop import config

KILLS = int(os.environ.get("VSW_KILLS", "3"))
INTERVAL_S = 0.1


def nic(path: Path, number: int, role: str, packed: bool) -> VhostUser:
    mac = f"52:54:00:00:05:{number:02x}"
    return VhostUser(str(path), server=role == "client", mac=mac, packed=packed)


def states(daemon: Daemon) -> set[str]:
    return {row["state"] for row in daemon.ask("ports")}


def longest_gap_s(ping: str) -> float:
    """From `ping -D` output: between two replies."""
    at = [float(stamp) for stamp in re.findall(r"^\[([\d.]+)\] \d+ bytes from", ping, re.M)]
    assert len(at) > 20, ping
    return max(later - earlier for earlier, later in pairwise(at))


def kinds(daemon: Daemon) -> set[str]:
    return {queue["kind"] for row in daemon.ask("ports") for queue in row["detail"]["queues"]}


# Boots are dear: split rings in both of our roles, packed ones in the usual one.
@pytest.mark.parametrize(
    ("role", "packed"), [("client", False), ("server", False), ("client", True)]
)
def test_guests_go_on_after_kill_9(tmp_path: Path, role: str, packed: bool) -> None:
    (tmp_path / "vsw.toml").write_text(config({"vm1": role, "vm2": role}))
    with running(tmp_path / "vsw.toml") as daemon, ExitStack() as stack:
        one, two = (
            stack.enter_context(
                QemuGuest(
                    f"kr{i}",
                    nics=[nic(tmp_path / f"vm{i}.sock", i, role, packed)],
                    addresses=[f"10.5.0.{i}/24"],
                )
            )
            for i in (1, 2)
        )
        one.check("ping -c 3 -i 0.2 -W 5 10.5.0.2", timeout_s=30)
        kind = "packed" if packed else "split"
        assert kinds(daemon) == {kind}
        stream = TcpStream(one, two, "10.5.0.2")
        stream.goes_on()
        two.spawn(f"/usr/bin/ping -D -i {INTERVAL_S} 10.5.0.1 > /tmp/pings 2>&1")
        for _ in range(KILLS):
            daemon.close()  # SIGKILL
            daemon.start()
            daemon.wait("READY=1")
            until(lambda: states(daemon) == {"connected"}, "both guests found again")
            stream.goes_on()
        stream.finish()
        two.check("killall -INT ping; sleep 0.5")
        gap_s = longest_gap_s(two.check("cat /tmp/pings"))
        print(f"{kind}, {role}: {KILLS} kills, longest gap of a ping: {gap_s:.2f} s")
        assert float(one.check("cut -d' ' -f1 /proc/uptime")) > 5, "the guest was restarted"
        assert daemon.stop() == 0
