"""A virtual machine's network card as a port: connections come and go, the port stays.

Client mode: the VM listens, we connect, again and for ever; a VMM that waits for us boots at
once.  Server mode: we listen, for one front-end at a time.
"""

import asyncio
import logging
import os
import socket
from dataclasses import dataclass

from vhost import messages as m
from vhost import sockets
from vhost.backend import Backend
from vhost.core import RING_STATE_BYTES, Port, signal
from vhost.device import CoreDevice, Switch
from vhost.errors import DisconnectedError, RemoteError, StateFileError, VhostError
from vhost.messages import Feature, Header
from vhost.server import Connection
from vhost.statefile import Negotiated, StateFile, file_name
from vhost.status import connection_status

__all__ = ["Switch", "VhostConfig", "VhostPort"]

RETRY_S = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VhostConfig:
    """mtu_bytes: told to the guest.  mac: 6 bytes, told to the guest; None: it chooses its own.

    offloads: names of messages.OFFLOADS that the guest may use.
    state_folder: for what has to outlive us; None: nothing does.
    """

    path: str
    mode: str  # "client" or "server"
    mtu_bytes: int
    socket_mode: int = 0o660
    socket_group: str | None = None
    mac: bytes | None = None
    offloads: tuple[str, ...] = tuple(m.OFFLOADS)
    state_folder: str | None = None


