"""No root and no hugepages are needed; hugepages are used where a guest has them."""

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qperf_suite.guests import QemuGuest, UmlGuest, VhostUser
from tests.fakes.daemons import fork_as_nobody, running, until
from tests.fakes.hugepages import page_sizes_kib, reserve_hugepages
from tests.guests.test_interop import config

MEMORY_MIB = 256


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that belongs to nobody; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="nobody-"))
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    yield folder
    shutil.rmtree(folder)


def test_an_ordinary_user_runs_it_without_hugepages(open_folder: Path) -> None:
    file = open_folder / "vsw.toml"
    file.write_text(config({"vm1": "server", "vm2": "server"}))
    with (open_folder / "log").open("wb") as log:
        pid = fork_as_nobody(["run", str(file)], log.fileno())
    try:
        sockets = [open_folder / f"vm{i}.sock" for i in (1, 2)]
        until(lambda: all(path.exists() for path in sockets), "the sockets")
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{pwd.getpwnam('nobody').pw_uid}\t" in status
        assert "CapEff:\t0000000000000000" in status
        with (
            UmlGuest("nb1", nics=[VhostUser(str(sockets[0]))], addresses=["10.5.0.1/24"]) as one,
            UmlGuest("nb2", nics=[VhostUser(str(sockets[1]))], addresses=["10.5.0.2/24"]) as two,
        ):
            assert "5 received" in one.check("ping -c 5 -i 0.1 -W 5 -s 1300 10.5.0.2")
            assert "5 received" in two.check("ping -c 5 -i 0.1 -W 5 10.5.0.1")
            assert page_sizes_kib(pid) == {4}
    finally:
        os.kill(pid, signal.SIGTERM)
        _, code = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(code) == 0


def test_a_guest_on_hugepages(tmp_path: Path) -> None:
    reserve_hugepages(MEMORY_MIB // 2)
    (tmp_path / "vsw.toml").write_text(config({"vm1": "client", "vm2": "server"}))
    huge = VhostUser(str(tmp_path / "vm1.sock"), server=True)
    small = VhostUser(str(tmp_path / "vm2.sock"))
    with (
        running(tmp_path / "vsw.toml") as daemon,
        QemuGuest(
            "hp1",
            nics=[huge],
            addresses=["10.5.0.1/24"],
            memory_mib=MEMORY_MIB,
            hugepages=True,
        ) as one,
        UmlGuest("hp2", nics=[small], addresses=["10.5.0.2/24"]),
    ):
        assert "5 received" in one.check("ping -c 5 -i 0.1 -W 5 -s 1300 10.5.0.2", timeout_s=30)
        assert page_sizes_kib(daemon.process.pid) == {4, 2048}
        assert daemon.stop() == 0
