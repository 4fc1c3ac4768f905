"""Handlers of messages about one ring."""

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import Feature
from vhost.rings import Device
from vhost.session import Session


def set_vring_num(session: Session, payload: bytes, _fds: list[int]) -> None:
    index, num = m.VRING_STATE.unpack(payload)
    ring = session.stopped_ring(index)
    if not 0 < num <= 32768:
        raise RefusedError(f"ring size {num} is not between 1 and 32768")
    if num & (num - 1) and not session.features & Feature.RING_PACKED:
        raise RefusedError(f"ring size {num} of a split ring is no power of two")
    ring.num = num


def set_vring_addr(session: Session, payload: bytes, _fds: list[int]) -> None:
    index, flags, desc, used, avail, log = m.VRING_ADDR.unpack(payload)
    ring = session.ring(index)
    log_gpa = log if flags & m.VRING_F_LOG else None
    if (ring.addresses, ring.log_gpa) == ((desc, avail, used), log_gpa):
        return
    ring.addresses, ring.log_gpa = (desc, avail, used), log_gpa
    with session.device.traffic_held():
        if ring.started:
            session.stop(index, ring)
        session.start_if_ready(index, ring)


def set_vring_base(session: Session, payload: bytes, _fds: list[int]) -> None:
    """For packed rings: a split one goes on from its used index (virtq_init)."""
    index, base = m.VRING_STATE.unpack(payload)
    ring = session.stopped_ring(index)
    ring.base = ring.told = base


def get_vring_base(session: Session, payload: bytes, _fds: list[int]) -> bytes:
    index, _ = m.VRING_STATE.unpack(payload)
    ring = session.ring(index)
    if ring.started:
        session.stop(index, ring)
    session.device.forget_ring(index)
    ring.told = ring.base
    kick_fd, ring.kick_fd = ring.kick_fd, None  # what starts it again
    session.close_fd(kick_fd)
    return m.VRING_STATE.pack(index, ring.base)


def set_vring_enable(session: Session, payload: bytes, _fds: list[int]) -> None:
    index, enabled = m.VRING_STATE.unpack(payload)
    if enabled > 1:
        raise RefusedError(f"{enabled} is neither on nor off")
    session.ring(index)
    session.enable(index, bool(enabled))


def set_vring_kick(session: Session, payload: bytes, fds: list[int]) -> None:
    index, fd = _vring_fd(payload, fds, session.device)
    ring = session.ring(index)
    with session.device.traffic_held():
        if ring.started:
            session.stop(index, ring)
        former, ring.kick_fd = ring.kick_fd, fd
        fds.clear()
        session.close_fd(former)
        session.start_if_ready(index, ring)


def set_vring_call(session: Session, payload: bytes, fds: list[int]) -> None:
    index, fd = _vring_fd(payload, fds, session.device)
    ring = session.ring(index)
    if ring.started:
        session.device.set_call(index, fd)
    former, ring.call_fd = ring.call_fd, fd
    fds.clear()
    session.close_fd(former)


def set_vring_err(session: Session, payload: bytes, fds: list[int]) -> None:
    index, fd = _vring_fd(payload, fds, session.device)
    ring = session.ring(index)
    former, ring.error_fd = ring.error_fd, fd
    fds.clear()
    session.close_fd(former)


def _vring_fd(payload: bytes, fds: list[int], device: Device) -> tuple[int, int]:
    """Ring index and the descriptor, -1 when the front-end says that there is none.

    Whoever keeps the descriptor clears fds.
    """
    (value,) = m.U64.unpack(payload)
    if value & ~(m.VRING_INDEX_MASK | m.VRING_NO_FD):
        raise RemoteError(f"{value:#x} is no ring index")
    has_none = bool(value & m.VRING_NO_FD)
    if len(fds) != (0 if has_none else 1):
        raise RemoteError(f"{len(fds)} file descriptors for {value:#x}")
    if not has_none:
        device.check_signal(fds[0])
    return value & m.VRING_INDEX_MASK, -1 if has_none else fds[0]
