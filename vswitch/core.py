"""The data plane as Python objects; the only file of this package that imports it.

Each class owns one C object, frees it in close() and is a context manager.  C pointers that pass
through (ports and receive queues of other packages) are opaque objects to everybody else.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from types import TracebackType
from typing import Any, Self

from _dataplane import ffi, lib

from mesh.core import Punt
from vswitch.errors import CoreError
from vswitch.model import Network

TIMED_EVERY: int = lib.TIMED_EVERY
IDLE = {"adaptive": lib.IDLE_ADAPTIVE, "poll": lib.IDLE_POLL}
ROUTE_PORT: int = lib.ROUTE_PORT
ROUTE_PEER: int = lib.ROUTE_PEER
FDB_DUMP_ENTRIES = 256
V4_MAPPED = bytes(10) + b"\xff\xff"

# The C enum is the one list of drop reasons.
DROP_NAMES: tuple[str, ...] = tuple(
    name.removeprefix("DROP_").lower()
    for _, name in sorted(ffi.typeof("enum drop").elements.items())
    if name != "DROP_REASONS"
)
_COUNTER_NAMES = tuple(name for name, _ in ffi.typeof("struct counters").fields if name != "drops")
_RXQ_COUNTER_NAMES = tuple(name for name, _ in ffi.typeof("struct rxq_counters").fields)
_WORKER_COUNTER_NAMES = tuple(name for name, _ in ffi.typeof("struct worker_counters").fields)


def _check(rc: int, what: str) -> int:
    """rc of a C function: not negative, or CoreError."""
    if rc < 0:
        raise CoreError(-rc, what)
    return rc


def _made(pointer: Any, what: str) -> Any:
    """A constructor's result, or CoreError: they fail for want of memory."""
    if pointer == ffi.NULL:
        raise CoreError(errno.ENOMEM, what)
    return pointer


