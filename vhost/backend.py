"""The vhost-user protocol as a machine without sockets: one table from request to handler.

Call order: receive_message() for each whole message, then replies_to_send().  File descriptors that
a handler keeps are taken out of the list it got; the caller closes those that are left.

Source: vhost-user specification (QEMU's docs/interop/vhost-user).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from vhost import feature_messages, log_messages, memory_messages, ring_messages, state_messages
from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import Header, ProtocolFeature, Request
from vhost.session import Session


@dataclass(frozen=True)
class Handler:
    """How one request is served.

    size_bytes: of the payload; None when the handler checks it.  fds: most that may come along.
    answers: it replies itself, so REPLY_ACK adds nothing.  failure: its answer when it refuses;
    None: there is no such answer, and a front-end that waits for one must see the connection end.
    """

    serve: Callable[[Session, bytes, list[int]], bytes | None]
    size_bytes: int | None
    fds: int = 0
    answers: bool = False
    failure: bytes | None = None


@dataclass
class Backend(Session):
    """One connection."""

    _replies: list[bytes] = field(default_factory=list)

    def receive_message(self, header: Header, payload: bytes, fds: list[int]) -> None:
        """Serve one message.

        Raises RemoteError when the front-end broke the protocol or cannot be told of a failure.
        """
        name = m.request_name(header.request)
        if header.version != m.VERSION or header.is_reply:
            raise RemoteError(f"{name}: flags {header.flags:#x} are not those of a request")
        handler = HANDLERS.get(header.request, UNKNOWN)
        self.is_ack_wanted = self._acks(header)
        answer: bytes | None
        try:
            answer = self._serve(handler, payload, fds)
        except RemoteError as error:
            raise RemoteError(f"{name}: {error}") from error
        except RefusedError as error:
            self.last_step = f"{name} refused: {error}"
            answer = handler.failure
            if answer is None and self.is_ack_wanted and not handler.answers:
                answer = m.U64.pack(1)
            if answer is None:
                raise RemoteError(f"{name}: {error}") from error
        else:
            self.last_step = name
            if answer is None and self._acks(header):
                answer = m.U64.pack(0)
        if answer is not None:
            flags = m.VERSION | m.FLAG_REPLY
            self._replies.append(m.HEADER.pack(header.request, flags, len(answer)) + answer)

    def _serve(self, handler: Handler, payload: bytes, fds: list[int]) -> bytes | None:
        if handler.size_bytes not in (None, len(payload)):
            raise RemoteError(f"{len(payload)} bytes of payload instead of {handler.size_bytes}")
        if len(fds) > handler.fds:
            raise RemoteError(f"{len(fds)} file descriptors, at most {handler.fds}")
        return handler.serve(self, payload, fds)

    def _acks(self, header: Header) -> bool:
        """Looked at after the handler: User Mode Linux wants an answer to SET_PROTOCOL_FEATURES."""
        return header.needs_reply and self.has(ProtocolFeature.REPLY_ACK)

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
        self.device.set_log(-1)
        for ring in self.rings.values():
            for fd in (ring.kick_fd, ring.call_fd, ring.error_fd):
                self.close_fd(fd)
        self.device.end_announcements()
        self.device.end_transfer()
        self.close_fd(self.backend_fd)
        self.rings = {}
        self.backend_fd = -1
        self.regions = ()


def _refuse(_session: Session, _payload: bytes, _fds: list[int]) -> None:
    raise RefusedError("not offered")


# Requests whose protocol feature we do not offer, or which nobody knows.  With an acknowledgement
# wanted, that says no.  Otherwise, and when the front-end waits for an answer of a shape of its
# own, the connection ends: ignored, the ring would be in the wrong byte order (SET_VRING_ENDIAN),
# or wait for a kick for ever (VRING_KICK), and a front-end in recvmsg() would stay there.
UNKNOWN = Handler(_refuse, None, fds=m.MAX_FDS)
_UNANSWERABLE = Handler(_refuse, None, fds=m.MAX_FDS, answers=True)

_f, _l, _m, _r, _s = (
    feature_messages,
    log_messages,
    memory_messages,
    ring_messages,
    state_messages,
)

HANDLERS: dict[int, Handler] = {
    Request.GET_FEATURES: Handler(_f.get_features, 0, answers=True),
    Request.SET_FEATURES: Handler(_f.set_features, 8),
    Request.SET_OWNER: Handler(_f.nothing, 0),
    Request.RESET_OWNER: Handler(_f.nothing, 0),
    Request.SET_MEM_TABLE: Handler(_m.set_mem_table, None, fds=m.MAX_FDS),
    Request.SET_LOG_BASE: Handler(_l.set_log_base, m.LOG.size, fds=1, answers=True),
    Request.SET_LOG_FD: Handler(_l.set_log_fd, None, fds=1),
    Request.SET_VRING_NUM: Handler(_r.set_vring_num, 8),
    Request.SET_VRING_ADDR: Handler(_r.set_vring_addr, m.VRING_ADDR.size),
    Request.SET_VRING_BASE: Handler(_r.set_vring_base, 8),
    Request.GET_VRING_BASE: Handler(_r.get_vring_base, 8, answers=True),
    Request.SET_VRING_KICK: Handler(_r.set_vring_kick, 8, fds=1),
    Request.SET_VRING_CALL: Handler(_r.set_vring_call, 8, fds=1),
    Request.SET_VRING_ERR: Handler(_r.set_vring_err, 8, fds=1),
    Request.GET_PROTOCOL_FEATURES: Handler(_f.get_protocol_features, 0, answers=True),
    Request.SET_PROTOCOL_FEATURES: Handler(_f.set_protocol_features, 8),
    Request.GET_QUEUE_NUM: Handler(_f.get_queue_num, 0, answers=True),
    Request.SET_VRING_ENABLE: Handler(_r.set_vring_enable, 8),
    Request.SEND_RARP: Handler(_f.send_rarp, 8),
    Request.NET_SET_MTU: Handler(_f.net_set_mtu, 8),
    Request.SET_BACKEND_REQ_FD: Handler(_f.set_backend_req_fd, 0, fds=1),
    Request.GET_CONFIG: Handler(_f.get_config, None, answers=True),
    Request.SET_CONFIG: Handler(_f.set_config, None),
    Request.CREATE_CRYPTO_SESSION: _UNANSWERABLE,
    Request.POSTCOPY_ADVISE: _UNANSWERABLE,
    Request.GET_INFLIGHT_FD: _UNANSWERABLE,
    Request.RESET_DEVICE: Handler(_f.reset_device, 0),
    Request.GET_MAX_MEM_SLOTS: Handler(_m.get_max_mem_slots, 0, answers=True),
    Request.ADD_MEM_REG: Handler(_m.add_mem_reg, m.MEMORY_SLOT.size, fds=1),
    Request.REM_MEM_REG: Handler(_m.rem_mem_reg, m.MEMORY_SLOT.size, fds=1),
    Request.SET_STATUS: Handler(_f.set_status, 8),
    Request.GET_STATUS: Handler(_f.get_status, 0, answers=True),
    Request.GET_SHARED_OBJECT: _UNANSWERABLE,
    Request.SET_DEVICE_STATE_FD: Handler(
        _s.set_device_state_fd,
        m.DEVICE_STATE_FD.size,
        fds=1,
        answers=True,
        failure=m.U64.pack(m.VRING_NO_FD | 1),
    ),
    Request.CHECK_DEVICE_STATE: Handler(
        _s.check_device_state, 0, answers=True, failure=m.U64.pack(1)
    ),
    Request.GET_SHMEM_CONFIG: _UNANSWERABLE,
}
