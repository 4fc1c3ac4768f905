"""Ours between guests of two hosts: each daemon has a vhost-user port, driven by the generator."""

import ipaddress
from pathlib import Path
from typing import Any

from tests.bench.datagrams import Trial, search, trial_of
from tests.bench.errors import BenchError
from tests.bench.generator import Nic, Shape, listen
from tests.bench.ground import Ground
from tests.bench.library import ffi, lib
from tests.bench.overlay import ETHERNET_BYTES, inner
from tests.bench.vswmesh import Vsw
from tests.bench.wires import Frames, boot

# Deep rings: a sender that slept finds room, and a receiver that sleeps loses nothing.
SHAPE = Shape(rx_num=16384, tx_num=16384, rx_bytes=2048, tx_bytes=2048, huge=False)
LEARN_S = 0.001
LEARN_RATE = 20_000


class VswGuests(Vsw):
    """Entered, both guests are known to both hosts."""

    name = "vsw-generator"

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self._sockets = [folder / f"guest{host}" for host in range(self.last + 1)]
        self._listeners = [listen(path) for path in self._sockets]
        self.nics: list[Nic] = []

    def port(self, host: int) -> str:
        return f'type = "vhost-user"\npath = "{self._sockets[host]}"\nmode = "client"\n'

    def attach(self, host: int) -> None:
        self.nics.append(boot(self._listeners[host], SHAPE))

    def traffic(self, source: int, sink: int, packet_bytes: int) -> Any:
        """struct traffic *: IP packets from a host's guest to another's."""
        router = self.daemons[source].ask("status")["bridges"][0]["router_mac"]
        addresses = b"".join(ipaddress.ip_address(inner(host)).packed for host in (source, sink))
        frames = Frames(packet_bytes + ETHERNET_BYTES)
        own = bytes([2, 0, 0, 0, 0x70, source])
        return frames.traffic(bytes.fromhex(router.replace(":", "")), own, addresses)

    def send(self, source: int, sink: int, traffic: Any, rate: float, seconds: float) -> Trial:
        shot = ffi.new("struct datagrams *")
        shot.rate, shot.duration_ns = rate, int(seconds * 1e9)
        lib().send_frames(self.nics[source].tx, self.nics[sink].rx, traffic, shot)
        return trial_of(shot)

    def answers(self) -> bool:
        ways = ((0, self.last), (self.last, 0))
        trials = [self.send(*way, self.traffic(*way, 64), LEARN_RATE, LEARN_S) for way in ways]
        return all(trial.received > 0 for trial in trials)

    def lossless_pps(self, packet_bytes: int, seconds: float) -> float:
        """As datagrams.lossless_pps()."""
        traffic = self.traffic(0, self.last, packet_bytes)
        best = search(lambda rate: self.send(0, self.last, traffic, rate, seconds))
        if best == 0:
            raise BenchError(f"{packet_bytes} bytes: packets were lost at every rate")
        return best

    def close(self) -> None:
        super().close()
        for nic in self.nics:
            nic.close()
        self.nics = []
        for listener in self._listeners:
            listener.close()