class _Owner:
    """Something with a C object that is freed once."""

    def __init__(self, pointer: Any, what: str) -> None:
        self.c: Any = _made(pointer, what)

    def _free(self, pointer: Any) -> None:
        raise AssertionError("every owner frees its own kind")

    def close(self) -> None:
        """Free the C object; nothing may refer to it any more."""
        if self.c is not None:
            pointer, self.c = self.c, None
            self._free(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class Fdb(_Owner):
    """A bridge's MAC table."""

    def __init__(self, entries: int, seed: int) -> None:
        super().__init__(lib.fdb_new(entries, seed), "make a MAC table")

    def _free(self, pointer: Any) -> None:
        lib.fdb_free(pointer)

    def set_ageing(self, seconds: int) -> None:
        lib.fdb_set_ageing(self.c, seconds)

    def flush_port(self, port_id: int) -> None:
        lib.fdb_flush_port(self.c, port_id)

    def dump(self, now_ns: int) -> list[tuple[bytes, int, int]]:
        """(MAC, port id, age in seconds) of each entry."""
        found: list[tuple[bytes, int, int]] = []
        cursor = ffi.new("uint32_t *")
        out = ffi.new("struct fdb_entry[]", FDB_DUMP_ENTRIES)
        while count := lib.fdb_dump(self.c, now_ns, cursor, out, FDB_DUMP_ENTRIES):
            found += [(bytes(out[i].mac), out[i].port, out[i].age_s) for i in range(count)]
        return found


class Routes(_Owner):
    """Longest-prefix routes; complete before they are given to a snapshot."""

    def __init__(self, routes: list[tuple[Network, int]]) -> None:
        super().__init__(lib.lpm_new(max(1, len(routes))), "make a route table")
        try:
            for network, value in routes:
                address, prefix = mapped(network)
                _check(lib.lpm_add(self.c, address, prefix, value), f"add the route {network}")
        except CoreError:
            self.close()
            raise

    def _free(self, pointer: Any) -> None:
        lib.lpm_free(pointer)


class Neighbours(_Owner):
    """Local IP addresses and their MACs."""

    def __init__(self, entries: int) -> None:
        super().__init__(lib.neighbours_new(entries), "make a neighbour table")

    def _free(self, pointer: Any) -> None:
        lib.neighbours_free(pointer)


class Snapshot(_Owner):
    """One configuration of the data plane; not changed any more once a worker has it."""

    def __init__(self, workers: int) -> None:
        super().__init__(lib.snapshot_new(workers), "make a snapshot")

    def _free(self, pointer: Any) -> None:
        lib.snapshot_free(pointer)

    def set_idle(self, idle: str) -> None:
        lib.snapshot_set_idle(self.c, IDLE[idle])

    def add_bridge(self, fdb: Fdb, router_mac: bytes, mtu_bytes: int) -> int:
        return _check(lib.snapshot_add_bridge(self.c, fdb.c, router_mac, mtu_bytes), "add a bridge")

    def add_subnet(self, bridge: int, subnet: Network) -> None:
        address, prefix = mapped(subnet)
        _check(lib.snapshot_add_subnet(self.c, bridge, address, prefix), f"add subnet {subnet}")

    def add_port(self, c_port: object, bridge: int | None) -> int:
        """Returns the port's number in routes.  bridge None: the mesh."""
        index = -1 if bridge is None else bridge
        return _check(lib.snapshot_add_port(self.c, c_port, index), "add a port")

    def add_rxq(self, worker: int, c_rxq: object) -> None:
        _check(lib.snapshot_add_rxq(self.c, worker, c_rxq), "add a receive queue")

    def set_routes(self, routes: Routes, neighbours: Neighbours) -> None:
        lib.snapshot_set_routes(self.c, routes.c, neighbours.c)


class Worker(_Owner):
    """A poll-mode worker; run() is called by the thread that it shall be."""

    def __init__(self, index: int) -> None:
        super().__init__(lib.worker_new(index), "make a worker")

    def _free(self, pointer: Any) -> None:
        lib.worker_free(pointer)

    def run(self) -> None:
        """Block until stop(), without the GIL."""
        _check(lib.worker_run(self.c), "run a worker")

    def stop(self) -> None:
        lib.worker_stop(self.c)

    def breathe(self, now_ns: int) -> int:
        """One breath in this thread, for tests; returns the packets that moved."""
        return int(lib.worker_breathe(self.c, now_ns))

    def publish(self, snapshot: Snapshot | None) -> None:
        lib.worker_publish(self.c, snapshot.c if snapshot else ffi.NULL)

    def sync(self, timeout_ns: int) -> None:
        _check(lib.worker_sync(self.c, timeout_ns), "wait for a worker's next breath")

    def counters(self) -> dict[str, int]:
        out = ffi.new("struct worker_counters *")
        lib.worker_counters_read(self.c, out)
        return {name: int(getattr(out, name)) for name in _WORKER_COUNTER_NAMES}

    def punt_fd(self) -> int:
        return int(lib.worker_punt_fd(self.c))

    def punts(self, limit: int) -> Iterator[Punt]:
        """What the worker handed up, oldest first, at most limit of them."""
        out = ffi.new("struct punt *")
        for _ in range(limit):
            if not lib.worker_punt_next(self.c, out):
                return
            yield Punt(
                kind=out.kind,
                id=out.id,
                socket=out.socket,
                address=bytes(out.address),
                port=out.port,
                data=bytes(ffi.buffer(out.data, out.len_bytes)),
                via=out.via,
            )


class TapPort(_Owner):
    """A tap as a port.  Takes over fd.  uso: whether its kernel takes USO frames."""

    def __init__(self, port_id: int, fd: int, uso: bool) -> None:
        super().__init__(lib.tap_port_new(port_id, fd, uso), "make a tap port")

    def _free(self, pointer: Any) -> None:
        lib.tap_port_free(pointer)

    def rxq(self) -> object:
        return lib.tap_port_rxq(self.c)


@dataclass(frozen=True)
class Counters:
    """A port's counters, summed over workers.  drops: by reason, zeros left out."""

    values: dict[str, int]
    drops: dict[str, int]


def port_counters(c_port: object) -> Counters:
    out = ffi.new("struct counters *")
    lib.port_counters_read(c_port, out)
    drops = {name: int(out.drops[i]) for i, name in enumerate(DROP_NAMES) if out.drops[i]}
    return Counters({name: int(getattr(out, name)) for name in _COUNTER_NAMES}, drops)


def rxq_counters(c_rxq: object) -> dict[str, int]:
    """What a receive queue counted; it must be listed by its port."""
    out = ffi.new("struct rxq_counters *")
    lib.rxq_counters_read(c_rxq, out)
    return {name: int(getattr(out, name)) for name in _RXQ_COUNTER_NAMES}


def mapped(network: Network) -> tuple[bytes, int]:
    """A prefix as C wants it: 16 bytes, IPv4 as ::ffff:a.b.c.d and its length + 96."""
    address = network.network_address
    if isinstance(address, IPv6Address):
        return address.packed, network.prefixlen
    return V4_MAPPED + address.packed, network.prefixlen + 96
