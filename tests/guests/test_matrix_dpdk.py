"""DPDK's virtio-user with rings of every kind, in both roles at once: every byte, then many frames.

left ── vsw ── testpmd port 0, we listen   ┐ what comes in at one port
right ─ vsw ── testpmd port 1, it listens  ┘ goes out of the other
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from tests.fakes.daemons import Daemon, running, until
from tests.fakes.frontend import FrontEnd
from tests.fakes.testpmd import Testpmd, VirtioUser
from tests.fakes.vhostbox import mac
from tests.guests.test_interop import config

LEFT, RIGHT = "02:00:00:00:71:00", "02:00:00:00:71:01"
PORTS = Testpmd.MACS
NAMES = ("dpdk0", "dpdk1")
SIZES_BYTES = [60, 61, 64, 127, 128, 158, 159, 160, 161, 173, 256, 511, 1024, 1499, 1513, 1514]
FRAMES = 8 * len(SIZES_BYTES)
LOOPED = 100_000
BURST = 32  # of testpmd
RING = 256  # entries, testpmd's choice


PACKED = "packed ring standard"
PACKED_MERGEABLE = "packed ring mergeable buffer"
VECTORISED = "packed ring vectorized"


@dataclass(frozen=True)
class Kind:
    """What both ports ask for, and what their driver then says that it uses."""

    name: str
    tx: str
    rx: str
    packed: bool = False
    in_order: bool = False
    mergeable: bool = False
    vectorized: bool = False

    def features(self) -> set[str]:
        asked = {
            "RING_PACKED": self.packed,
            "IN_ORDER": self.in_order,
            "MRG_RXBUF": self.mergeable,
        }
        return {name for name, wanted in asked.items() if wanted}

    def port(self, path: Path, *, listens: bool) -> VirtioUser:
        return VirtioUser(
            path, listens, self.packed, self.in_order, self.mergeable, self.vectorized
        )


KINDS = [
    Kind("split", "standard", "standard"),
    Kind("split-mergeable", "standard", "mergeable buffer", mergeable=True),
    Kind("split-vectorised", "standard", "vectorized", vectorized=True),
    Kind("split-in_order", "inorder", "inorder", in_order=True),
    Kind("split-in_order-mergeable", "inorder", "inorder", in_order=True, mergeable=True),
    Kind("packed", PACKED, PACKED, packed=True),
    Kind("packed-mergeable", PACKED, PACKED_MERGEABLE, packed=True, mergeable=True),
    Kind("packed-in_order", PACKED, PACKED, packed=True, in_order=True),
    Kind(
        "packed-in_order-mergeable",
        PACKED,
        PACKED_MERGEABLE,
        packed=True,
        in_order=True,
        mergeable=True,
    ),
]
PACKED_VECTORISED = [
    Kind("packed-vectorised", VECTORISED, VECTORISED, packed=True, in_order=True, vectorized=True),
    Kind(
        "packed-vectorised-mergeable",
        VECTORISED,
        PACKED_MERGEABLE,
        packed=True,
        in_order=True,
        mergeable=True,
        vectorized=True,
    ),
]
if "avx512vl" in Path("/proc/cpuinfo").read_text():  # which that path is written with
    KINDS += PACKED_VECTORISED


@contextmanager
def plugged(path: Path) -> Iterator[FrontEnd]:
    """A front-end of our own on a running switch, with room for more frames than come at once."""
    never = threading.Event()
    front = FrontEnd(pump=lambda: never.wait(0.005) and None, ring_size=256)
    front.connect(str(path))
    try:
        front.boot()
        front.post(200)
        yield front
    finally:
        front.close()


def send(front: FrontEnd, frames: list[bytes]) -> None:
    for frame in frames:
        front.transmit(frame)
    os.eventfd_write(front.rings[1].kick, 1)


@dataclass
class Bench:
    folder: Path
    daemon: Daemon
    left: FrontEnd
    right: FrontEnd

    def detail(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.daemon.ask("ports") if row["name"] == name]
        return dict(row["detail"])

    def rings(self, name: str) -> list[dict[str, Any]]:
        return [ring for ring in self.detail(name)["queues"] if ring["started"]]

    def counters(self) -> list[Counter[str]]:
        """Of testpmd's ports."""
        rows = {row["name"]: row for row in self.daemon.ask("stats")["ports"]}
        wanted = ("rx_packets", "tx_packets")
        return [
            Counter({key: rows[name][key] for key in wanted} | rows[name]["drops"])
            for name in NAMES
        ]

    def learn(self) -> None:
        """Make the switch know all four addresses: what it floods, testpmd sends on for ever.

        left and right have spoken before; a broadcast makes each port of testpmd send something.
        """
        send(self.left, [mac("ff:ff:ff:ff:ff:ff") + mac(LEFT) + bytes(50)])
        known = {LEFT, RIGHT, *PORTS}
        until(lambda: {e["mac"] for e in self.daemon.ask("fdb")} == known, "all addresses")
        for source, sink, to, mine in (
            (self.left, self.right, RIGHT, LEFT),
            (self.right, self.left, LEFT, RIGHT),
        ):
            send(source, [mac(to) + mac(mine) + b"last" + bytes(46)])
            until(lambda end=sink: any(b"last" in f for f in end.frames()), "the last of these")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    modes = {"left": "server", "right": "server", "dpdk0": "server", "dpdk1": "client"}
    text = config(modes).replace("[bridges.br0]\n", "[bridges.br0]\nmtu = 1500\n", 1)
    (tmp_path / "vsw.toml").write_text(text + "[workers]\ncpus = [0, 1]\n")
    with ExitStack() as stack:
        daemon = stack.enter_context(running(tmp_path / "vsw.toml"))
        ends = [
            stack.enter_context(plugged(tmp_path / f"{name}.sock")) for name in ("left", "right")
        ]
        for end, address in zip(ends, (LEFT, RIGHT), strict=True):
            send(end, [mac("ff:ff:ff:ff:ff:ff") + mac(address) + bytes(50)])
        until(lambda: len(daemon.ask("fdb")) == 2, "both ends to be known")
        yield Bench(tmp_path, daemon, *ends)
        assert daemon.stop() == 0


