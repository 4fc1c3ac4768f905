"""Handlers of what concerns the network card as a whole: features, configuration, status, reset."""

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import Feature, ProtocolFeature
from vhost.rings import Ring
from vhost.session import MAX_PAIRS, Session

MIN_MTU_BYTES, MAX_MTU_BYTES = 68, 65535  # virtio 1.2, 5.1.4.1


def get_features(session: Session, _payload: bytes, _fds: list[int]) -> bytes:
    return m.U64.pack(session.offered)


def set_features(session: Session, payload: bytes, _fds: list[int]) -> None:
    (features,) = m.U64.unpack(payload)
    if features & ~session.offered:
        raise RefusedError(f"bits {features & ~session.offered:#x} were not offered")
    changed = features != session.features
    session.features = features
    session.device.set_max_pairs(session.max_pairs)
    if changed:
        session.restart_rings()
    if not features & Feature.PROTOCOL_FEATURES:
        # Such a front-end knows no SET_VRING_ENABLE.
        for index in range(m.MAX_RINGS):
            session.enable(index, True)


def get_protocol_features(_session: Session, _payload: bytes, _fds: list[int]) -> bytes:
    return m.U64.pack(m.OFFERED_PROTOCOL_FEATURES)


def set_protocol_features(session: Session, payload: bytes, _fds: list[int]) -> None:
    (features,) = m.U64.unpack(payload)
    if features & ~int(m.OFFERED_PROTOCOL_FEATURES):
        raise RefusedError(f"protocol feature bits {features:#x} were not all offered")
    session.protocol_features = features
    session.device.set_max_pairs(session.max_pairs)


def get_queue_num(_session: Session, _payload: bytes, _fds: list[int]) -> bytes:
    return m.U64.pack(MAX_PAIRS)


def nothing(_session: Session, _payload: bytes, _fds: list[int]) -> None:
    """SET_OWNER: there is one connection and it owns us.  RESET_OWNER: deprecated, and the
    specification asks to ignore it."""


def set_backend_req_fd(session: Session, _payload: bytes, fds: list[int]) -> None:
    """We have nothing to ask of the front-end; User Mode Linux wants the socket taken."""
    if len(fds) != 1:
        raise RemoteError("no file descriptor")
    former, session.backend_fd = session.backend_fd, fds.pop()
    session.close_fd(former)


# ---- configuration space


def get_config(session: Session, payload: bytes, _fds: list[int]) -> bytes:
    offset, size, flags = _config_range(payload)
    # Features are not negotiated yet when the number of pairs is read.
    pairs = session.pairs_offered if session.has(ProtocolFeature.MQ) else 1
    space = m.NET_CONFIG.pack(session.mac, m.NET_STATUS_LINK_UP, pairs, session.mtu_bytes)
    space = space.ljust(m.NET_CONFIG_BYTES, b"\0")
    return m.CONFIG_HEADER.pack(offset, size, flags) + space[offset : offset + size]


def set_config(_session: Session, payload: bytes, _fds: list[int]) -> None:
    _config_range(payload)
    # A driver of virtio 1.0 or later has nothing to write (5.1.4.2); an old one would set its
    # MAC, which the switch learns from its frames.


def _config_range(payload: bytes) -> tuple[int, int, int]:
    if len(payload) < m.CONFIG_HEADER.size:
        raise RemoteError("no room for offset and size")
    offset, size, flags = m.CONFIG_HEADER.unpack_from(payload)
    if len(payload) != m.CONFIG_HEADER.size + size or offset + size > m.NET_CONFIG_BYTES:
        raise RemoteError(f"{size} bytes at {offset} of {m.NET_CONFIG_BYTES}")
    return offset, size, flags


# ---- status and reset


def get_status(session: Session, _payload: bytes, _fds: list[int]) -> bytes:
    return m.U64.pack(session.status)


def set_status(session: Session, payload: bytes, _fds: list[int]) -> None:
    """Zero is a reset by the driver (virtio 1.2, 2.1.1); what was shared with us stays shared, as
    the front-end does not send it again."""
    (status,) = m.U64.unpack(payload)
    if status > 0xFF:
        raise RefusedError(f"{status:#x} is no device status")
    session.status = status
    if status == 0:
        session.reset_rings()


def reset_device(session: Session, _payload: bytes, _fds: list[int]) -> None:
    """To the initial state, except for owner, memory and the descriptors that QEMU sends once, when
    it connects: who calls whom is no state of the device."""
    session.reset_rings()
    for ring in session.rings.values():
        session.close_fd(ring.kick_fd)
    session.rings = {
        index: Ring(call_fd=ring.call_fd, error_fd=ring.error_fd)
        for index, ring in session.rings.items()
    }
    session.features = 0
    session.status = 0
    session.device.set_max_pairs(session.max_pairs)


# ---- the network


def net_set_mtu(session: Session, payload: bytes, _fds: list[int]) -> None:
    (mtu_bytes,) = m.U64.unpack(payload)
    if not MIN_MTU_BYTES <= mtu_bytes <= MAX_MTU_BYTES:
        raise RefusedError(f"an MTU of {mtu_bytes} cannot be")
    if mtu_bytes > session.mtu_bytes:
        raise RefusedError(
            f"the VM's MTU of {mtu_bytes} is more than the bridge's {session.mtu_bytes}: set the "
            "VM's (host_mtu) down or the bridge's mtu up"
        )


def send_rarp(session: Session, payload: bytes, _fds: list[int]) -> None:
    """The guest came here by migration and does not announce itself."""
    mac = payload[:6]
    if mac[0] & 1 or not any(mac):
        raise RefusedError(f"{mac.hex(':')} is nobody's MAC address")
    session.device.announce(mac)
