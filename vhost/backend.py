"""The vhost-user protocol as a machine without sockets.

Call order: receive_message() for each whole message, then replies_to_send().  File descriptors that
a handler keeps are taken out of the list it got; the caller closes those that are left.

A ring is started or stopped, and enabled or disabled, independently: it starts when it has
a kick, addresses and memory, and stops with GET_VRING_BASE ("Ring states" in the specification).

Source: vhost-user specification (QEMU's docs/interop/vhost-user).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import Feature, Header, ProtocolFeature, RegionSpec, Request
from vhost.rings import Device, Ring, RingSpec

MAX_PAIRS = 128


@dataclass(frozen=True)
class Handler:
    """How one request is served.

    size_bytes: of the payload; None when the handler checks it.  fds: most that may come along.
    answers: it replies itself, so REPLY_ACK adds nothing.
    """

    serve: Callable[["Backend", bytes, list[int]], bytes | None]
    size_bytes: int | None
    fds: int = 0
    answers: bool = False


@dataclass
class Backend:
    """One connection's state.

    offered: virtio feature bits.  mac (6 bytes) and mtu_bytes stand in the configuration space.
    """

    device: Device
    offered: int
    mac: bytes
    mtu_bytes: int
    features: int = 0
    protocol_features: int = 0
    has_memory: bool = False
    regions: tuple[RegionSpec, ...] = ()
    rings: dict[int, Ring] = field(default_factory=dict)
    last_step: str = "connected"
    _backend_fd: int = -1
    _replies: list[bytes] = field(default_factory=list)

    # ---- in and out

    def receive_message(self, header: Header, payload: bytes, fds: list[int]) -> None:
        """Serve one message.

        Raises RemoteError when the front-end broke the protocol or cannot be told of a failure.
        """
        name = m.request_name(header.request)
        if header.version != m.VERSION or header.is_reply:
            raise RemoteError(f"{name}: flags {header.flags:#x} are not those of a request")
        handler = HANDLERS.get(header.request)
        answer: bytes | None
        try:
            answer = self._serve(handler, payload, fds)
        except RemoteError as error:
            raise RemoteError(f"{name}: {error}") from error
        except RefusedError as error:
            self.last_step = f"{name} refused: {error}"
            if not self._acks(header) or (handler is not None and handler.answers):
                raise RemoteError(f"{name}: {error}") from error
            answer = m.U64.pack(1)
        else:
            self.last_step = name
            if answer is None and self._acks(header):
                answer = m.U64.pack(0)
        if answer is not None:
            flags = m.VERSION | m.FLAG_REPLY
            self._replies.append(m.HEADER.pack(header.request, flags, len(answer)) + answer)

    def _serve(self, handler: Handler | None, payload: bytes, fds: list[int]) -> bytes | None:
        if handler is None:
            raise RefusedError("not supported")
        if handler.size_bytes not in (None, len(payload)):
            raise RemoteError(f"{len(payload)} bytes of payload instead of {handler.size_bytes}")
        if len(fds) > handler.fds:
            raise RemoteError(f"{len(fds)} file descriptors, at most {handler.fds}")
        return handler.serve(self, payload, fds)

    def _acks(self, header: Header) -> bool:
        """Looked at after the handler: User Mode Linux wants an answer to SET_PROTOCOL_FEATURES."""
        return header.needs_reply and bool(self.protocol_features & ProtocolFeature.REPLY_ACK)

    def replies_to_send(self) -> list[bytes]:
        replies, self._replies = self._replies, []
        return replies

    def close(self) -> None:
        """Stop all rings, let go of memory and file descriptors."""
        for index, ring in self.rings.items():
            if ring.started:
                self.device.stop_ring(index)
                ring.started = False
        self.device.replace_memory(())
        for ring in self.rings.values():
            for fd in (ring.kick_fd, ring.call_fd, ring.error_fd):
                if fd is not None and fd >= 0:
                    self.device.close_fd(fd)
        if self._backend_fd >= 0:
            self.device.close_fd(self._backend_fd)
        self.rings = {}
        self._backend_fd = -1
        self.has_memory = False

    # ---- features

    def _get_features(self, _payload: bytes, _fds: list[int]) -> bytes:
        return m.U64.pack(self.offered)

    def _set_features(self, payload: bytes, _fds: list[int]) -> None:
        (features,) = m.U64.unpack(payload)
        if features & ~self.offered:
            raise RefusedError(f"bits {features & ~self.offered:#x} were not offered")
        changed = features != self.features
        self.features = features
        self.device.set_max_pairs(self.max_pairs)
        if changed:
            self._restart_rings()
        if not features & Feature.PROTOCOL_FEATURES:
            # Such a front-end knows no SET_VRING_ENABLE.
            for index in range(m.MAX_RINGS):
                self._enable(index, True)

    def _get_protocol_features(self, _payload: bytes, _fds: list[int]) -> bytes:
        return m.U64.pack(m.OFFERED_PROTOCOL_FEATURES)

    def _set_protocol_features(self, payload: bytes, _fds: list[int]) -> None:
        (features,) = m.U64.unpack(payload)
        if features & ~int(m.OFFERED_PROTOCOL_FEATURES):
            raise RefusedError(f"protocol feature bits {features:#x} were not all offered")
        self.protocol_features = features
        self.device.set_max_pairs(self.max_pairs)

    def _get_queue_num(self, _payload: bytes, _fds: list[int]) -> bytes:
        return m.U64.pack(MAX_PAIRS)

    @property
    def max_pairs(self) -> int:
        """Pairs the guest may use: one unless the front-end can tell us about more."""
        if self.features & Feature.MQ and self.protocol_features & ProtocolFeature.MQ:
            return MAX_PAIRS
        return 1

    def _nothing(self, _payload: bytes, _fds: list[int]) -> None:
        """SET_OWNER: there is one connection and it owns us.  RESET_OWNER: deprecated, and the
        specification asks to ignore it."""

    def _set_backend_req_fd(self, _payload: bytes, fds: list[int]) -> None:
        """We have nothing to ask of the front-end; User Mode Linux wants the socket taken."""
        if len(fds) != 1:
            raise RemoteError("no file descriptor")
        former, self._backend_fd = self._backend_fd, fds.pop()
        if former >= 0:
            self.device.close_fd(former)

    # ---- configuration space

    def _get_config(self, payload: bytes, _fds: list[int]) -> bytes:
        offset, size, flags = _config_range(payload)
        space = m.NET_CONFIG.pack(
            self.mac, m.NET_STATUS_LINK_UP, self.max_pairs_told, self.mtu_bytes
        ).ljust(m.NET_CONFIG_BYTES, b"\0")
        return m.CONFIG_HEADER.pack(offset, size, flags) + space[offset : offset + size]

    @property
    def max_pairs_told(self) -> int:
        """What the configuration space says; features are not negotiated yet when it is read."""
        return MAX_PAIRS if self.protocol_features & ProtocolFeature.MQ else 1

    def _set_config(self, payload: bytes, _fds: list[int]) -> None:
        _config_range(payload)
        # A driver of virtio 1.0 or later has nothing to write (5.1.4.2); an old one would set its
        # MAC, which the switch learns from its frames.

    # ---- memory

    def _set_mem_table(self, payload: bytes, fds: list[int]) -> None:
        if len(payload) < m.MEMORY_HEADER.size:
            raise RemoteError("no room for the number of regions")
        count, _ = m.MEMORY_HEADER.unpack_from(payload)
        if not 1 <= count <= m.MAX_FDS:
            raise RemoteError(f"{count} regions instead of 1 to {m.MAX_FDS}")
        needed = m.MEMORY_HEADER.size + count * m.MEMORY_REGION.size
        if len(payload) < needed:
            raise RemoteError(f"{len(payload)} bytes instead of {needed}")
        if len(fds) != count:
            raise RemoteError(f"{count} regions, {len(fds)} file descriptors")
        entries = m.MEMORY_REGION.iter_unpack(payload[m.MEMORY_HEADER.size : needed])
        regions = [
            RegionSpec(guest, size_bytes, user, offset, fd)
            for (guest, size_bytes, user, offset), fd in zip(entries, fds, strict=True)
        ]
        lost = self.device.replace_memory(regions)
        self.has_memory = True
        self.regions = tuple(regions)
        for index in lost:
            self.rings[index].started = False
        for index, ring in self.rings.items():
            if not ring.started and index not in lost:
                self._start_if_ready(index, ring)
        if lost:
            raise RefusedError(f"rings {lost} are not in the new memory")

    # ---- rings

    def ring(self, index: int) -> Ring:
        if index >= m.MAX_RINGS:
            raise RemoteError(f"ring {index} of {m.MAX_RINGS}")
        if index not in self.rings:
            # Without protocol features rings are enabled from the start.
            enabled = not self.features & Feature.PROTOCOL_FEATURES and self.features != 0
            self.rings[index] = Ring(enabled=enabled)
        return self.rings[index]

    def _stopped_ring(self, index: int) -> Ring:
        ring = self.ring(index)
        if ring.started:
            raise RefusedError(f"ring {index} is running")
        return ring

    def _set_vring_num(self, payload: bytes, _fds: list[int]) -> None:
        index, num = m.VRING_STATE.unpack(payload)
        ring = self._stopped_ring(index)
        if num == 0 or num & (num - 1) or num > 32768:
            raise RefusedError(f"ring size {num} is no power of two up to 32768")
        ring.num = num

    def _set_vring_addr(self, payload: bytes, _fds: list[int]) -> None:
        index, _flags, desc, used, avail, _log = m.VRING_ADDR.unpack(payload)
        ring = self.ring(index)
        if ring.addresses == (desc, avail, used):
            return
        ring.addresses = (desc, avail, used)
        if ring.started:
            self._stop(index, ring)
        self._start_if_ready(index, ring)

    def _set_vring_base(self, payload: bytes, _fds: list[int]) -> None:
        """Kept for the status only: a split ring goes on from its used index (virtq_init)."""
        index, base = m.VRING_STATE.unpack(payload)
        self._stopped_ring(index).base = base

    def _get_vring_base(self, payload: bytes, _fds: list[int]) -> bytes:
        index, _ = m.VRING_STATE.unpack(payload)
        ring = self.ring(index)
        if ring.started:
            self._stop(index, ring)
        kick_fd, ring.kick_fd = ring.kick_fd, None  # what starts it again
        if kick_fd is not None and kick_fd >= 0:
            self.device.close_fd(kick_fd)
        return m.VRING_STATE.pack(index, ring.base)

    def _set_vring_enable(self, payload: bytes, _fds: list[int]) -> None:
        index, enabled = m.VRING_STATE.unpack(payload)
        if enabled > 1:
            raise RefusedError(f"{enabled} is neither on nor off")
        self.ring(index)
        self._enable(index, bool(enabled))

    def _enable(self, index: int, enabled: bool) -> None:
        ring = self.rings.get(index)
        if ring is None or ring.enabled == enabled:
            return
        ring.enabled = enabled
        if ring.started:
            self.device.enable_ring(index, enabled)

    def _set_vring_kick(self, payload: bytes, fds: list[int]) -> None:
        index, fd = _vring_fd(payload, fds)
        ring = self.ring(index)
        if ring.started:
            self._stop(index, ring)
        former, ring.kick_fd = ring.kick_fd, fd
        fds.clear()
        if former is not None and former >= 0:
            self.device.close_fd(former)
        self._start_if_ready(index, ring)

    def _set_vring_call(self, payload: bytes, fds: list[int]) -> None:
        index, fd = _vring_fd(payload, fds)
        ring = self.ring(index)
        if ring.started:
            self.device.set_call(index, fd)
        former, ring.call_fd = ring.call_fd, fd
        fds.clear()
        if former >= 0:
            self.device.close_fd(former)

    def _set_vring_err(self, payload: bytes, fds: list[int]) -> None:
        index, fd = _vring_fd(payload, fds)
        ring = self.ring(index)
        former, ring.error_fd = ring.error_fd, fd
        fds.clear()
        if former >= 0:
            self.device.close_fd(former)

    def role_name(self, index: int) -> str:
        """ "rx", "tx" or "control"; "none" with the negotiated features."""
        control = 2 * self.max_pairs
        if index < control:
            return "tx" if index % 2 else "rx"
        return "control" if index == control and self.features & Feature.CTRL_VQ else "none"

    def _role(self, index: int) -> str:
        role = self.role_name(index)
        if role == "none":
            raise RefusedError(f"ring {index} has no role with the negotiated features")
        return role

    def _start_if_ready(self, index: int, ring: Ring) -> None:
        if ring.kick_fd is None or ring.addresses is None or not ring.num or not self.has_memory:
            return
        desc, avail, used = ring.addresses
        self.device.start_ring(
            RingSpec(
                index=index,
                role=self._role(index),
                num=ring.num,
                features=self.features,
                desc=desc,
                avail=avail,
                used=used,
                kick_fd=ring.kick_fd,
                call_fd=ring.call_fd,
                enabled=ring.enabled,
            )
        )
        ring.started = True

    def _stop(self, index: int, ring: Ring) -> None:
        ring.base = self.device.stop_ring(index)
        ring.started = False

    def _restart_rings(self) -> None:
        """What a ring does is chosen by its features when it starts."""
        for index, ring in self.rings.items():
            if ring.started:
                self._stop(index, ring)
                self._start_if_ready(index, ring)


def _vring_fd(payload: bytes, fds: list[int]) -> tuple[int, int]:
    """Ring index and the descriptor, -1 when the front-end says that there is none.

    Whoever keeps the descriptor clears fds.
    """
    (value,) = m.U64.unpack(payload)
    if value & ~(m.VRING_INDEX_MASK | m.VRING_NO_FD):
        raise RemoteError(f"{value:#x} is no ring index")
    has_none = bool(value & m.VRING_NO_FD)
    if len(fds) != (0 if has_none else 1):
        raise RemoteError(f"{len(fds)} file descriptors for {value:#x}")
    return value & m.VRING_INDEX_MASK, -1 if has_none else fds[0]


def _config_range(payload: bytes) -> tuple[int, int, int]:
    if len(payload) < m.CONFIG_HEADER.size:
        raise RemoteError("no room for offset and size")
    offset, size, flags = m.CONFIG_HEADER.unpack_from(payload)
    if len(payload) != m.CONFIG_HEADER.size + size or offset + size > m.NET_CONFIG_BYTES:
        raise RemoteError(f"{size} bytes at {offset} of {m.NET_CONFIG_BYTES}")
    return offset, size, flags


HANDLERS: dict[int, Handler] = {
    Request.GET_FEATURES: Handler(Backend._get_features, 0, answers=True),
    Request.SET_FEATURES: Handler(Backend._set_features, 8),
    Request.SET_OWNER: Handler(Backend._nothing, 0),
    Request.RESET_OWNER: Handler(Backend._nothing, 0),
    Request.SET_MEM_TABLE: Handler(Backend._set_mem_table, None, fds=m.MAX_FDS),
    Request.SET_VRING_NUM: Handler(Backend._set_vring_num, 8),
    Request.SET_VRING_ADDR: Handler(Backend._set_vring_addr, m.VRING_ADDR.size),
    Request.SET_VRING_BASE: Handler(Backend._set_vring_base, 8),
    Request.GET_VRING_BASE: Handler(Backend._get_vring_base, 8, answers=True),
    Request.SET_VRING_KICK: Handler(Backend._set_vring_kick, 8, fds=1),
    Request.SET_VRING_CALL: Handler(Backend._set_vring_call, 8, fds=1),
    Request.SET_VRING_ERR: Handler(Backend._set_vring_err, 8, fds=1),
    Request.GET_PROTOCOL_FEATURES: Handler(Backend._get_protocol_features, 0, answers=True),
    Request.SET_PROTOCOL_FEATURES: Handler(Backend._set_protocol_features, 8),
    Request.GET_QUEUE_NUM: Handler(Backend._get_queue_num, 0, answers=True),
    Request.SET_VRING_ENABLE: Handler(Backend._set_vring_enable, 8),
    Request.SET_BACKEND_REQ_FD: Handler(Backend._set_backend_req_fd, 0, fds=1),
    Request.GET_CONFIG: Handler(Backend._get_config, None, answers=True),
    Request.SET_CONFIG: Handler(Backend._set_config, None),
}
