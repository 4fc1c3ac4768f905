"""QEMU with rings and buffers of every kind; User Mode Linux as its partner, and with itself.

One QEMU has two NICs, one in each role, and each has a bridge and a partner of its own:

 uml eth0 ─ bridge here ── qemu eth0, we listen
 uml eth1 ─ bridge there ─ qemu eth1, it listens
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qperf_suite.guests import QemuGuest, UmlGuest, VhostUser
from tests.fakes.daemons import Daemon, running
from tests.fakes.traffic import echo, ping_sizes

BRIDGES = {"here": "server", "there": "client"}  # our role towards QEMU
BRIDGE = """
[bridges.{name}]
mtu = 1500
[bridges.{name}.ports.uml-{name}]
type = "vhost-user"
path = "uml-{name}.sock"
mode = "server"
[bridges.{name}.ports.vm-{name}]
type = "vhost-user"
path = "vm-{name}.sock"
mode = "{mode}"
"""
ADDRESSES = {
    "uml": ["10.5.0.1/24", "10.6.0.1/24"],
    "vm": ["10.5.0.2/24", "10.6.0.2/24"],
}
PAYLOADS_BYTES = [0, 1, 2, 15, 16, 117, 118, 119, 255, 256, 1000, 1471, 1472, 1473, 5000]


@dataclass
class Bench:
    folder: Path
    daemon: Daemon
    uml: UmlGuest

    def detail(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.daemon.ask("ports") if row["name"] == f"vm-{name}"]
        return dict(row["detail"])

    def rings(self, name: str) -> list[dict[str, Any]]:
        return [r for r in self.detail(name)["queues"] if r["started"] and r["enabled"]]

    def large_frames(self, name: str) -> list[int]:
        """That came from and went to the guest."""
        (row,) = [r for r in self.daemon.ask("stats")["ports"] if r["name"] == f"vm-{name}"]
        return [row["rx_gso_packets"], row["tx_gso_packets"]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("matrix")
    text = "".join(BRIDGE.format(name=name, mode=mode) for name, mode in BRIDGES.items())
    (folder / "vsw.toml").write_text(f'control = "control.sock"\n{text}')
    nics = [VhostUser(str(folder / f"uml-{name}.sock")) for name in BRIDGES]
    with (
        running(folder / "vsw.toml") as daemon,
        UmlGuest("mxu", nics=nics, addresses=ADDRESSES["uml"]) as uml,
    ):
        yield Bench(folder, daemon, uml)
        assert daemon.stop() == 0


def test_user_mode_linux(bench: Bench) -> None:
    """It can only connect."""
    nic = VhostUser(str(bench.folder / "vm-here.sock"))
    with UmlGuest("mxv", nics=[nic], addresses=["10.5.0.3/24"]) as other:
        both_ways(bench, "here", "10.5.0.3", other)
        ping_sizes(other, "10.5.0.1", PAYLOADS_BYTES)


@pytest.mark.parametrize("mergeable", [False, True], ids=["single", "mergeable"])
@pytest.mark.parametrize("pairs", [1, 4])
@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_qemu(bench: Bench, packed: bool, pairs: int, mergeable: bool) -> None:
    nics = [
        VhostUser(
            str(bench.folder / f"vm-{name}.sock"),
            server=mode == "client",
            mac=f"52:54:00:00:06:{number:02x}",
            queues=pairs,
            packed=packed,
            mrg_rxbuf=mergeable,
        )
        for number, (name, mode) in enumerate(BRIDGES.items())
    ]
    with QemuGuest("mxq", nics=nics, addresses=ADDRESSES["vm"], vcpus=pairs) as qemu:
        for number, name in enumerate(BRIDGES):
            features = set(bench.detail(name)["features"])
            assert ("RING_PACKED" in features, "MRG_RXBUF" in features) == (packed, mergeable)
            assert [ring["index"] for ring in bench.rings(name)] == list(range(2 * pairs))
            both_ways(bench, name, f"10.{5 + number}.0.2", qemu, streams=pairs)
        ping_sizes(qemu, "10.5.0.1", PAYLOADS_BYTES)
        if pairs > 1:
            number_of_queues(bench, qemu, pairs)
        driver_reload(bench, qemu, pairs)


def both_ways(
    bench: Bench, name: str, address: str, other: UmlGuest | QemuGuest, *, streams: int = 1
) -> None:
    """Small frames and large ones, each byte compared, from the partner and back."""
    ping_sizes(bench.uml, address, PAYLOADS_BYTES)
    before = bench.large_frames(name)
    echo(bench.uml, other, address, mib=4 // streams, streams=streams)
    assert all(now > then for now, then in zip(bench.large_frames(name), before, strict=True))


def number_of_queues(bench: Bench, qemu: QemuGuest, pairs: int) -> None:
    """Each queue carries what its CPU sends; fewer and more of them while packets pass."""
    before = {ring["index"]: ring["next"] for ring in bench.rings("here")}
    for cpu in range(pairs):
        qemu.check(f"taskset {1 << cpu:x} ping -q -c 5 -i 0.05 -W 5 10.5.0.1")
    for ring in bench.rings("here"):
        assert ring["role"] == "rx" or (ring["next"] - before[ring["index"]]) & 0x7FFF >= 5
    bench.uml.spawn("ping -c 10000 -i 0.01 10.5.0.2")
    for wanted in (1, 3, pairs):
        qemu.check(f"ethtool -L eth0 combined {wanted}")
        assert [ring["index"] for ring in bench.rings("here")] == list(range(2 * wanted))
        ping_sizes(bench.uml, "10.5.0.2", [64, 1472])
    bench.uml.check("killall ping")


def driver_reload(bench: Bench, qemu: QemuGuest, pairs: int) -> None:
    """The driver lets go of both cards, and takes them again."""
    driver = "/sys/bus/virtio/drivers/virtio_net"
    for number, name in enumerate(BRIDGES):
        qemu.check(f"echo virtio{number} > {driver}/unbind")
        assert bench.rings(name) == []
    for number, name in enumerate(BRIDGES):
        qemu.check(f"echo virtio{number} > {driver}/bind")
        qemu.check(f"ip link set eth{number} up")
        qemu.check(f"ip addr add {ADDRESSES['vm'][number]} dev eth{number}")
        assert [ring["index"] for ring in bench.rings(name)] == list(range(2 * pairs))
        ping_sizes(bench.uml, f"10.{5 + number}.0.2", [64, 1472])
