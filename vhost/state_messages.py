"""Handlers of the transfer of device state through a pipe, as in live migration.

Our state is what the guest and we have agreed upon: features, and where each ring is.  The pipe
never makes us wait: what we write fits into it, and what comes is read when it is there.

Source: vhost-user specification, "Migrating back-end state".
"""

import struct
import zlib

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.session import Session

MAGIC = b"vswN"
VERSION = 1
HEADER = struct.Struct("<4sIQI")  # magic, version, features, rings
RING = struct.Struct("<III")  # index, size, base
CHECKSUM = struct.Struct("<I")  # CRC-32 of what is before it
# 257 rings make 3.1 KiB: less than a page, which every pipe holds.


def set_device_state_fd(session: Session, payload: bytes, fds: list[int]) -> bytes:
    direction, phase = m.DEVICE_STATE_FD.unpack(payload)
    if len(fds) != 1:
        raise RemoteError("no file descriptor")
    if direction not in (m.STATE_SAVE, m.STATE_LOAD) or phase != m.STATE_STOPPED:
        raise RefusedError(f"direction {direction} in phase {phase}")
    running = [index for index, ring in session.rings.items() if ring.started]
    if running:
        raise RefusedError(f"rings {running} are running")
    session.is_loading = direction == m.STATE_LOAD
    if session.is_loading:
        session.device.receive_state(fds.pop())
    else:
        session.device.send_state(fds.pop(), pack(session))
    return m.U64.pack(m.VRING_NO_FD)  # the front-end's pipe will do


def check_device_state(session: Session, _payload: bytes, _fds: list[int]) -> bytes:
    """The answer to a load; a save went well or its pipe was refused."""
    if session.is_loading:
        session.is_loading = False
        unpack(session, session.device.received_state())
    return m.U64.pack(0)


def pack(session: Session) -> bytes:
    rings = [(index, ring) for index, ring in sorted(session.rings.items()) if ring.num]
    data = HEADER.pack(MAGIC, VERSION, session.features, len(rings))
    data += b"".join(RING.pack(index, ring.num, ring.base) for index, ring in rings)
    return data + CHECKSUM.pack(zlib.crc32(data))


def unpack(session: Session, data: bytes) -> None:
    """Take over where rings were; features and sizes the front-end sets itself."""
    if len(data) < HEADER.size + CHECKSUM.size:
        raise RefusedError(f"a state of {len(data)} bytes")
    magic, version, features, count = HEADER.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION):
        raise RefusedError(f"a state of another kind ({magic!r}, version {version})")
    if len(data) != HEADER.size + count * RING.size + CHECKSUM.size:
        raise RefusedError(f"{count} rings in {len(data)} bytes")
    if CHECKSUM.unpack_from(data, len(data) - CHECKSUM.size)[0] != zlib.crc32(data[:-4]):
        raise RefusedError("the state's checksum is wrong")
    if features & ~session.offered:
        raise RefusedError(f"the state has features {features & ~session.offered:#x}, not offered")
    rings = list(RING.iter_unpack(data[HEADER.size : -CHECKSUM.size]))
    if any(index >= m.MAX_RINGS for index, _, _ in rings):
        raise RefusedError("the state has rings that cannot be")
    for index, _num, base in rings:
        ring = session.stopped_ring(index)
        ring.base = ring.told = base