def bodies(seed: int) -> list[bytes]:
    """What stands behind the addresses in each frame."""
    rng = random.Random(seed)
    sizes = SIZES_BYTES * (FRAMES // len(SIZES_BYTES))
    rng.shuffle(sizes)
    return [b"\x88\xb5" + rng.randbytes(size - 14) for size in sizes]


def across(source: FrontEnd, into: str, out_of: str, to: str, sink: FrontEnd) -> None:
    """Frames from source to the port called into arrive at sink as they were, from out_of."""
    sent = bodies(1)
    got: list[bytes] = []
    for start in range(0, len(sent), 32):
        batch = sent[start : start + 32]
        mine = LEFT if to == RIGHT else RIGHT
        send(source, [mac(into) + mac(mine) + body for body in batch])

        def arrived(count: int = start + len(batch)) -> bool:
            got.extend(sink.frames())
            return len(got) >= count

        until(arrived, f"{start + len(batch)} frames")
        sink.post(len(batch))
        source.rings[1].reap()
    assert got == [mac(to) + mac(out_of) + body for body in sent]


@pytest.mark.parametrize("queues", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_virtio_user(bench: Bench, kind: Kind, queues: int) -> None:
    sockets = [bench.folder / f"{name}.sock" for name in NAMES]
    ports = [kind.port(path, listens=i == 1) for i, path in enumerate(sockets)]
    with Testpmd(ports, queues=queues) as pmd:
        pmd.ready()
        for i, name in enumerate(NAMES):
            assert f"using {kind.tx} Tx path on port {i}\n" in pmd.output
            assert f"using {kind.rx} Rx path on port {i}\n" in pmd.output
            features = set(bench.detail(name)["features"])
            assert features & {"RING_PACKED", "IN_ORDER", "MRG_RXBUF"} == kind.features()
            rings = [ring["index"] for ring in bench.rings(name) if ring["enabled"]]
            assert rings == list(range(2 * queues))
        pmd.send_to(LEFT, RIGHT)
        pmd.tell("start")
        bench.learn()
        across(bench.left, PORTS[0], PORTS[1], RIGHT, bench.right)
        across(bench.right, PORTS[1], PORTS[0], LEFT, bench.left)
        pmd.tell("stop")
        every_ring(bench, pmd, queues)
        loop(bench, pmd)


def every_ring(bench: Bench, pmd: Testpmd, queues: int) -> None:
    """A burst out of each queue; forwarding uses only as many as the switch has workers."""
    before = [[ring["next"] for ring in bench.rings(name)] for name in NAMES]
    pmd.tell("start tx_first")
    pmd.tell("stop")
    for end, address, source in ((bench.left, LEFT, PORTS[0]), (bench.right, RIGHT, PORTS[1])):
        got: list[bytes] = []
        until(lambda e=end, g=got: g.extend(e.frames()) or len(g) >= BURST * queues, "the bursts")
        assert {frame[:12] for frame in got} == {mac(address) + mac(source)}
        packets = [Ether(frame)[IP] for frame in got]
        assert all(bytes(IP(bytes(ip))) == bytes(ip) for ip in packets)
        assert len(got) == BURST * queues
    after = [[ring["next"] for ring in bench.rings(name)] for name in NAMES]
    for i in (0, 1):
        moved = [(b - a) & 0x7FFF for a, b in zip(before[i], after[i], strict=True)]
        assert moved[1 : 2 * queues : 2] == [BURST] * queues


def loop(bench: Bench, pmd: Testpmd) -> None:
    """Many frames, round and round: each is taken once, and given or counted as dropped."""
    start, sent, received = bench.counters(), pmd.sent(), pmd.received()
    pmd.to_each_other()
    pmd.tell("start tx_first")
    until(lambda: min(pmd.received()) > max(received) + LOOPED, "frames to go round")
    pmd.tell("stop")
    sent = [after - before for before, after in zip(sent, pmd.sent(), strict=True)]
    received = [after - before for before, after in zip(received, pmd.received(), strict=True)]
    moved: list[Counter[str]] = []

    def all_moved() -> bool:
        moved[:] = [now - before for now, before in zip(bench.counters(), start, strict=True)]
        return all(
            moved[i]["rx_packets"] == sent[i]
            and moved[1 - i]["tx_packets"] + moved[1 - i]["ring_full"] == sent[i]
            for i in (0, 1)
        )

    until(all_moved, f"{sent} frames to be moved")
    for i, name in enumerate(NAMES):
        assert 0 <= moved[i]["tx_packets"] - received[i] <= RING * len(bench.rings(name)) // 2