class VhostPort:
    """c_port: struct port *.  c_rxqs: the receive queues that are in service now."""

    def __init__(
        self,
        port_id: int,
        name: str,
        config: VhostConfig,
        switch: Switch,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.name = name
        self.config = config
        self._loop = loop
        self._port = Port(port_id)
        self.c_port: object = self._port.cdata
        self.c_rxqs: list[object] = []
        self._device = CoreDevice(self._port, switch, self.c_rxqs, loop)
        self._listener: sockets.Listener | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None
        self._backend: Backend | None = None
        self._state = "stopped"
        self._reason = ""
        self._connections = 0
        self._last_step = ""  # of the last connection
        self._broken: dict[int, str] = {}
        self._notes: list[str] = []
        self._features_lost = ""
        self._negotiated = Negotiated()

    @property
    def numa_node(self) -> int | None:
        """The node that holds most of the guest's memory; None: unknown."""
        return self._device.numa_node

    # ---- life

    def start(self) -> None:
        """Begin to listen or connect.  Raises VhostError when it can never work."""
        config = self.config
        self._open_states()
        if config.mode == "server":
            self._listener = sockets.listen(config.path, config.socket_mode, config.socket_group)
            self._await_front_end()
        else:
            sockets.check_path(config.path)
            self._state = "connecting"
            self._connect()
        self._loop.add_reader(self._port.event_fd, self._on_event)

    def _open_states(self) -> None:
        if self.config.state_folder is None:
            return
        path = os.path.join(self.config.state_folder, file_name(self.config.path))
        try:
            socket_path = os.path.abspath(self.config.path)
            self._device.states = StateFile(path, socket_path, RING_STATE_BYTES)
        except StateFileError as error:
            self._note(f"{error}: packed rings will not outlive the switch")

    def close(self) -> None:
        """The port must not be in any snapshot that is published after this."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._connection is not None:
            self._drop_connection()
        if self._listener is not None:
            self._loop.remove_reader(self._listener.sock.fileno())
            self._listener.close()
            self._listener = None
        if self._state != "stopped":
            self._loop.remove_reader(self._port.event_fd)
        self._state = "stopped"
        self._device.retire_port()
        if self._device.states is not None:
            self._device.states.close()
        self._port.close()

    # ---- connections

    def _await_front_end(self) -> None:
        if self._listener is not None:
            self._state = "listening"
            self._loop.add_reader(self._listener.sock.fileno(), self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.sock.accept()
        except OSError as error:
            # The front-end went away again, or we are out of descriptors and it is still there.
            self._reason = f"cannot accept: {error.strerror}"
            self._loop.remove_reader(self._listener.sock.fileno())
            self._retry = self._loop.call_later(RETRY_S, self._await_front_end)
            return
        # One at a time: the next one waits in the socket's queue.
        self._loop.remove_reader(self._listener.sock.fileno())
        self._connected(sock)

    def _connect(self) -> None:
        self._retry = None
        try:
            sock = sockets.connect(self.config.path)
        except OSError as error:
            reason = sockets.explain_connect(error)
            if reason != self._reason:
                log.info("%s: %s: waiting: %s", self.name, self.config.path, reason)
            self._reason = reason
            self._retry = self._loop.call_later(RETRY_S, self._connect)
            return
        self._connected(sock)

    def _connected(self, sock: socket.socket) -> None:
        offered = m.offered_features(self.config.offloads)
        if self.config.mac is not None:
            offered |= Feature.MAC
        self._port.reset()
        self._broken = {}
        self._device.notes.clear()
        self._compare_features(offered)
        self._backend = Backend(
            device=self._device,
            offered=offered,
            mac=self.config.mac or bytes(6),
            mtu_bytes=self.config.mtu_bytes,
        )
        self._connection = Connection(sock, self._on_message)
        self._connections += 1
        self._state = "connected"
        self._reason = ""
        log.info("%s: %s: front-end connected", self.name, self.config.path)
        self._loop.add_reader(self._connection.fileno(), self._on_readable)

    def _compare_features(self, offered: int) -> None:
        """A front-end whose guest took features from a switch before us insists on them; that
        it goes away again, and why, can only be said here."""
        states = self._device.states
        self._features_lost = ""
        if states is None or not (lost := states.negotiated.features & ~offered):
            return
        names = ", ".join(m.feature_names(lost))
        self._features_lost = (
            f"a guest here took {names} from a former switch, which this one does not offer: "
            "its VMM may refuse us until the VM is restarted, or that switch is back"
        )
        log.warning("%s: %s", self.name, self._features_lost)

    def _remember_features(self, backend: Backend) -> None:
        states = self._device.states
        if states is None or not self._device.queues:
            return
        now = Negotiated(backend.offered, backend.features, backend.protocol_features)
        if now != self._negotiated:
            self._negotiated = states.negotiated = now
            self._features_lost = ""

    def _note(self, text: str) -> None:
        log.warning("%s: %s", self.name, text)
        self._notes.append(text)

    def _on_readable(self) -> None:
        assert self._connection is not None
        try:
            self._connection.on_readable()
        except DisconnectedError as error:
            self._lose(str(error), logging.INFO)
        except RemoteError as error:
            self._lose(str(error))

    def _on_message(self, header: Header, payload: bytes, fds: list[int]) -> None:
        assert self._backend is not None
        assert self._connection is not None
        log.debug("%s: %s: %s", self.name, m.request_name(header.request), payload[:40].hex())
        self._backend.receive_message(header, payload, fds)
        self._remember_features(self._backend)
        self._connection.send(self._backend.replies_to_send())
        if self._connection.has_unsent:
            self._loop.add_writer(self._connection.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        assert self._connection is not None
        try:
            self._connection.on_writable()
        except RemoteError as error:
            self._lose(str(error))
            return
        if not self._connection.has_unsent:
            self._loop.remove_writer(self._connection.fileno())

    def _lose(self, reason: str, level: int = logging.WARNING) -> None:
        log.log(level, "%s: %s: connection ended: %s", self.name, self.config.path, reason)
        worked = bool(self._device.queues)
        self._drop_connection()
        self._reason = reason
        if self._listener is not None:
            self._await_front_end()
        else:
            self._state = "connecting"
            # At once, unless this front-end wants nothing of us: then it would go round and round.
            delay_s = 0 if worked else RETRY_S
            self._retry = self._loop.call_later(delay_s, self._connect)

    def _drop_connection(self) -> None:
        assert self._connection is not None
        assert self._backend is not None
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        self._last_step = self._backend.last_step
        self._backend.close()
        self._connection.close()
        self._connection = self._backend = None

    # ---- what the workers report

    def _on_event(self) -> None:
        os.read(self._port.event_fd, 8)
        if self._backend is None:
            return
        if self._port.memory_lost:
            self._lose("the front-end took memory away that its rings use")
            return
        for index, queue in self._device.queues.items():
            reason = queue.status().reason
            if reason == "ok" or index in self._broken:
                continue
            self._broken[index] = reason
            log.warning("%s: ring %d is broken: %s", self.name, index, reason)
            error_fd = self._backend.rings[index].error_fd
            if error_fd >= 0:
                signal(error_fd)

    # ---- status

    def status(self) -> dict[str, object]:
        status: dict[str, object] = {
            "type": "vhost-user",
            "mode": self.config.mode,
            "path": self.config.path,
            "state": self._state,
            "reason": self._reason,
            "connections": self._connections,
            "last_step": self._last_step,
            "features": [],
            "protocol_features": [],
            "device_status": [],
            "mtu_bytes": self.config.mtu_bytes,
            "mac": self.config.mac.hex(":") if self.config.mac else None,
            "pairs": self._port.pairs if self._backend else 0,
            "queues": [],
            "regions": [],
            "numa_node": None,
            "notes": [
                *self._notes,
                *([self._features_lost] if self._features_lost else []),
                *self._device.notes.values(),
            ],
        }
        if self._backend is not None:
            status |= connection_status(self._backend, self._device)
        return status


def check_config(config: VhostConfig) -> None:
    """Raises VhostError for what start() would refuse without trying anything."""
    if config.mode not in ("client", "server"):
        raise VhostError(f'mode "{config.mode}": use "client" or "server"')
    sockets.check_path(config.path)
