"""A switch that is killed under its guests."""

import re
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from qperf_suite.guests import Guest, QemuGuest, VhostUser
from tests.fakes.daemons import running, until

PORT = '[bridges.br0.ports.{name}]\ntype = "vhost-user"\npath = "{name}.sock"\nmode = "{mode}"\n'
MACS = {"qemu": "52:54:00:00:00:01", "q2": "52:54:00:00:00:02"}


def configuration(folder: Path, **modes: str) -> Path:
    """A file with a port of each name in its mode."""
    ports = "".join(PORT.format(name=name, mode=mode) for name, mode in modes.items())
    file = folder / "vsw.toml"
    file.write_text(f'control = "control.sock"\n[bridges.br0]\nmtu = 1500\n{ports}')
    return file


def ping(guest: Guest, address: str, count: int = 10) -> None:
    out = guest.check(f"ping -c {count} -i 0.05 -W 5 {address}", timeout_s=30)
    assert f"{count} received" in out


@pytest.mark.parametrize("ours", ["client", "server"])
def test_a_killed_switch_comes_back_and_the_guests_do_not_notice(tmp_path: Path, ours: str) -> None:
    listens = ours == "client"
    with ExitStack() as stack:
        daemon = stack.enter_context(running(configuration(tmp_path, qemu=ours, q2=ours)))
        one, two = (
            stack.enter_context(
                QemuGuest(
                    name,
                    nics=[VhostUser(f"{tmp_path}/{name}.sock", server=listens, mac=MACS[name])],
                    addresses=[f"10.5.0.{i}/24"],
                )
            )
            for i, name in ((1, "qemu"), (2, "q2"))
        )
        ping(one, "10.5.0.2")
        one.check("ping -c 60 -i 0.1 -D 10.5.0.2 > /tmp/pings 2>&1 &")
        until(lambda: "seq=10 " in one.check("cat /tmp/pings"), "the first pings")
        daemon.close()
        daemon.start()
        until(lambda: "60 packets" in one.check("cat /tmp/pings"), "the last ping")
        log = one.check("cat /tmp/pings")
        times = [float(t) for t in re.findall(r"\[([0-9.]+)\] 64 bytes", log)]
        gap_s = max(b - a for a, b in pairwise(times))
        assert gap_s < 2, log
        ping(two, "10.5.0.1")
