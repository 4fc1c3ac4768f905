"""The mesh in the daemon: a Node given sockets, clocks and the data plane.

All decisions are node.py's.  What this file does ends, after any input, in _drain(): carry out
the node's events, send its datagrams, arm its timer.

Owner: the control thread.  Records pass through the same sockets in the workers; handshake
messages that came in by them arrive here as punts.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Protocol

from mesh import wire
from mesh.accounts import Accounts
from mesh.config import MeshConfig
from mesh.core import (
    MeshCore,
    MeshCoreError,
    Punt,
    PuntKind,
    steer,
)
from mesh.errors import ConfigError, LocalError
from mesh.events import (
    Event,
    InstallKeypair,
    PathChanged,
    PeerAdded,
    PeerPlaced,
    PeerRemoved,
    RemoveKeypair,
    SendKeepalive,
    SendThrough,
    SessionReady,
    Traffic,
)
from mesh.identity import encode_key
from mesh.inquiries import Inquiries
from mesh.keyfile import load_identity
from mesh.node import Node
from mesh.prober import Prober
from mesh.sockets import open_own_sockets, open_sockets, target
from mesh.wire import Cipher

log = logging.getLogger("vsw.mesh")

REPORT_S = 1.0
_NS_PER_S = 1_000_000_000


class Switch(Protocol):
    """What the mesh needs of the switch."""

    def republish(self) -> None:
        """Publish what all ports list now; return when every worker is past what was before."""

    def sync(self) -> None:
        """Return when every worker is past everything published or unlinked before."""


class MeshService:
    """Call start() once, close() once no snapshot lists the port any more."""

    def __init__(
        self,
        port_id: int,
        config: MeshConfig,
        switch: Switch,
        loop: asyncio.AbstractEventLoop,
        workers: int,
    ) -> None:
        self._port_id = port_id
        self._config = config
        self._switch = switch
        self._loop = loop
        self._workers = workers
        self._resources = ExitStack()
        self._sockets: list[socket.socket] = []
        self._core: MeshCore | None = None
        self._node: Node | None = None
        self._prober: Prober | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._report: asyncio.TimerHandle | None = None
        self._accounts = Accounts()
        self.c_rxqs: list[list[object]] = [[] for _ in range(workers)]
        self.peer_ids: Mapping[bytes, int] = {}

    # ---- life

    def start(self) -> None:
        """Open the sockets and begin to talk.  Raises ConfigError, MeshCoreError."""
        identity = load_identity(self._config.private_key_file)
        with ExitStack() as undo:
            self._sockets = open_sockets(self._config.listen, self._workers)
            own_sockets = open_own_sockets(self._config.listen, self._workers)
            for sock in (*self._sockets, *own_sockets):
                undo.enter_context(sock)
            core = undo.enter_context(
                MeshCore(
                    self._port_id,
                    identity.node_id,
                    identity.public_key,
                    self._config.mtu_bytes,
                    self._switch.sync,
                )
            )
            core.set_lanes(self._workers)
            rxqs = []
            for worker, sock in enumerate(self._sockets):
                own_fd = own_sockets[worker - 1].fileno() if worker else None
                rxqs.append(core.add_lane(worker, sock.fileno(), own_fd))
                undo.callback(core.remove_lane, worker)
            if self._workers > 1:
                steer(self._sockets[0].fileno(), self._workers)
            now = time.monotonic_ns()
            node = Node(
                identity,
                self._config.peers,
                random.SystemRandom(),
                now,
                wall_offset_ns=time.time_ns() - now,
                ciphers=usable(core, self._config.ciphers),
            )
            self._core, self._node, self.c_rxqs = core, node, rxqs
            rng = random.SystemRandom()
            self._prober = Prober(core, node, self._config.mtu_bytes, self._workers, rng)
            self._prober.configure(self._config, now)
            self._resources = undo.pop_all()
        self.peer_ids = node.peer_ids()
        self._drain()
        self._report = self._loop.call_later(REPORT_S, self._report_traffic)

    def close(self) -> None:
        """No published snapshot lists the port or its queues.  Does nothing the second time."""
        for handle in (self._timer, self._report):
            if handle is not None:
                handle.cancel()
        self._timer = self._report = None
        if self._prober is not None:
            self._prober.inquiries.close()
        self._core = self._node = self._prober = None
        self._sockets = []
        self.c_rxqs = [[] for _ in range(self._workers)]
        self.peer_ids = {}
        self._resources.close()

    @property
    def c_port(self) -> object:
        return self._started()[0].c_port

    @property
    def listen_port(self) -> int:
        """Of the sockets: the one chosen by the kernel when the configuration says 0."""
        self._started()
        port: int = self._sockets[0].getsockname()[1]
        return port

    def _started(self) -> tuple[MeshCore, Node]:
        if self._core is None or self._node is None:
            raise LocalError("the mesh is not started")
        return self._core, self._node

    def _probing(self) -> Prober:
        if self._prober is None:
            raise LocalError("the mesh is not started")
        return self._prober

    # ---- configuration

    def apply(self, config: MeshConfig) -> None:
        """Change the peers; sessions of those that stay as they are stay.

        Raises ConfigError, and then nothing has changed.  Routes of removed peers are withdrawn
        before the peers are; the caller publishes those of new ones.
        """
        _, node = self._started()
        if replace(self._config, peers=()) != replace(config, peers=()):
            raise ConfigError(
                "listen, private_key_file, ciphers and the MTU of a running mesh cannot change",
                "restart the daemon",
            )
        node.apply(config.peers, time.monotonic_ns())
        self._config = config
        self._probing().configure(config, time.monotonic_ns())
        ids = node.peer_ids()
        staying = {key: i for key, i in self.peer_ids.items() if ids.get(key) == i}
        if len(staying) < len(self.peer_ids):
            self.peer_ids = staying
            self._switch.republish()
        self.peer_ids = ids
        self._drain()

    # ---- inputs

    def handle_punt(self, punt: Punt) -> None:
        """What a worker handed up."""
        if self._node is None:
            return  # punted before the mesh was closed
        node, now = self._node, time.monotonic_ns()
        match punt.kind:
            case PuntKind.HANDSHAKE:
                node.receive_datagram(punt.data, punt.source, now)
            case PuntKind.SESSION_CONFIRMED:
                node.session_confirmed(punt.id, now)
            case PuntKind.ENDPOINT:
                self._probing().endpoint_punted(punt, now)
            case PuntKind.NEED_SESSION:
                node.need_session(punt.id, now)
            case PuntKind.PROBE_REPLY:
                self._probing().answer_punted(punt, now)
            case PuntKind.TRACE_REPLY:
                self._probing().inquiries.trace_punted(punt)
            case PuntKind.LANE_REPLY:
                self._probing().lane_answer_punted(punt, now)
        self._drain()

    def _run_timers(self) -> None:
        self._timer = None
        if self._node is not None:
            self._node.poll(time.monotonic_ns())
            self._probing().poll(time.monotonic_ns())
            self._drain()

    def _report_traffic(self) -> None:
        core, node = self._started()
        reports, sending = {}, []
        for index in node.session_indexes():
            stats = core.session_stats(index)
            reports[index] = Traffic(
                sent_records=stats.tx_records,
                failed_records=stats.rx_failed,
                last_packet_sent=stats.last_tx_ns,
                last_keepalive_sent=stats.last_keepalive_ns,
                last_received=stats.last_rx_ns,
                last_packet_received=stats.last_rx_packet_ns,
            )
            sending.append((index, stats.busy_lanes))
        node.traffic(reports, time.monotonic_ns())
        self._probing().judge_traffic(sending, time.monotonic_ns())
        self._drain()
        self._report = self._loop.call_later(REPORT_S, self._report_traffic)

    # ---- what people ask

    def inquire(self, begin: Callable[[Inquiries], int]) -> Callable[[], None]:
        """begin: starts one of the inquiries, and returns its number.  Returns what stops it.

        Raises ConfigError.
        """
        inquiries = self._probing().inquiries
        number = begin(inquiries)
        self._drain()
        return partial(inquiries.stop, number)

    # ---- outputs

    def _drain(self) -> None:
        core, node = self._started()
        prober = self._probing()
        going = True
        while going:
            events = node.events()
            for event in events:
                self._carry_out(core, node, prober, event)
            going = prober.carry_out() or bool(events)
        for data, to in node.datagrams_to_send():
            sock = self._sockets[0]
            expect_answer(core, data)
            try:
                sock.sendto(data, target(sock, to))
            except OSError as error:
                # The node tries again by itself.
                log.debug("handshake message to %s: %s", to, error)
        self._arm(node)

    def _carry_out(self, core: MeshCore, node: Node, prober: Prober, event: Event) -> None:
        match event:
            case PeerAdded():
                core.create_peer(event.peer, event.node_id)
                self._accounts.open(event.peer)
            case PeerRemoved():
                prober.remove(event.peer)
                core.remove_peer(event.peer)
                self._accounts.close(event.peer)
            case PeerPlaced():
                core.place_peer(event.peer, event.neighbour)
            case PathChanged():
                prober.moved(event, time.monotonic_ns())
            case SessionReady():
                prober.ready(event, time.monotonic_ns())
            case SendThrough():
                self._send_through(core, node, event)
            case InstallKeypair():
                self._install(core, node, event)
            case RemoveKeypair():
                prober.lost(event)
                self._remove(core, event)
            case SendKeepalive():
                try:
                    core.send_keepalive(event.peer)
                except MeshCoreError as error:
                    log.debug("%s", error)

    def _send_through(self, core: MeshCore, node: Node, event: SendThrough) -> None:
        expect_answer(core, event.data)
        try:
            core.send_through(event.neighbour, event.node_id, event.data)
        except MeshCoreError as error:
            # The node tries again by itself, and at once when there is a key for the neighbour.
            log.debug("%s", error)
            if error.errno_ == errno.ENOKEY:
                node.need_session(event.neighbour, time.monotonic_ns())

    def _install(self, core: MeshCore, node: Node, event: InstallKeypair) -> None:
        try:
            core.install_session(
                event.peer,
                event.local_index,
                event.remote_index,
                bytearray(event.send_key),
                bytearray(event.receive_key),
                relay_send_key=bytearray(event.relay_send_key),
                relay_receive_key=bytearray(event.relay_receive_key),
                initiator=event.initiator,
                endpoint=event.endpoint,
                cipher=event.cipher,
            )
        except MeshCoreError as error:
            log.warning("%s", error)
            node.session_lost(event.local_index, time.monotonic_ns())
        else:
            log.debug("keys for peer %d agreed on with %s", event.peer, event.endpoint)

    def _remove(self, core: MeshCore, event: RemoveKeypair) -> None:
        try:
            stats = core.session_stats(event.local_index)
        except MeshCoreError as error:
            log.debug("%s", error)  # its installation failed, in the same batch of events
            return
        core.remove_session(event.local_index)
        self._accounts.session_removed(event.peer, stats)

    def _arm(self, node: Node) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moments = [node.next_timer(), self._probing().next_timer()]
        when = min((moment for moment in moments if moment is not None), default=None)
        if when is not None:
            # loop.time() is the same clock, in seconds; late by rounding is not early.
            self._timer = self._loop.call_at(when / _NS_PER_S + 1e-6, self._run_timers)

    # ---- status

    def status(self) -> list[dict[str, object]]:
        """One entry per peer.  Bytes are those of records, sealed, since the peer is known."""
        core, node = self._started()
        names = {number: encode_key(key) for key, number in node.peer_ids().items()}
        rows = []
        for peer in node.status(time.monotonic_ns()):
            sessions = [core.session_stats(session.local_index) for session in peer.sessions]
            row = self._accounts.status(peer, sessions, names)
            rows.append(row | {"lanes": self._workers} | self._probing().status(peer.peer))
        return rows

    def refused(self) -> dict[str, int]:
        """Handshake messages refused since the start, by reason."""
        _, node = self._started()
        return {refusal.value: count for refusal, count in node.refused.items()}


def usable(core: MeshCore, ciphers: tuple[Cipher, ...]) -> tuple[Cipher, ...]:
    """Those that this CPU can seal with.  Raises ConfigError when there is none."""
    found = tuple(cipher for cipher in ciphers if core.has_cipher(cipher))
    if not found:
        names = ", ".join(cipher.text for cipher in ciphers)
        raise ConfigError(
            f"this CPU lacks what {names} needs",
            f'add "{Cipher.CHACHA20_POLY1305.text}" to ciphers',
        )
    return found


def expect_answer(core: MeshCore, data: bytes) -> None:
    """Before a message is sent."""
    index = wire.initiation_index(data)
    if index is not None:
        core.expect_answer(index)
