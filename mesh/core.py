"""The mesh's data plane as Python objects; the only file of this package that imports it.

C pointers that pass through (the port, receive queues) are opaque objects to everybody else.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any, Self

from _dataplane import ffi, lib

from mesh.address import Address
from mesh.cookie import cookie_key, mac1_key
from mesh.errors import MeshError
from mesh.inquiry import TraceAnswer, TraceEnd
from mesh.relay import Path, Through
from mesh.wire import Cipher

CONTROL_LANE: int = lib.MESH_CONTROL_LANE
MTU_MAX_BYTES: int = lib.MESH_MTU_MAX_BYTES
OVERHEAD_BYTES: int = lib.MESH_OVERHEAD_BYTES
RELAY_BYTES: int = lib.MESH_RELAY_BYTES
KEY_BYTES = 32
RELAY_KEY_BYTES: int = lib.MESH_RELAY_KEY_BYTES
NODE_ID_BYTES = 8


class PuntKind(IntEnum):
    """What the data plane hands up; enum punt_kind."""

    HANDSHAKE = lib.PUNT_HANDSHAKE
    SESSION_CONFIRMED = lib.PUNT_SESSION_CONFIRMED
    ENDPOINT = lib.PUNT_ENDPOINT
    NEED_SESSION = lib.PUNT_NEED_SESSION
    PROBE_REPLY = lib.PUNT_PROBE_REPLY
    TRACE_REPLY = lib.PUNT_TRACE_REPLY
    LANE_REPLY = lib.PUNT_LANE_REPLY


@dataclass(frozen=True, slots=True)
class Punt:
    """struct punt: something that is not data, for the control thread.

    kind: a PuntKind.  id: a session's local index or a peer's number, by kind.  socket: the lane
    by whose UDP socket it came in.  address: 16 bytes, IPv4 as ::ffff:a.b.c.d.  data: a handshake
    message, a struct probe_reply or trace_reply, or empty.  via: 0, or the number of the peer that
    passed it on, plus one.
    """

    kind: int
    id: int
    socket: int
    address: bytes
    port: int
    data: bytes
    via: int = 0

    @property
    def source(self) -> Path:
        """Where it came from; only of HANDSHAKE, ENDPOINT and LANE_REPLY."""
        return _path(self.address, self.port, self.via)

    @property
    def probe_reply(self) -> tuple[int, int, int]:
        """(when it came, monotonic ns; the probe's id; its text's bytes); of replies."""
        reply = ffi.from_buffer("struct probe_reply *", self.data)
        return reply.received_ns, reply.id, reply.ip_bytes

    @property
    def trace_reply(self) -> tuple[int, TraceAnswer]:
        """(when it came, monotonic ns; what it says); only of TRACE_REPLY."""
        reply = ffi.from_buffer("struct trace_reply *", self.data)
        answer = TraceAnswer(reply.id, TraceEnd(reply.end), bytes(reply.public_key))
        return reply.received_ns, answer


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Sums over lanes.  Bytes: of records, without UDP and IP headers.  Times: monotonic ns, 0 for
    never; last_tx_ns does not count keepalives, last_rx_ns does.  Lanes: a bit each; busy_lanes
    sent in the last 3 s, own_lanes send by ports of their own."""

    tx_records: int
    tx_bytes: int
    rx_records: int
    rx_bytes: int
    rx_failed: int
    relayed_records: int
    relayed_bytes: int
    last_tx_ns: int
    last_keepalive_ns: int
    last_rx_ns: int
    last_rx_packet_ns: int
    confirmed: bool
    current: bool
    busy_lanes: int
    own_lanes: int
    endpoint: Path


class MeshCoreError(MeshError):
    """The data plane refused.  errno_: the reason, as the C library numbers it."""

    def __init__(self, errno_: int, what: str, remedy: str = "") -> None:
        self.errno_ = errno_
        text = f"cannot {what}: {os.strerror(errno_)}"
        super().__init__(f"{text}; {remedy}" if remedy else text)


_LOCKED_REMEDY = 'raise the limit of locked memory ("ulimit -l", LimitMEMLOCK= in a systemd unit)'


