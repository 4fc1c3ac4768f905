"""Handlers of messages about the guest's memory.

Regions come and go while rings run.  A ring that lies in a region which goes stops, and says why;
it starts again when there is memory at its addresses.
"""

from collections.abc import Sequence

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import RegionSpec
from vhost.session import Session

WITHOUT_MEMORY = "its memory was removed"


def set_mem_table(session: Session, payload: bytes, fds: list[int]) -> None:
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
    session.repeats.clear()
    _replace(session, [_region(session, e, fd) for e, fd in zip(entries, fds, strict=True)])


def get_max_mem_slots(_session: Session, _payload: bytes, _fds: list[int]) -> bytes:
    return m.U64.pack(m.MAX_MEM_SLOTS)


def add_mem_reg(session: Session, payload: bytes, fds: list[int]) -> None:
    """QEMU 7.2 tells of each region, and of its end, once for every pair of queues: it stays
    until it was removed as often as it was added."""
    if len(fds) != 1:
        raise RemoteError(f"a region with {len(fds)} file descriptors")
    _, *entry = m.MEMORY_SLOT.unpack(payload)
    region = _region(session, entry, fds[0])
    if region in session.regions:
        session.repeats[region] += 1
        return
    if len(session.regions) == m.MAX_MEM_SLOTS:
        raise RefusedError(f"there are {m.MAX_MEM_SLOTS} regions already")
    _replace(session, [*session.regions, region])


def rem_mem_reg(session: Session, payload: bytes, _fds: list[int]) -> None:
    """A file descriptor may come along, and the offset may be anything (the specification on
    VHOST_USER_REM_MEM_REG)."""
    _, guest, size_bytes, user, _offset = m.MEMORY_SLOT.unpack(payload)
    for region in session.regions:
        if (region.guest, region.size_bytes, region.user) == (guest, size_bytes, user):
            break
    else:
        raise RefusedError(f"there is no region of {size_bytes} bytes at {guest:#x}")
    if session.repeats[region] > 0:
        session.repeats[region] -= 1
        return
    _replace(session, [other for other in session.regions if other is not region])


def _region(session: Session, entry: Sequence[int], fd: int) -> RegionSpec:
    guest, size_bytes, user, offset = entry
    return RegionSpec(guest, size_bytes, user, offset, session.device.memory_file(fd), fd)


def _replace(session: Session, regions: Sequence[RegionSpec]) -> None:
    lost = session.device.replace_memory(regions)
    session.regions = tuple(regions)
    for index in lost:
        session.rings[index].started = False
        session.rings[index].reason = WITHOUT_MEMORY
    for index, ring in session.rings.items():
        if ring.started or index in lost:
            continue
        try:
            session.start_if_ready(index, ring)
        except RefusedError as error:
            ring.reason = str(error)  # regions come one by one: the next may be the one
