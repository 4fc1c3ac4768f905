"""Handlers of messages about the guest's memory."""

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import RegionSpec
from vhost.session import Session


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
    regions = [
        RegionSpec(guest, size_bytes, user, offset, fd)
        for (guest, size_bytes, user, offset), fd in zip(entries, fds, strict=True)
    ]
    lost = session.device.replace_memory(regions)
    session.has_memory = True
    session.regions = tuple(regions)
    for index in lost:
        session.rings[index].started = False
    for index, ring in session.rings.items():
        if not ring.started and index not in lost:
            session.start_if_ready(index, ring)
    if lost:
        raise RefusedError(f"rings {lost} are not in the new memory")
