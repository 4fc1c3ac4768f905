"""A QEMU guest moves between two ports of one switch while its TCP connection goes on.

another QEMU ── peer ── switch ─┬─ one ── QEMU, before
                                └─ two ── QEMU, after; then back again
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from qperf_suite.guests import QemuGuest, VhostUser
from tests.fakes.daemons import Daemon, running, until
from tests.fakes.qmp import Qmp, qmp_arguments
from tests.fakes.tcpstream import TcpStream
from tests.guests.test_interop import config

MAC = "52:54:00:00:0b:01"
ADDRESS = "10.5.0.1"


class Mover:
    """One guest, and the two ports that it moves between."""

    def __init__(self, folder: Path, stack: ExitStack, packed: bool) -> None:
        self._folder = folder
        self._stack = stack
        self._packed = packed
        self._count = 0
        self.port = "one"
        self.guest, self.monitor = self._start([])
        self.guest.wait_ready()

    def _start(self, arguments: list[str]) -> tuple[QemuGuest, Qmp]:
        self._count += 1
        monitor = self._folder / f"qmp{self._count}"
        nic = VhostUser(
            str(self._folder / f"{self.port}.sock"), server=True, mac=MAC, packed=self._packed
        )
        guest = QemuGuest(
            f"mv{self._count}",
            nics=[nic],
            addresses=[f"{ADDRESS}/24"],
            arguments=[*qmp_arguments(monitor), *arguments],
        )
        self._stack.callback(guest.stop)
        guest.start()
        until(monitor.exists, "QEMU's monitor")
        return guest, self._stack.enter_context(Qmp(monitor))

    def move(self) -> None:
        """To the other port; what was left behind ends."""
        before, before_monitor = self.guest, self.monitor
        self.port = "two" if self.port == "one" else "one"
        path = self._folder / f"incoming{self._count}"
        self.guest, self.monitor = self._start(["-incoming", f"unix:{path}"])
        before_monitor.ask("migrate-set-parameters", max_bandwidth=1 << 30, downtime_limit=500)
        before_monitor.ask("migrate", uri=f"unix:{path}")
        until(lambda: self._migrated(before_monitor), "the migration's end")
        until(lambda: self.monitor.ask("query-status")["running"], "the guest running again")
        before.stop()

    @staticmethod
    def _migrated(monitor: Qmp) -> bool:
        answer = monitor.ask("query-migrate")
        assert answer["status"] not in ("failed", "cancelled"), answer
        return bool(answer["status"] == "completed")

    def begin_and_cancel(self) -> None:
        """A migration so slow that it is under way when it is called off."""
        path = self._folder / f"cancelled{self._count}"
        self._stack.enter_context(nobody_reads(path))
        self.monitor.ask("migrate-set-parameters", max_bandwidth=64 << 10)
        self.monitor.ask("migrate", uri=f"unix:{path}")
        until(
            lambda: self.monitor.ask("query-migrate")["status"] == "active",
            "the migration under way",
        )
        self.monitor.ask("migrate_cancel")
        until(
            lambda: self.monitor.ask("query-migrate")["status"] == "cancelled",
            "the migration called off",
        )


@contextmanager
def nobody_reads(path: Path) -> Iterator[None]:
    """Somewhere to migrate to that takes a connection and nothing else."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        yield


def port_of(daemon: Daemon) -> str:
    return next((str(row["port"]) for row in daemon.ask("fdb") if row["mac"] == MAC), "")


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_three_migrations_in_a_row(tmp_path: Path, packed: bool) -> None:
    (tmp_path / "vsw.toml").write_text(config({"one": "client", "two": "client", "peer": "server"}))
    with running(tmp_path / "vsw.toml") as daemon, ExitStack() as stack:
        nic = VhostUser(str(tmp_path / "peer.sock"))
        peer = stack.enter_context(QemuGuest("mvp", nics=[nic], addresses=["10.5.0.2/24"]))
        mover = Mover(tmp_path, stack, packed)
        stream = TcpStream(peer, mover.guest, ADDRESS)
        stream.goes_on()
        mover.begin_and_cancel()
        stream.goes_on()
        for _ in range(3):
            mover.move()
            until(lambda: port_of(daemon) == mover.port, "the MAC behind its new port")
            stream.goes_on()
        stream.finish()
        assert float(mover.guest.check("cut -d' ' -f1 /proc/uptime")) > 5, "it was restarted"
        assert daemon.stop() == 0
