"""The measuring of ways in the daemon: Paths, and what people ask, given data plane and node.

Owner: the control thread.  All decisions are paths.py's, and the inquiries'.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Collection

from mesh.address import Address
from mesh.config import MeshConfig
from mesh.core import OVERHEAD_BYTES, RELAY_BYTES, MeshCore, MeshCoreError, Punt
from mesh.identity import Rng
from mesh.inquiries import Inquiries
from mesh.node import Node
from mesh.paths import (
    BUSY_INTERVAL_NS,
    MS,
    PROBE_IDS,
    MtuChanged,
    Paths,
    SendProbe,
    StillHere,
    UsePath,
    WayStatus,
)

log = logging.getLogger("vsw.mesh")

UDP_BYTES = 8


class Prober:
    """After any input, call carry_out() and arm a timer at next_timer()."""

    def __init__(self, core: MeshCore, node: Node, mtu_bytes: int, rng: Rng) -> None:
        self._core = core
        self._node = node
        self.paths = Paths(mtu_bytes, RELAY_BYTES)
        self.inquiries = Inquiries(core, node, self.paths, rng)

    def poll(self, now: int) -> None:
        self.paths.poll(now)
        self.inquiries.poll(now)

    def next_timer(self) -> int | None:
        timers = (self.paths.next_timer(), self.inquiries.next_timer())
        return min((timer for timer in timers if timer is not None), default=None)

    def remove(self, peer: int) -> None:
        self.paths.remove(peer)
        self.inquiries.peer_removed(peer)

    def configure(self, config: MeshConfig, now: int) -> None:
        """All peers that the node has."""
        ids = self._node.peer_ids()
        for peer in config.peers:
            self.paths.configure(ids[peer.public_key], peer.endpoints, now)

    def endpoint_punted(self, punt: Punt, now: int) -> None:
        """A session's newest record came from elsewhere than the one before it."""
        peer = self._node.peer_of(punt.id)
        if peer is not None and self.paths.follows(peer, punt.source):
            self._node.endpoint_changed(punt.id, punt.source, now)

    def answer_punted(self, punt: Punt, now: int) -> None:
        received, probe, size_bytes = punt.probe_reply
        peer = self._node.peer_of(punt.id)
        if peer is None:
            return
        if probe >= PROBE_IDS:
            self.inquiries.probe_answered(peer, probe, size_bytes, received)
        else:
            self.paths.answered(peer, probe, received, now)

    def judge_traffic(self, sent: Collection[tuple[int, int]], now: int) -> None:
        """sent: sessions' local indexes, and when each last sent a packet."""
        recent = now - 3 * BUSY_INTERVAL_NS
        peers = {self._node.peer_of(index) for index, last in sent if last > recent}
        self.paths.busy({peer for peer in peers if peer is not None}, now)

    def carry_out(self) -> bool:
        """What paths and the inquiries ask for; whether that was anything, which the node may have
        heard of."""
        done = self.inquiries.carry_out()
        while events := self.paths.events():
            done = True
            for event in events:
                match event:
                    case SendProbe():
                        self._send(event)
                    case UsePath():
                        self._use(event)
                    case MtuChanged():
                        self._core.set_peer_mtu(event.peer, event.mtu_bytes)
                        log.info("peer %d: packets of %d bytes", event.peer, event.mtu_bytes)
                    case StillHere():
                        self._stay_known(event)
        return done

    def _send(self, event: SendProbe) -> None:
        try:
            self._core.send_probe(event.local_index, event.path, event.probe, event.ip_bytes)
        except MeshCoreError as error:
            log.debug("%s", error)
            too_long = error.errno_ == errno.EMSGSIZE
            self.paths.unsent(event.probe, too_long=too_long, now=time.monotonic_ns())

    def _stay_known(self, event: StillHere) -> None:
        try:
            self._core.send_keepalive(event.peer)
        except MeshCoreError as error:
            log.debug("%s", error)

    def _use(self, event: UsePath) -> None:
        now = time.monotonic_ns()
        try:
            self._core.set_endpoint(event.local_index, event.path, pinned=True)
        except MeshCoreError as error:
            log.debug("%s", error)  # the session ended in the same batch of events
            return
        log.info("path %s is used from now on", event.path)
        self._node.endpoint_changed(event.local_index, event.path, now)

    # ---- status

    def status(self, peer: int) -> dict[str, object]:
        """Of the way in use; and of all."""
        ways = self.paths.status(peer)
        used = next((way for way in ways if way.used), None)
        return {
            "mtu": used.mtu_bytes if used else None,
            "path_mtu": path_mtu(used) if used else None,
            "rtt_ms": rtt_ms(used) if used else None,
            "loss": round(used.loss, 3) if used else None,
            "paths": [
                {
                    "endpoint": str(way.path) if isinstance(way.path, Address) else None,
                    "used": way.used,
                    "alive": way.alive,
                    "mtu": way.mtu_bytes,
                    "path_mtu": path_mtu(way),
                    "rtt_ms": rtt_ms(way),
                    "loss": round(way.loss, 3),
                }
                for way in ways
            ],
        }


def path_mtu(way: WayStatus) -> int | None:
    """Bytes of the largest outer IP packet; None by way of another node: it is not ours to see."""
    if not isinstance(way.path, Address):
        return None
    ip_bytes = 20 if way.path.ip.version == 4 else 40
    return way.mtu_bytes + OVERHEAD_BYTES + UDP_BYTES + ip_bytes


def rtt_ms(way: WayStatus) -> float | None:
    return None if way.rtt_ns is None else round(way.rtt_ns / MS, 3)
