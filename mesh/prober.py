"""The measuring of ways in the daemon: Paths, Lanes, and what people ask, given data plane and
node.

Owner: the control thread.  All decisions are those of paths.py, lanes.py and the inquiries.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Collection

from mesh.address import Address
from mesh.config import MeshConfig
from mesh.core import OVERHEAD_BYTES, RELAY_BYTES, MeshCore, MeshCoreError, Punt
from mesh.events import PathChanged, RemoveKeypair, SessionReady
from mesh.identity import Rng
from mesh.inquiries import Inquiries
from mesh.lanes import Answer, LaneEvent, Lanes, ProbeLane, UseLanes
from mesh.node import Node
from mesh.paths import (
    MS,
    PROBE_IDS,
    MtuChanged,
    Paths,
    SendProbe,
    StillHere,
    UsePath,
    WayStatus,
)
from mesh.relay import Through

log = logging.getLogger("vsw.mesh")

UDP_BYTES = 8


class Prober:
    """After any input, call carry_out() and arm a timer at next_timer()."""

    def __init__(self, core: MeshCore, node: Node, mtu_bytes: int, lanes: int, rng: Rng) -> None:
        self._core = core
        self._node = node
        self.paths = Paths(mtu_bytes, RELAY_BYTES)
        self.lanes = Lanes(lanes)
        self.inquiries = Inquiries(core, node, self.paths, rng)

    def configure(self, config: MeshConfig, now: int) -> None:
        """All peers that the node has."""
        ids = self._node.peer_ids()
        for peer in config.peers:
            by_others = () if peer.via is None else (Through(ids[peer.via]),)
            self.paths.configure(ids[peer.public_key], (*peer.endpoints, *by_others), now)

    # ---- inputs: the node

    def moved(self, event: PathChanged, now: int) -> None:
        self.paths.moved(event.peer, event.path, now)
        self.lanes.moved(event.peer, event.path, now)

    def ready(self, event: SessionReady, now: int) -> None:
        self.paths.ready(event.peer, event.local_index, event.path, now)
        self.lanes.ready(event.peer, event.local_index, event.path, now)

    def lost(self, event: RemoveKeypair) -> None:
        self.paths.lost(event.peer, event.local_index)
        self.lanes.lost(event.peer, event.local_index)

    def remove(self, peer: int) -> None:
        self.paths.remove(peer)
        self.lanes.remove(peer)
        self.inquiries.peer_removed(peer)

    # ---- inputs: the data plane and time

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

    def lane_answer_punted(self, punt: Punt, now: int) -> None:
        received, probe, _ = punt.probe_reply
        peer = self._node.peer_of(punt.id)
        if peer is not None:
            answer = Answer(punt.socket, probe, punt.source, received)
            self.lanes.answered(peer, answer, now)

    def judge_traffic(self, sending: Collection[tuple[int, int]], now: int) -> None:
        """sending: sessions' local indexes, and which lanes sent packets in the last seconds."""
        peers: dict[int, int] = {}
        for index, lanes in sending:
            peer = self._node.peer_of(index)
            if peer is not None and lanes:
                peers[peer] = peers.get(peer, 0) | lanes
        self.paths.busy(peers.keys(), now)
        self.lanes.busy(peers, now)

    def poll(self, now: int) -> None:
        self.paths.poll(now)
        self.lanes.poll(now)
        self.inquiries.poll(now)

    def next_timer(self) -> int | None:
        parts = (self.paths, self.lanes, self.inquiries)
        moments = [part.next_timer() for part in parts]
        return min((moment for moment in moments if moment is not None), default=None)

    # ---- outputs

    def carry_out(self) -> bool:
        """What paths, lanes and the inquiries ask for; whether that was anything, which the node
        may have heard of."""
        done = self.inquiries.carry_out()
        # Paths first: where a session's records go is known before what its lanes use there.
        while events := [*self.paths.events(), *self.lanes.events()]:
            done = True
            for event in events:
                match event:
                    case SendProbe():
                        self._send(event)
                    case UsePath():
                        self._use(event)
                    case MtuChanged():
                        self._core.set_peer_mtu(event.peer, event.mtu_bytes)
                        self.lanes.resize(event.peer, event.mtu_bytes, time.monotonic_ns())
                        log.info("peer %d: packets of %d bytes", event.peer, event.mtu_bytes)
                    case StillHere():
                        self._stay_known(event)
                    case ProbeLane() | UseLanes():
                        self._carry_out_lane(event)
        return done

    def _carry_out_lane(self, event: LaneEvent) -> None:
        """What cannot be done is found out by the probe that stays without an answer."""
        try:
            match event:
                case ProbeLane():
                    index, to, size = event.local_index, event.path, event.ip_bytes
                    self._core.send_lane_probe(index, to, event.lane, event.probe, size)
                case UseLanes():
                    self._core.use_lanes(event.local_index, event.path, event.lanes)
                    log.debug("lanes %#x to %s by own ports", event.lanes, event.path)
        except MeshCoreError as error:
            log.debug("%s", error)

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