def _check(rc: int, what: str, remedy: str = "") -> None:
    if rc < 0:
        raise MeshCoreError(-rc, what, remedy)


def _wipe(key: bytes | bytearray) -> None:
    """bytes cannot be wiped: they stay until the interpreter reuses their memory."""
    if isinstance(key, bytearray):
        ffi.memmove(key, bytes(len(key)), len(key))


def _fill_endpoint(target: Any, path: Path) -> None:
    if isinstance(path, Through):
        target.via = path.peer + 1
        return
    ffi.memmove(target.address, path.packed(), 16)
    target.port = path.port


def _path(address: bytes, port: int, via: int) -> Path:
    return Through(via - 1) if via else Address.from_packed(address, port)


def steer(fd: int, lanes: int) -> None:
    """Let the kernel give lane i's records to socket i of fd's SO_REUSEPORT group (bound in that
    order).  Raises MeshCoreError."""
    _check(lib.mesh_steer(fd, lanes), "steer lanes to sockets")


class MeshCore:
    """The mesh port: lanes, peers, sessions.  All calls are the control thread's, and all but
    close(), set_lanes(), add_lane() and remove_lane() are allowed while workers run.

    node_id: 8 bytes.  public_key: our own, 32 bytes.  mtu_bytes: the longest IP packet that one
    record carries.  sync: returns once every worker is past all that was unlinked before (the
    switch's).  Raises MeshCoreError.
    """

    def __init__(
        self,
        port_id: int,
        node_id: bytes,
        public_key: bytes,
        mtu_bytes: int,
        sync: Callable[[], None],
    ) -> None:
        if len(node_id) != NODE_ID_BYTES or len(public_key) != KEY_BYTES:
            raise MeshCoreError(errno.EINVAL, "start the mesh")
        made = ffi.new("struct mesh **")
        keys = public_key, mac1_key(public_key), cookie_key(public_key)
        rc = lib.mesh_new(made, port_id, node_id, *keys, mtu_bytes)
        _check(rc, "start the mesh")
        self._c: Any = made[0]
        self._sync = sync

    @property
    def c_port(self) -> object:
        """struct port *"""
        return lib.mesh_port(self._c)

    def has_cipher(self, cipher: Cipher) -> bool:
        """Whether this CPU can seal with it."""
        return bool(lib.mesh_has_cipher(self._c, cipher))

    def close(self) -> None:
        """Free everything.  No published snapshot may list the port or its queues."""
        if self._c is not None:
            c, self._c = self._c, None
            lib.mesh_free(c)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    # ---- lanes

    def set_lanes(self, lanes: int) -> None:
        """How many workers there are: 1 to 31.  Before the first add_lane()."""
        _check(lib.mesh_set_lanes(self._c, lanes), f"use {lanes} lanes")

    def add_lane(self, worker: int, fd: int, own_fd: int | None = None) -> list[object]:
        """Give worker its UDP sockets, of the common port and of the lane's own; they stay the
        caller's and open until remove_lane().  Returns their receive queues (struct rxq *)."""
        rc = lib.mesh_lane_add(self._c, worker, fd, -1 if own_fd is None else own_fd)
        _check(rc, f"use the UDP socket of worker {worker}")
        own: object = lib.mesh_own_rxq(self._c, worker)
        return [self.lane_rxq(worker)] + ([own] if own != ffi.NULL else [])

    def lane_rxq(self, worker: int) -> object:
        """struct rxq *.  Raises MeshCoreError when the worker has no lane."""
        rxq: object = lib.mesh_lane_rxq(self._c, worker)
        if rxq == ffi.NULL:
            raise MeshCoreError(errno.ENOENT, f"find the lane of worker {worker}")
        return rxq

    def remove_lane(self, worker: int) -> None:
        """No published snapshot may list the port or the lane's queue."""
        lib.mesh_lane_remove(self._c, worker)

    # ---- peers and sessions

    def expect_answer(self, local_index: int) -> None:
        """An initiation with that index is sent now; answers to others are dropped unseen."""
        lib.mesh_expect_answer(self._c, local_index)

    def create_peer(self, peer: int, node_id: bytes) -> None:
        """peer: below 65536, the caller's number for it.  node_id: 8 bytes."""
        if len(node_id) != NODE_ID_BYTES:
            raise MeshCoreError(errno.EINVAL, f"add peer {peer}")
        _check(lib.mesh_peer_add(self._c, peer, node_id), f"add peer {peer}")

    def remove_peer(self, peer: int) -> None:
        """Its sessions were removed before."""
        c = lib.mesh_peer_unlink(self._c, peer)
        if c == ffi.NULL:
            raise MeshCoreError(errno.ENOENT, f"remove peer {peer}")
        self._sync()
        lib.mesh_peer_free(c)

    def place_peer(self, peer: int, neighbour: int | None) -> None:
        """Where the peer is while no session knows better: behind another one, or nowhere."""
        via = 0 if neighbour is None else neighbour + 1
        _check(lib.mesh_peer_set_via(self._c, peer, via), f"place peer {peer}")

    def set_peer_mtu(self, peer: int, mtu_bytes: int) -> None:
        """The largest IP packet for the peer: at most the mesh's."""
        what = f"send packets of {mtu_bytes} bytes to peer {peer}"
        _check(lib.mesh_peer_set_mtu(self._c, peer, mtu_bytes), what)

    def install_session(
        self,
        peer: int,
        local_index: int,
        remote_index: int,
        send_key: bytes | bytearray,
        receive_key: bytes | bytearray,
        *,
        relay_send_key: bytes | bytearray,
        relay_receive_key: bytes | bytearray,
        initiator: bool,
        endpoint: Path,
        cipher: int,
    ) -> None:
        """Receive with these keys from now on; as initiator also send with them from now on,
        otherwise once a record authenticates (then SESSION_CONFIRMED is punted).

        Keys: 32 bytes, those of relay headers 16; copied into locked memory; a bytearray is wiped,
        also on error.
        """
        what = f"install keys for peer {peer}"
        c = ffi.new("struct session_config *")
        try:
            sizes = [len(key) for key in (send_key, receive_key, relay_send_key, relay_receive_key)]
            if sizes != [KEY_BYTES, KEY_BYTES, RELAY_KEY_BYTES, RELAY_KEY_BYTES]:
                raise MeshCoreError(errno.EINVAL, what)
            c.peer, c.local_index, c.remote_index = peer, local_index, remote_index
            c.cipher, c.initiator = cipher, initiator
            _fill_endpoint(c.endpoint, endpoint)
            ffi.memmove(c.send_key, send_key, KEY_BYTES)
            ffi.memmove(c.receive_key, receive_key, KEY_BYTES)
            ffi.memmove(c.relay_send_key, relay_send_key, RELAY_KEY_BYTES)
            ffi.memmove(c.relay_receive_key, relay_receive_key, RELAY_KEY_BYTES)
            rc = lib.mesh_session_install(self._c, c)
            _check(rc, what, _LOCKED_REMEDY if rc == -errno.ENOMEM else "")
        finally:
            ffi.memmove(c, bytes(ffi.sizeof("struct session_config")), ffi.sizeof(c[0]))
            for key in (send_key, receive_key, relay_send_key, relay_receive_key):
                _wipe(key)

    def remove_session(self, local_index: int) -> None:
        """Forget the keys and wipe them."""
        c = lib.mesh_session_unlink(self._c, local_index)
        if c == ffi.NULL:
            raise MeshCoreError(errno.ENOENT, f"remove session {local_index:#x}")
        self._sync()
        # A worker in the breath that just ended may have made it current again.
        lib.mesh_session_detach(c)
        self._sync()
        lib.mesh_session_free(c)

    def promote_session(self, local_index: int) -> None:
        """Seal the peer's packets with this session from now on."""
        _check(lib.mesh_session_promote(self._c, local_index), f"use session {local_index:#x}")

    def set_endpoint(self, local_index: int, endpoint: Path, *, pinned: bool = False) -> None:
        """pinned: stays there when the peer sends from elsewhere, which is punted all the same."""
        c = ffi.new("struct mesh_endpoint *")
        _fill_endpoint(c, endpoint)
        c.pinned = pinned
        rc = lib.mesh_session_set_endpoint(self._c, local_index, c)
        _check(rc, f"move session {local_index:#x}")

    def use_lanes(self, local_index: int, path: Path, lanes: int) -> None:
        """These lanes, a bit each, send by their own ports while the session's endpoint is path.
        Raises MeshCoreError: ESTALE it is another, ENOENT no such session."""
        c = ffi.new("struct mesh_endpoint *")
        _fill_endpoint(c, path)
        rc = lib.mesh_session_set_lanes(self._c, local_index, c, lanes)
        _check(rc, f"use lanes {lanes:#x} of session {local_index:#x}")

    def session_stats(self, local_index: int) -> SessionStats:
        c = ffi.new("struct session_stats *")
        _check(lib.mesh_session_stats(self._c, local_index, c), f"read session {local_index:#x}")
        return SessionStats(
            tx_records=c.tx_records,
            tx_bytes=c.tx_bytes,
            rx_records=c.rx_records,
            rx_bytes=c.rx_bytes,
            rx_failed=c.rx_failed,
            relayed_records=c.relayed_records,
            relayed_bytes=c.relayed_bytes,
            last_tx_ns=c.last_tx_ns,
            last_keepalive_ns=c.last_keepalive_ns,
            last_rx_ns=c.last_rx_ns,
            last_rx_packet_ns=c.last_rx_packet_ns,
            confirmed=bool(c.confirmed),
            current=bool(c.current),
            busy_lanes=c.busy_lanes,
            own_lanes=c.endpoint.own_lanes,
            endpoint=_path(bytes(c.endpoint.address), c.endpoint.port, c.endpoint.via),
        )

    def send_keepalive(self, peer: int) -> None:
        """One empty record under the peer's current session.  Raises MeshCoreError: ENOENT no such
        peer or no lane, ENOKEY no session, or what the socket said."""
        _check(lib.mesh_send_keepalive(self._c, peer), f"send a keepalive to peer {peer}")

    def send_through(self, peer: int, node_id: bytes, message: bytes) -> None:
        """A handshake message to a node, by way of a peer.  Raises MeshCoreError: ENOENT no such
        peer, ENOKEY no session with it, or what the socket said."""
        rc = lib.mesh_send_through(self._c, peer, node_id, message, len(message))
        _check(rc, f"send a handshake message by way of peer {peer}")

    def send_probe(self, local_index: int, to: Path, probe: int, ip_bytes: int) -> None:
        """Ask the session's peer, by that way, to tell that a record as long as an IP packet of
        ip_bytes arrived.  Raises MeshCoreError: ENOENT no such session, ENOKEY no session with who
        is in between, EMSGSIZE too long for the device, or what the socket said."""
        c = ffi.new("struct mesh_endpoint *")
        _fill_endpoint(c, to)
        rc = lib.mesh_send_probe(self._c, local_index, c, probe, ip_bytes)
        _check(rc, f"send a probe of {ip_bytes} bytes")

    def send_trace(self, peer: int, hops_left: int, trace: int) -> None:
        """Ask the node at which so many hops end, on the way to the peer, who it is.  Raises
        MeshCoreError: ENOENT no such peer, ENOKEY no session with it or who is in between, or what
        the socket said."""
        rc = lib.mesh_send_trace(self._c, peer, hops_left, trace)
        _check(rc, f"send a trace of {hops_left} hops to peer {peer}")

    def send_lane_probe(
        self, local_index: int, to: Address, lane: int, probe: int, ip_bytes: int
    ) -> None:
        """The same by the own port of a lane.  Raises MeshCoreError as send_probe()."""
        c = ffi.new("struct mesh_endpoint *")
        _fill_endpoint(c, to)
        rc = lib.mesh_send_lane_probe(self._c, local_index, lane, c, probe, ip_bytes)
        _check(rc, f"send a probe of {ip_bytes} bytes by the port of lane {lane}")
