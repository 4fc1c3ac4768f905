"""Memory that comes and goes in a QEMU guest while numbered packets go through it."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qperf_suite.guests import QemuGuest, UmlGuest, VhostUser
from tests.fakes.daemons import Daemon, running, until
from tests.fakes.qmp import Qmp, qmp_arguments
from tests.guests.test_interop import config

DIMM_MIB = 128  # what Linux makes its memory blocks of
DIMMS = 9  # with the memory there was: more regions than a message of SET_MEM_TABLE can hold
HIGH = 1 << 32  # where a guest so small gets memory that is added
RING = 256
PACKETS, INTERVAL_S = 1000, 0.002


@dataclass
class Bench:
    daemon: Daemon
    uml: UmlGuest
    qemu: QemuGuest
    qmp: Qmp

    def detail(self) -> dict[str, Any]:
        (row,) = [row for row in self.daemon.ask("ports") if row["name"] == "qemu"]
        return dict(row["detail"])

    def regions(self) -> set[int]:
        """Guest addresses of all but the memory that there was."""
        return {region["guest"] for region in self.detail()["regions"]} - {0}

    def port_down(self) -> int:
        """Frames that found no receive ring of the guest's in service."""
        (row,) = [row for row in self.daemon.ask("stats")["ports"] if row["name"] == "qemu"]
        return int(row["drops"].get("port_down", 0))

    def total_kib(self) -> int:
        return int(self.qemu.check("grep MemTotal /proc/meminfo").split()[1])

    def plug(self, number: int, kind: str) -> None:
        """kind: "online_kernel" for whatever, "online_movable" for what can be given back."""
        self.qemu.check(f"echo {kind} > /sys/devices/system/memory/auto_online_blocks")
        before, had = self.regions(), self.total_kib()
        self.qmp.ask(
            "object-add",
            qom_type="memory-backend-memfd",
            id=f"mem{number}",
            size=DIMM_MIB << 20,
            share=True,
        )
        self.qmp.ask("device_add", driver="pc-dimm", id=f"dimm{number}", memdev=f"mem{number}")
        until(lambda: self.total_kib() > had, "the guest to use the memory")
        (new,) = self.regions() - before
        assert new >= HIGH

    def unplug(self, number: int) -> None:
        before = self.regions()
        self.qmp.ask("device_del", id=f"dimm{number}")
        self.qmp.event("DEVICE_DELETED", lambda data: data.get("device") == f"dimm{number}")
        self.qmp.ask("object-del", id=f"mem{number}")
        (gone,) = before - self.regions()
        assert gone >= HIGH

    def receive_buffers(self) -> list[int]:
        """Guest addresses in the receive ring's descriptors, read by way of QEMU.

        QEMU 7.2 asks the backend for where the ring stands, which stops the ring for good.
        """
        (nic,) = [d["path"] for d in self.qmp.ask("x-query-virtio") if "net" in d["name"]]
        ring = self.qmp.ask("x-query-virtio-queue-status", path=nic, queue=0)
        dump = self.qmp.ask(
            "human-monitor-command", command_line=f"xp /{2 * RING}xg {ring['vring-desc']}"
        )
        words = [int(word, 16) for word in re.findall(r"0x([0-9a-f]{16})", dump)]
        return words[::2]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "vsw.toml").write_text(config({"uml": "server", "qemu": "server"}))
    with (
        running(tmp_path / "vsw.toml") as daemon,
        UmlGuest(
            "hpu", nics=[VhostUser(str(tmp_path / "uml.sock"))], addresses=["10.5.0.1/24"]
        ) as uml,
        QemuGuest(
            "hpq",
            nics=[VhostUser(str(tmp_path / "qemu.sock"), queues=2)],
            addresses=["10.5.0.2/24"],
            vcpus=2,
            arguments=[*qmp_arguments(tmp_path / "qmp"), "-m", "slots=16,maxmem=4G"],
        ) as qemu,
        Qmp(tmp_path / "qmp") as qmp,
    ):
        yield Bench(daemon, uml, qemu, qmp)
        assert daemon.stop() == 0


def lost(uml: UmlGuest) -> int:
    """Of so many numbered requests and answers."""
    said = uml.run(
        f"ping -q -c {PACKETS} -i {INTERVAL_S} -s 1000 -W 5 10.5.0.2", timeout_s=60
    ).stdout
    received = re.search(rf"{PACKETS} packets transmitted, (\d+) received", said)
    assert received, said
    return PACKETS - int(received[1])


def test_memory_comes_and_goes_under_traffic(bench: Bench) -> None:
    bench.uml.check("ping -c 3 -i 0.2 -W 5 10.5.0.2", timeout_s=30)
    had = bench.port_down()
    through: list[int] = []
    done = threading.Event()

    def traffic() -> None:
        while not done.is_set():
            through.append(lost(bench.uml))

    with ThreadPoolExecutor() as pool:
        running = pool.submit(traffic)
        try:
            bench.plug(0, "online_kernel")
            for number in range(1, DIMMS):
                bench.plug(number, "online_movable")
            for number in range(1, DIMMS):
                bench.unplug(number)
        finally:
            done.set()
        running.result()
    without = [lost(bench.uml) for _ in through]
    print(f"lost of {PACKETS} each: {through} with memory coming and going, {without} without")
    assert sum(through) <= sum(without)
    assert bench.port_down() == had, "frames came while the guest's ring was out of service"
    assert any(address >= HIGH for address in bench.receive_buffers()), "no frame went there"
