"""vhost's C, wrapped: the only file here that imports the extension.

Every class holds what C borrows and frees it in close().  What other packages pass on to their own
C leaves as `object`.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import _dataplane

from vhost.errors import CoreError
from vhost.messages import RegionSpec
from vhost.rings import RingSpec

ffi = _dataplane.ffi
lib = _dataplane.lib

RING_STATE_BYTES: int = ffi.sizeof("struct vhost_ring_state")
_ROLES = {
    "rx": lib.VHOST_ROLE_RX,
    "tx": lib.VHOST_ROLE_TX,
    "control": lib.VHOST_ROLE_CONTROL,
}
# The C enums are the lists of reasons.
_DROPS: dict[int, str] = {
    number: name.removeprefix("DROP_").lower()
    for number, name in ffi.typeof("enum drop").elements.items()
}
_REASONS: dict[int, str] = {
    number: name.removeprefix("VIRTQ_").lower()
    for number, name in ffi.typeof("enum virtq_reason").elements.items()
}


def _check(rc: int, what: str) -> None:
    if rc < 0:
        raise CoreError(-rc, what)


@dataclass(frozen=True)
class QueueStatus:
    """A started ring as it stands.

    reason: why it broke, or "ok".  next_avail: index of the first unfinished chain; avail_idx: the
    driver's.  Counters are since the ring started; drops by reason, zeros left out.
    """

    reason: str
    next_avail: int
    avail_idx: int
    calls_sent: int
    calls_spared: int
    drops: dict[str, int]


def signal(fd: int) -> None:
    """Tell the front-end through an event counter or a socket, once, without waiting."""
    lib.vhost_signal(fd)


class Port:
    """struct port of a virtual machine's network card."""

    def __init__(self, port_id: int) -> None:
        self.cdata = lib.vhost_port_new(port_id)
        if self.cdata == ffi.NULL:
            number = ffi.errno
            # Each worker has a few requests of its own to call guests with.
            hint = " (raise sysctl fs.aio-max-nr)" if number == errno.EAGAIN else ""
            raise CoreError(number or errno.ENOMEM, f"cannot make a port{hint}")

    def close(self) -> None:
        """No published snapshot may list the port."""
        lib.vhost_port_free(self.cdata)
        self.cdata = ffi.NULL

    @property
    def event_fd(self) -> int:
        return int(lib.vhost_port_event_fd(self.cdata))

    @property
    def memory_lost(self) -> bool:
        return bool(lib.vhost_port_memory_lost(self.cdata))

    @property
    def pairs(self) -> int:
        return int(lib.vhost_port_pairs(self.cdata))

    def set_max_pairs(self, pairs: int) -> None:
        lib.vhost_port_set_max_pairs(self.cdata, pairs)

    def reset(self) -> None:
        lib.vhost_port_reset(self.cdata)

    def set_tx(self, queues: "list[Queue]") -> None:
        """The guest's RX rings to transmit to; reap() after every worker is past this."""
        array = ffi.new("struct vhost_queue *[]", [queue.cdata for queue in queues])
        _check(lib.vhost_port_set_tx(self.cdata, array, len(queues)), "cannot set the rings")

    def hold(self, held: bool) -> None:
        """While held, who sends to a port without rings waits if he can."""
        lib.vhost_port_hold(self.cdata, held)

    def reap(self) -> None:
        lib.vhost_port_reap(self.cdata)

    @property
    def announcer(self) -> object:
        """struct rxq * that yields what announce() puts in."""
        return lib.vhost_port_announcer(self.cdata)

    def announce(self, mac: bytes) -> None:
        """mac: 6 bytes."""
        _check(lib.vhost_port_announce(self.cdata, mac), f"cannot announce {mac.hex(':')}")


