"""User Mode Linux, QEMU and DPDK on one running switch, in both socket roles."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qperf_suite.guests import QemuGuest, UmlGuest, VhostUser
from tests.fakes.daemons import Daemon, running, until
from tests.fakes.testpmd import Testpmd, VirtioUser

PORT = """
[bridges.br0.ports.{name}]
type = "vhost-user"
path = "{name}.sock"
mode = "{mode}"
"""


def config(modes: dict[str, str]) -> str:
    """modes: port → our role."""
    ports = "".join(PORT.format(name=name, mode=mode) for name, mode in modes.items())
    return 'control = "control.sock"\n[bridges.br0]\n' + ports


@pytest.fixture(params=["client", "server"])
def role(request: pytest.FixtureRequest) -> str:
    """Ours towards QEMU and DPDK; User Mode Linux can only connect."""
    return str(request.param)


@pytest.fixture
def daemon(tmp_path: Path, role: str) -> Iterator[Daemon]:
    modes = {"uml": "server", "qemu": role, "dpdk0": role, "dpdk1": role}
    (tmp_path / "vsw.toml").write_text(config(modes))
    with running(tmp_path / "vsw.toml") as daemon:
        yield daemon
        assert daemon.stop() == 0


def states(daemon: Daemon) -> dict[str, str]:
    return {row["name"]: row["state"] for row in daemon.ask("ports")}


def kinds(daemon: Daemon, name: str) -> set[str]:
    """Of rings that a port has."""
    (row,) = (row for row in daemon.ask("ports") if row["name"] == name)
    return {ring["kind"] for ring in row["detail"]["queues"]}


def test_three_kinds_at_once(daemon: Daemon, role: str, tmp_path: Path) -> None:
    listens = role == "client"
    uml_nic = VhostUser(str(tmp_path / "uml.sock"))
    qemu_nic = VhostUser(str(tmp_path / "qemu.sock"), server=listens)
    loop = [VirtioUser(tmp_path / f"dpdk{i}.sock", listens) for i in (0, 1)]
    with (
        UmlGuest("iu", nics=[uml_nic], addresses=["10.5.0.1/24"]) as uml,
        QemuGuest("iq", nics=[qemu_nic], addresses=["10.5.0.2/24"]) as qemu,
    ):
        assert "5 received" in uml.check("ping -c 5 -i 0.1 -W 5 10.5.0.2", timeout_s=30)
        assert kinds(daemon, "uml") == {"packed"}, "what we offer and its driver has"
        with Testpmd(loop) as pmd:
            pmd.ready()
            pmd.to_each_other()
            until(lambda: set(states(daemon).values()) == {"connected"}, "all ports connected")
            pmd.tell("start tx_first 4")
            until(lambda: min(pmd.received()) > 100_000, "frames to go round")
            assert "5 received" in uml.check("ping -c 5 -i 0.1 -W 5 10.5.0.2", timeout_s=30)
            assert "5 received" in qemu.check("ping -c 5 -i 0.1 -W 5 10.5.0.1", timeout_s=30)
            before = pmd.received()
            until(lambda: min(pmd.received()) > max(before) + 100_000, "frames to go on")
        until(lambda: states(daemon)["dpdk0"] != "connected", "testpmd's end to be noticed")
        assert "5 received" in uml.check("ping -c 5 -i 0.1 -W 5 10.5.0.2", timeout_s=30)
