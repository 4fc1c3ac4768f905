"""Handlers of messages about the log of pages that we write while the VM is moved."""

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import ProtocolFeature
from vhost.session import Session


def set_log_base(session: Session, payload: bytes, fds: list[int]) -> bytes:
    """Always answered, but what front-ends wait for differs: QEMU takes an answer of any size, and
    wants no acknowledgement; Cloud Hypervisor wants one, up to v51 of 8 bytes, and from v52 on, the
    first that knows DEVICE_STATE, what it sent.

    A log that we cannot write ends the connection: the VM would arrive with memory of the past.
    """
    size_bytes, offset = m.LOG.unpack(payload)
    if not session.has(ProtocolFeature.LOG_SHMFD):
        raise RefusedError("LOG_SHMFD was not negotiated")
    if len(fds) != 1:
        raise RemoteError(f"a log with {len(fds)} file descriptors")
    session.device.set_log(fds[0], size_bytes, offset)
    if session.is_ack_wanted and session.has(ProtocolFeature.DEVICE_STATE):
        return payload
    return m.U64.pack(0)


def set_log_fd(_session: Session, _payload: bytes, _fds: list[int]) -> None:
    """Somewhere to tell that pages were marked; front-ends look at the log by themselves, so it is
    closed."""