class Memory:
    """A port's view of its guest's memory: the mapped regions and the table of them."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._regions: dict[RegionSpec, object] = {}
        self._departed: list[object] = []
        self.table = lib.mem_table_new()
        if self.table == ffi.NULL:
            raise CoreError(12, "cannot make a memory table")

    @property
    def specs(self) -> tuple[RegionSpec, ...]:
        return tuple(self._regions)

    def replace(self, specs: Sequence[RegionSpec]) -> list[RegionSpec]:
        """List these from now on; what was mapped already stays mapped as it is.

        Returns those that are no longer listed.  They stay mapped until reap(), which is for
        when every worker is past this.  Raises CoreError, and then nothing has changed.
        """
        added: dict[RegionSpec, object] = {}
        try:
            for spec in specs:
                if spec not in self._regions and spec not in added:
                    added[spec] = self._map(spec)
            known = self._regions | added
            # The same one twice overlaps itself, which mem_table_set() says.
            array = ffi.new("struct mem_region *[]", [known[spec] for spec in specs])
            rc = lib.mem_table_set(self.table, array, len(specs))
            _check(rc, f"{len(specs)} memory regions")
        except CoreError:
            for region in added.values():
                lib.mem_region_unmap(region)
            raise
        gone = list(self._regions.keys() - set(specs))
        self._departed += [self._regions[spec] for spec in gone]
        self._regions = {spec: known[spec] for spec in specs}
        return gone

    def reap(self) -> None:
        lib.mem_table_reap(self.table)
        for region in self._departed:
            lib.mem_region_unmap(region)
        self._departed = []

    def locate(self, user: int) -> tuple[int, int, int] | None:
        """Device, inode and offset of the byte at a front-end's address."""
        for spec in self._regions:
            if spec.user <= user < spec.user + spec.size_bytes:
                return *spec.file, spec.offset + user - spec.user
        return None

    def nodes(self) -> list[int | None]:
        """NUMA node of each region's first byte, in the order of specs; None: unknown."""
        nodes = [int(lib.mem_region_node(region)) for region in self._regions.values()]
        return [node if node >= 0 else None for node in nodes]

    def close(self) -> None:
        """No worker may use a ring in it."""
        self.replace(())
        self.reap()
        lib.mem_table_free(self.table)
        self.table = ffi.NULL

    def _map(self, spec: RegionSpec) -> object:
        out = ffi.new("struct mem_region **")
        rc = lib.mem_region_map(
            self._port.cdata, spec.fd, spec.guest, spec.size_bytes, spec.user, spec.offset, out
        )
        _check(rc, f"memory region of {spec.size_bytes} bytes at {spec.guest:#x}")
        return out[0]


class DirtyLog:
    """The pages that rings wrote, in a file that a migration reads: a bit for each 4 KiB."""

    def __init__(self, port: Port, fd: int, size_bytes: int, offset: int) -> None:
        out = ffi.new("struct dirty_log **")
        rc = lib.dirty_log_new(port.cdata, fd, size_bytes, offset, out)
        _check(rc, f"dirty log of {size_bytes} bytes at {offset:#x}")
        self.cdata = out[0]

    def close(self) -> None:
        """No ring may use it."""
        lib.dirty_log_free(self.cdata)
        self.cdata = ffi.NULL

    @property
    def beyond(self) -> int:
        """How often a page was written that the log has no bit for."""
        return int(lib.dirty_log_beyond(self.cdata))


class Queue:
    """A started ring.  log: marked when the features have LOG_ALL; must outlive the ring."""

    def __init__(
        self, port: Port, memory: Memory, spec: RingSpec, log: DirtyLog | None = None
    ) -> None:
        self._memory = memory
        self._state: object = None
        ring = ffi.new("struct vhost_ring *")
        ring.features = spec.features
        ring.desc, ring.avail, ring.used = spec.desc, spec.avail, spec.used
        ring.num, ring.role = spec.num, _ROLES[spec.role]
        ring.kick_fd, ring.call_fd = spec.kick_fd, spec.call_fd
        ring.enabled, ring.index = spec.enabled, spec.index
        ring.base, ring.told = spec.base, spec.told
        if log is not None:
            ring.log = log.cdata
            ring.log_used = spec.log_gpa is not None
            ring.log_gpa = spec.log_gpa or 0
        if spec.state is not None:
            # Holds on to the map, which cannot be closed before.
            self._state = ring.state = ffi.from_buffer("struct vhost_ring_state *", spec.state)
            ring.resume = spec.resume
        out = ffi.new("struct vhost_queue **")
        rc = lib.vhost_queue_start(port.cdata, memory.table, ring, out)
        _check(rc, f"cannot start ring {spec.index}")
        self.cdata = out[0]
        self.spec = spec

    def close(self) -> None:
        """No worker may use it."""
        lib.vhost_queue_free(self.cdata)
        self.cdata = ffi.NULL
        self._state = None

    @property
    def rxq(self) -> object:
        return lib.vhost_queue_rxq(self.cdata)

    def enable(self, enabled: bool) -> None:
        lib.vhost_queue_enable(self.cdata, enabled)

    def set_call(self, fd: int) -> None:
        lib.vhost_queue_set_call(self.cdata, fd)

    def status(self) -> QueueStatus:
        out = ffi.new("struct vhost_queue_status *")
        lib.vhost_queue_status_read(self.cdata, out)
        return QueueStatus(
            reason=_REASONS[out.reason],
            next_avail=int(out.next_avail),
            avail_idx=int(out.avail_idx),
            calls_sent=int(out.calls_sent),
            calls_spared=int(out.calls_spared),
            drops={_DROPS[i]: int(count) for i, count in enumerate(out.drops) if count},
        )
