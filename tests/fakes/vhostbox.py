"""A switch on the bench with vhost-user ports: worker and event loop both turned by hand."""

import asyncio
import tempfile
from pathlib import Path

from tests.fakes.closing import Closing
from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from vhost.port import VhostConfig, VhostPort
from vswitch import core

ROUTER_MAC = bytes.fromhex("0200000000fe")
A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(length: int, seed: int = 0) -> bytes:
    """An Ethernet frame of length bytes from A to B whose bytes are all different places' own."""
    payload = bytes((i * 7 + i // 251 + seed) & 0xFF for i in range(length - 14))
    return mac(B) + mac(A) + b"\x88\xb5" + payload


class VhostBox(Closing):
    """ports: VhostPort objects on one bridge, in server mode unless told otherwise.

    folder: where sockets and state files are; its own unless told otherwise.
    """

    def __init__(
        self,
        ports: int = 2,
        mode: str = "server",
        mtu_bytes: int = 1400,
        mac: bytes | None = None,
        folder: Path | None = None,
    ) -> None:
        self.now_ns = 10**9
        self.loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="vhostbox-")
        self.folder = folder or Path(self._folder.name)
        self.worker = core.Worker(0)
        self.fdb = core.Fdb(1024, 12345)
        self.neighbours = core.Neighbours(64)
        self.routes = core.Routes([])
        self.snapshot: core.Snapshot | None = None
        self.fronts: list[FrontEnd] = []
        self.ports: list[VhostPort] = []
        self.publications = 0
        for number in range(ports):
            config = VhostConfig(
                path=str(self.folder / f"{number}.sock"),
                mode=mode,
                mtu_bytes=mtu_bytes,
                mac=mac,
                state_folder=str(self.folder),
            )
            self.ports.append(VhostPort(number, f"vm{number}", config, self, self.loop))
        self.republish()

    # ---- what ports need of a switch

    def republish(self) -> None:
        snapshot = core.Snapshot(1)
        snapshot.add_bridge(self.fdb, ROUTER_MAC, 1400)
        for port in self.ports:
            snapshot.add_port(port.c_port, 0)
            for rxq in port.c_rxqs:
                snapshot.add_rxq(0, rxq)
        snapshot.set_routes(self.routes, self.neighbours)
        old, self.snapshot = self.snapshot, snapshot
        self.worker.publish(snapshot)
        self.breathe()  # a worker that runs would; what was unlisted is freed after this
        if old is not None:
            old.close()
        self.publications += 1

    def sync(self) -> None:
        self.worker.sync(10**9)

    # ---- what tests do

    def pump(self) -> None:
        """Let the event loop serve what is ready."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def front(self, number: int, ram: Ram | None = None, ring_size: int = 256) -> FrontEnd:
        """A front-end, connected to a port in server mode, which is started when it was not."""
        port = self.ports[number]
        if port.status()["state"] == "stopped":
            port.start()
        front = FrontEnd(self.pump, ram, ring_size)
        front.connect(port.config.path)
        self.fronts.append(front)
        return front

    def breathe(self, advance_ns: int = 1000) -> int:
        self.now_ns += advance_ns
        return self.worker.breathe(self.now_ns)

    def settle(self) -> None:
        """Breathe until nothing moves; bounded."""
        for _ in range(1000):
            if self.breathe() == 0:
                return
        raise AssertionError("the switch does not come to rest")

    def drops(self, number: int) -> dict[str, int]:
        """Drops by reason, those that are not zero."""
        counters = core.port_counters(self.ports[number].c_port)
        return {reason: count for reason, count in counters.drops.items() if count}

    def count(self, number: int, name: str) -> int:
        return core.port_counters(self.ports[number].c_port).values[name]

    def ring_state(self, number: int, index: int) -> str:
        """Why the ring broke, or "ok"."""
        queues = self.ports[number].status()["queues"]
        assert isinstance(queues, list)
        return str(next(q["state"] for q in queues if q["index"] == index))

    def close(self) -> None:
        ports, self.ports = self.ports, []
        self.republish()
        self.breathe()
        for port in ports:
            port.close()
        for front in self.fronts:
            front.close()
        self.worker.publish(None)
        self.worker.breathe(self.now_ns)
        self.worker.close()
        if self.snapshot is not None:
            self.snapshot.close()
        self.fdb.close()
        self.neighbours.close()
        self.routes.close()
        self.loop.close()
        self._folder.cleanup()


def pair(
    box: VhostBox,
    sender: int = MERGEABLE,
    receiver: int = MERGEABLE,
    *,
    learn: bool = True,
    ring_size: int = 256,
) -> tuple[FrontEnd, FrontEnd]:
    """Two guests that are up; the switch knows where B is."""
    a, b = box.front(0), box.front(1, ring_size=ring_size)
    a.boot(sender)
    b.boot(receiver)
    if learn:
        a.post(1)
        b.transmit(mac(A) + mac(B) + b"\x88\xb5" + bytes(46))
        box.settle()
        assert len(a.frames()) == 1
        assert len(b.ring(1).reap()) == 1
    return a, b
